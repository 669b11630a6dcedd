"""Folders that are made, with names as long as anyone may type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollflow.errors import FolderError
from rollflow.files.atomic import check_folder, make_folder


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("name", ["a/" * 3000, "a" * 300])
def test_a_name_that_no_disk_takes_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="cannot write to the folder"):
        check_folder(tmp_path / name)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OSError, match=r"File exists|Not a directory"):
            make_folder(folder)

"""Files of a report that is written again: its own are replaced, the user's are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollflow.errors import BadSetting
from rollflow.files.atomic import write
from rollflow.report.owned import with_seal

FILES = {"a.html": b"<p>\n</html>", "a.md": b"# a <b>", "a.csv": b"", "a.tex": b"\\a"}
LATER = {**FILES, "a.html": b"<q></html>", "a.md": b"later"}


def keep(folder: Path, files: dict[str, bytes]) -> None:
    write(folder, with_seal(folder, "a.html", files))


@pytest.mark.parametrize("name", FILES)
def test_what_a_report_did_not_write_or_what_changed_since_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(BadSetting, match=f"holds {name}, which rollflow did not write"):
        keep(tmp_path, FILES)
    (tmp_path / name).unlink()
    keep(tmp_path, FILES)
    keep(tmp_path, LATER)
    keep(tmp_path, LATER)
    for change in (b"mine", (tmp_path / name).read_bytes() + b"mine"):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(change)
        with pytest.raises(BadSetting, match=f"holds .*{name}"):
            keep(tmp_path, FILES)
        assert (tmp_path / name).read_bytes() == change
        (tmp_path / name).write_bytes(before)


@pytest.mark.parametrize("count", range(5))
def test_what_a_kill_between_two_files_left_is_its_own(count: int, tmp_path: Path) -> None:
    keep(tmp_path, FILES)
    for name, content in list(with_seal(tmp_path, "a.html", LATER).items())[:count]:
        (tmp_path / name).write_bytes(content)
    keep(tmp_path, LATER)
    assert (tmp_path / "a.md").read_bytes() == b"later"


def test_links_and_pages_with_seals_of_others_prove_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"mine")
    (tmp_path / "a.md").symlink_to("notes")
    for seal in ('{"a.md": 3}', '{"a.md": [""]}', "[]", "{" * 10**5 + "}", '{"a.html": {}}'):
        (tmp_path / "a.html").write_text(f"x\n<!-- rollflow {seal} -->\n")
        with pytest.raises(BadSetting, match=r"holds a\.html, a\.md"):
            keep(tmp_path, FILES)
    assert (tmp_path / "notes").read_bytes() == b"mine"

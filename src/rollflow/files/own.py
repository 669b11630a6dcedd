"""Files whose names rollflow chooses: it replaces only those that it wrote itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from rollflow.errors import BadSetting
from rollflow.files.atomic import open_regular

GENERATOR = "rollflow"
"""Name of the writing program in pages and pictures."""

_HEAD = 1 << 14
_MARKS = {
    ".html": re.compile(rb'<meta name="generator" content="rollflow">'),
    ".md": re.compile(rb"[Ww]ritten by `rollflow "),
    ".tex": re.compile(rb"\A% Written by rollflow"),
    ".csv": re.compile(rb"\Atable,row,column,value,low,high,note\r?\n"),
    ".png": re.compile(rb"\A\x89PNG.*tEXtSoftware\x00rollflow", re.DOTALL),
    ".npz": re.compile(rb'\APK\x03\x04.{26}about\.npy.{1,200}\{"format": "rollflow profile ', re.DOTALL),
    ".json": re.compile(rb'\A\{\n "(model": "[^"\n]*",\n "accuracy": \{|form": "rollflow )'),
}
"""Mark at the beginning of each kind of file that rollflow writes."""


def is_own(path: Path) -> bool:
    """Whether a file carries the mark of the files that rollflow writes."""
    mark = _MARKS.get(path.suffix)
    try:
        if mark is None or path.is_symlink():
            return False
        with open_regular(path, 1 << 62) as file:
            return mark.search(file.read(_HEAD)) is not None
    except (OSError, ValueError):
        return False


def check_own(folder: Path, names: Iterable[str]) -> None:
    """Check, before any work is done, that no file of the user would be replaced.

    Args:
        folder: Folder to write to.
        names: Names of the files to write, none of them chosen by the user.

    Raises:
        BadSetting: If one of the names belongs to a file that rollflow did not write.
    """
    foreign = [name for name in names if os.path.lexists(folder / name) and not is_own(folder / name)]
    if foreign:
        raise BadSetting(
            f"'{folder}' holds {', '.join(foreign)}, which rollflow did not write (earlier releases did not mark all "
            "their files); move it away, or choose another folder (--out)"
        )

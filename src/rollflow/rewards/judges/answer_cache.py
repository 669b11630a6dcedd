"""Answers that were paid for, on disk."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rollflow.errors import RewardUnavailable
from rollflow.files.atomic import write
from rollflow.files.documents import read_text


def user_cache() -> Path:
    """The folder in which the system keeps what a user's programs could make again."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "rollflow"


@dataclass(frozen=True)
class AnswerCache:
    """Answers by the SHA-256 of all that decides them, a file each.

    Args:
        folder: Made when it is first needed; None keeps nothing.
    """

    folder: Path | None

    def _path(self, folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> str | None:
        """An answer as it came, if there is one."""
        try:
            return None if self.folder is None else read_text(self._path(self.folder, key))
        except (OSError, ValueError):
            return None

    def put(self, key: str, text: str) -> None:
        """Keep an answer, whole or not at all; a power failure may lose it, and it is then asked for again."""
        if self.folder is None:
            return
        path = self._path(self.folder, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path.parent, {path.name: text.encode()}, durable=False)
        except OSError as error:
            raise RewardUnavailable(
                f"an answer cannot be kept in '{self.folder}': {error.strerror}; give another folder with cache=..., "
                "or cache=none"
            ) from error

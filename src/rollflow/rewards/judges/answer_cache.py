"""A cache of paid answers on disk."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rollflow.errors import RewardUnavailable
from rollflow.files.atomic import write
from rollflow.files.documents import read_text


def user_cache() -> Path:
    """The user's cache folder for rollflow, by the conventions of the operating system."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "rollflow"


@dataclass(frozen=True)
class AnswerCache:
    """Answers in one file each, by the SHA-256 of the whole request.

    Args:
        folder: Folder of the files, created when first needed; None disables the cache.
    """

    folder: Path | None

    def _path(self, folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> str | None:
        """Return a cached answer; None if there is none."""
        try:
            return None if self.folder is None else read_text(self._path(self.folder, key))
        except (OSError, ValueError):
            return None

    def put(self, key: str, text: str) -> None:
        """Store an answer atomically; after a power failure it may be missing, and is then requested again."""
        if self.folder is None:
            return
        path = self._path(self.folder, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path.parent, {path.name: text.encode()}, durable=False)
        except OSError as error:
            raise RewardUnavailable(
                f"cannot store an answer in '{self.folder}': {error.strerror}; choose another folder with cache=..., "
                "or give cache=none"
            ) from error

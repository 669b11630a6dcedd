"""The output folder of a run: its lock, and which of its files rollflow wrote."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from rollflow.errors import FolderError, RollflowWarning
from rollflow.files.atomic import make_folder, open_regular, trouble, write

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, where two simultaneous runs in one folder go unnoticed
    fcntl = None

RESULT, LOCK = "result.json", ".rollflow-lock"
_MOST_JSON = 1 << 28


class RunFolder:
    """An output folder that one run at a time writes to, replacing and removing only rollflow's own files.

    A file is rollflow's own if its digest is among the ``files`` of an unmodified ``result.json``, or in the lock file,
    which announces what is about to be written, so that even a kill leaves no file of unknown origin. The system
    releases the lock when the process ends.

    Args:
        path: Path of the folder, created if it does not exist.

    Attributes:
        earlier: Content of the ``result.json`` of an earlier run; None if there is none that rollflow wrote.
        kept: Whether this run has written its own ``result.json``.

    Raises:
        FolderError: On entering, if another run is using the folder, or if it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.earlier: dict[str, Any] | None = None
        self.kept = False
        self._handle = -1
        self._ours = set[tuple[str, str]]()
        self._files = dict[str, str]()
        self._unsettled = False

    @classmethod
    def inspect(cls, path: Path) -> RunFolder:
        """Inspect a folder, which need not exist, without writing to it.

        Raises:
            FolderError: As on entering.
        """
        out = cls(path)
        try:
            handle = os.open(path / LOCK, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if not _hold(handle, shared=True):
                    raise BlockingIOError
                out._ours |= _announced(handle)
            finally:
                os.close(handle)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise _refused(path, error) from None
        out._look()
        return out

    def __enter__(self) -> RunFolder:
        try:
            make_folder(self.path)
            self._handle = _locked(self.path / LOCK)
            self._ours |= _announced(self._handle)
            self._unsettled = bool(self._ours)
        except OSError as error:
            raise _refused(self.path, error) from None
        self._look()
        return self

    def _look(self) -> None:
        self.earlier = _sealed(self.path / RESULT)
        if self.earlier is not None:
            self._ours |= set(self.earlier["files"].items())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if not (self._unsettled and self._is_needed()):
            with suppress(OSError):
                (self.path / LOCK).unlink(missing_ok=True)
        os.close(self._handle)

    def _is_needed(self) -> bool:
        """Whether the folder holds files that the lock announces and ``result.json`` does not list."""
        content = _sealed(self.path / RESULT)
        announced = self._ours - set(content["files"].items() if content else ())
        return any((name, _digest(self.path / name)) in announced for name, _ in announced)

    def foreign(self, names: Iterable[str]) -> list[str]:
        """List those of the names that belong to files which rollflow did not write, or which were changed since."""
        return [name for name in names if not self._is_free(name)]

    def free(self, name: str) -> str:
        """Return the name itself, or a similar one if a file that is not rollflow's has it."""
        stem, dot, suffix = name.rpartition(".")
        others = (f"{stem}-{number}{dot}{suffix}" for number in range(1, 1000))
        return next((one for one in (name, *others) if self._is_free(one)), name)

    def keep(self, content: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        """Write files, and a ``result.json`` that lists them and the files kept before.

        Returns:
            The content of ``result.json``: ``content`` and the digests of the files.

        Raises:
            OSError: If the files cannot be written; existing ones then stay as they were.
        """
        if not self.path.is_dir():
            warnings.warn(
                f"'{self.path}' was moved or deleted during the run; it is created again for the result",
                RollflowWarning,
                stacklevel=2,
            )
            make_folder(self.path)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        self._announce(digests)
        listed = dict(content) | {"files": self._files | digests}
        listed["files"] = {**listed["files"], RESULT: _seal(listed)}
        write(self.path, {**files, self.free(RESULT): encode(listed).encode()})
        self._files |= digests
        self._unsettled, self.kept = False, True
        return listed

    def remove_earlier(self) -> None:
        """Remove the files of earlier runs that this one has not replaced, so that nobody takes them for its own."""
        for name, _ in sorted(self._ours):
            path = self.path / name
            if name not in self._files and path.name == name and (name, _digest(path)) in self._ours:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _is_free(self, name: str) -> bool:
        path = self.path / name
        if not os.path.lexists(path):
            return True
        if name == RESULT:
            return not path.is_symlink() and _sealed(path) is not None
        return (name, _digest(path)) in self._ours

    def _announce(self, digests: Mapping[str, str]) -> None:
        self._ours |= set(digests.items())
        self._unsettled = True
        with suppress(OSError):  # the disk is full: the files will not be written either
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.ftruncate(self._handle, 0)
            os.write(self._handle, json.dumps(sorted(self._ours)).encode())
            os.fsync(self._handle)


def encode(content: Mapping[str, Any]) -> str:
    """Encode as strict JSON, one key per line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _seal(content: Mapping[str, Any]) -> str:
    """Return the digest of the content of a ``result.json`` apart from this digest."""
    files = {name: digest for name, digest in content["files"].items() if name != RESULT}
    return hashlib.sha256(encode({**content, "files": files}).encode()).hexdigest()


def _sealed(path: Path) -> dict[str, Any] | None:
    """Read a ``result.json``; None unless it is as rollflow wrote it."""
    try:
        with open_regular(path, _MOST_JSON) as file:
            content = json.loads(file.read())
        files = content["files"]
        if files[RESULT] != _seal(content) or not all(isinstance(one, str) for one in (*files, *files.values())):
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    sealed: dict[str, Any] = content
    return sealed


def _digest(path: Path) -> str:
    """Return the SHA-256 of a regular file, or an empty string for anything else."""
    digest = hashlib.sha256()
    try:
        if path.is_symlink():
            return ""
        with open_regular(path, 1 << 62) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()


def _locked(path: Path) -> int:
    """Open the lock file and lock it for this process alone.

    Raises:
        BlockingIOError: If another process holds the lock.
        OSError: If the file cannot be created.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not _hold(handle):
                raise BlockingIOError
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or os.pread(handle, 1, 0) not in (b"", b"["):
                raise OSError(None, f"it holds a {LOCK} that rollflow did not write")
            with suppress(FileNotFoundError):  # removed by its holder just before the lock was released
                if os.path.samestat(status, os.lstat(path)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _refused(path: Path, error: OSError) -> FolderError:
    """Make the error for a folder that cannot be locked or written to."""
    if isinstance(error, BlockingIOError):
        return FolderError(f"another run is writing to '{path}'; wait for it, or choose another folder")
    return FolderError(f"{trouble(path, error)}; choose another folder")


def _hold(handle: int, *, shared: bool = False) -> bool:
    """Lock a file; return False if another process holds the lock. Without locks in the system, nothing is locked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _announced(handle: int) -> set[tuple[str, str]]:
    """Return the names and digests that a killed run was about to write."""
    try:
        announced = json.loads(os.read(handle, 1 << 20) or b"[]")
        return {(str(name), str(digest)) for name, digest in announced}
    except (ValueError, TypeError, RecursionError):
        return set()

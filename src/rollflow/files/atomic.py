"""Files that are written whole or not at all, and that are on disk when the write returns.

Contents are written to temporary files beside their targets, flushed to disk and moved into place, and the folder is
flushed as well, so that neither a kill nor a power failure leaves half a file. The temporary files have names of their
own, ``.rollflow-<mark>.<name>.part``, by which a later process recognises those that a killed one has left.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rollflow.errors import FolderError
from rollflow.files.shared import MARK, mark

PACKAGE = Path(__file__).resolve().parents[1]
PART = re.compile(rf"\.rollflow-{MARK}\..{{1,40}}\.part", re.DOTALL)
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF}
_FULL, _QUOTA = {errno.ENOSPC}, {errno.EDQUOT}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
_LOCKED = {errno.EROFS, errno.EACCES, errno.EPERM}


def write(folder: Path, files: Mapping[str, bytes], *, durable: bool = True) -> None:
    """Write files over those of the same names: all are complete on disk before the first takes its place.

    A failure (a full disk, Ctrl-C) while they are written leaves the earlier ones as they were.

    Args:
        folder: Where they go.
        files: Their contents by name.
        durable: Whether they must outlive a power failure.

    Raises:
        OSError: If they cannot be written.
    """
    parts = {name: part_of(folder / name) for name in files}
    try:
        for name, content in files.items():
            _put(parts[name], content, durable)
        for name, part in parts.items():
            os.replace(part, folder / name)
        if durable:
            sync(folder)
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def create(path: Path, content: bytes, *, durable: bool = True) -> bool:
    """Write a file that is not there yet, whole from the first moment; False if it is there.

    Of all who try at once, one succeeds. Where a file system has no hard links, the file may be seen empty.

    Args:
        path: The file.
        content: What it holds.
        durable: Whether it must outlive a power failure.

    Raises:
        OSError: If it cannot be written.
    """
    part = part_of(path)
    try:
        _put(part, content, durable)
        made = link(part, path)
        if made and durable:
            sync(path.parent)
        return made
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def link(file: Path, path: Path) -> bool:
    """Give a file a second name that nothing has yet; False if something has it."""
    try:
        os.link(file, path)
    except FileExistsError:
        return file.stat().st_nlink > 1  # a server that has linked it, and was asked again since its answer was lost
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with path.open("xb") as copy:
                copy.write(file.read_bytes())
        except FileExistsError:
            return False
    return True


def part_of(path: Path) -> Path:
    """A new name for a temporary file beside a file."""
    return path.with_name(f".rollflow-{mark()}.{path.name[:40]}.part")


def parts_of(folder: Path) -> list[Path]:
    """The temporary files in a folder: regular files with a name that only this module gives."""
    with os.scandir(folder) as entries:
        return [Path(one.path) for one in entries if PART.fullmatch(one.name) and one.is_file(follow_symlinks=False)]


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk; nothing where the system cannot do that.

    Raises:
        OSError: If the disk fails.
    """
    folder = path.is_dir()
    if folder and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each on disk; one that is there stays as it is.

    Raises:
        OSError: If it cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):  # from the top, since mkdir itself recurses, which names of a thousand parts outdo
        one.mkdir(exist_ok=True)
    if not missing:
        folder.mkdir(exist_ok=True)  # raises where it is a file
    for one in missing:
        with suppress(PermissionError):  # a parent that may be passed through and not be read
            sync(one.parent)


def check_outside(folder: Path) -> None:
    """Raise a FolderError if a folder lies inside the installed package."""
    if Path(os.path.realpath(folder)).is_relative_to(PACKAGE):  # of a link to itself, resolve() raises a RuntimeError
        raise FolderError(
            f"'{folder}' lies inside the installed package, into which nothing is written; choose another"
        )


def check_folder(folder: Path) -> None:
    """Make the output folder and try it, so that no run is in vain.

    Raises:
        FolderError: If it cannot be written to, or lies inside the installed package, whose data stays as it is.
    """
    check_outside(folder)
    probe = part_of(folder / "probe")
    try:
        make_folder(folder)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FolderError(f"cannot write to the folder '{folder}': {error.strerror}; choose another") from None


@contextmanager
def open_regular(path: Path, most: int) -> Iterator[BinaryIO]:
    """Open a regular file of at most ``most`` bytes to read it.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is something else, such as a pipe or a device, or larger.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if found.st_size > most:
            raise ValueError(f"it has {found.st_size:,} bytes, more than the {most:,} that are read")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def trouble(folder: Path, error: OSError) -> str:
    """What has happened to a folder, in words, from what its use raised."""
    if error.errno in _FULL:
        return f"the disk of '{folder}' is full ({error.strerror})"
    if error.errno in _QUOTA:
        return f"the disk quota of '{folder}' is used up ({error.strerror})"
    if error.errno in _GONE and not folder.is_dir():
        return f"'{folder}' is gone: it was moved or deleted"
    if error.errno in _GONE:
        return f"a part of '{folder}' is gone: {error.filename or error.strerror}"
    if error.errno in _LOCKED:
        return f"'{folder}' cannot be written to any more: {error.strerror}"
    return f"'{folder}' cannot be used: {error.strerror or error}"


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Explain in words what has happened to a folder that can no longer be used.

    Raises:
        FolderError: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise FolderError(trouble(folder, error)) from error


def discard(path: Path) -> None:
    """Remove a file that is no longer needed, if it can be removed."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _put(path: Path, content: bytes, durable: bool) -> None:
    path.write_bytes(content)
    if durable:
        sync(path)

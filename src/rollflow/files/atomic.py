"""Atomic, durable writes: a file is complete or absent, and on disk when the call returns.

Contents are written to temporary files beside their targets, flushed to disk and moved into place, and the folder is
flushed as well, so that neither a kill nor a power failure leaves half a file. Temporary files are called
``.rollflow-<mark>.<name>.part``, so that a later process recognises those that a killed one left behind.
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
    """Write files, replacing existing ones; all are complete on disk before the first is replaced.

    If writing fails (a full disk, Ctrl-C), the existing files stay as they were.

    Args:
        folder: Folder to write to.
        files: Contents by file name.
        durable: Whether the files must survive a power failure.

    Raises:
        OSError: If the files cannot be written.
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
    """Write a new file, complete from the first moment; return False if it exists already.

    Of several processes that try at once, one succeeds. On a file system without hard links, the file may be seen
    empty.

    Args:
        path: File to create.
        content: Content of the file.
        durable: Whether the file must survive a power failure.

    Raises:
        OSError: If the file cannot be written.
    """
    part = part_of(path)
    try:
        _put(part, content, durable)
        created = link(part, path)
        if created and durable:
            sync(path.parent)
        return created
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def link(file: Path, path: Path) -> bool:
    """Give a file a second name; return False if the name is taken."""
    try:
        os.link(file, path)
    except FileExistsError:
        return file.stat().st_nlink > 1  # a server made the link, and was asked again since its answer was lost
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
    """Return a new name for a temporary file beside a file."""
    return path.with_name(f".rollflow-{mark()}.{path.name[:40]}.part")


def parts_of(folder: Path) -> list[Path]:
    """List the temporary files in a folder: regular files with a name that only this module gives."""
    with os.scandir(folder) as entries:
        return [Path(one.path) for one in entries if PART.fullmatch(one.name) and one.is_file(follow_symlinks=False)]


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk; do nothing where the system cannot.

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
    """Create a folder and its parents, and flush them to disk; an existing folder is left as it is.

    Raises:
        OSError: If the folder cannot be created.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):  # from the top: mkdir(parents=True) recurses too deeply for long paths
        one.mkdir(exist_ok=True)
    if not missing:
        folder.mkdir(exist_ok=True)  # raises if it is a file
    for one in missing:
        with suppress(PermissionError):  # a parent that may be entered but not read
            sync(one.parent)


def check_outside(folder: Path) -> None:
    """Raise a FolderError if a folder lies inside the installed package."""
    if Path(os.path.realpath(folder)).is_relative_to(PACKAGE):  # resolve() raises a RuntimeError for a link to itself
        raise FolderError(
            f"'{folder}' lies inside the installed package, which rollflow never writes to; choose another folder"
        )


def check_folder(folder: Path) -> None:
    """Create the output folder and try to write to it, so that no run is wasted.

    Raises:
        FolderError: If it cannot be written to, or lies inside the installed package.
    """
    check_outside(folder)
    probe = part_of(folder / "probe")
    try:
        make_folder(folder)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FolderError(f"cannot write to the folder '{folder}': {error.strerror}; choose another folder") from None


@contextmanager
def open_regular(path: Path, most: int) -> Iterator[BinaryIO]:
    """Open a regular file of at most ``most`` bytes for reading.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is larger, or not a regular file but, for example, a pipe or a device.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > most:
            raise ValueError(f"expected at most {most:,} bytes, got {status.st_size:,}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def trouble(folder: Path, error: OSError) -> str:
    """Describe what happened to a folder, from the error that using it raised."""
    if error.errno in _FULL:
        return f"the disk of '{folder}' is full ({error.strerror})"
    if error.errno in _QUOTA:
        return f"the disk quota of '{folder}' is used up ({error.strerror})"
    if error.errno in _GONE and not folder.is_dir():
        return f"'{folder}' no longer exists: it was moved or deleted"
    if error.errno in _GONE:
        return f"a part of '{folder}' no longer exists: {error.filename or error.strerror}"
    if error.errno in _LOCKED:
        return f"'{folder}' is no longer writable: {error.strerror}"
    return f"'{folder}' cannot be used: {error.strerror or error}"


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Turn an error of using a folder into one that says what happened to the folder.

    Raises:
        FolderError: Instead of an ``OSError``.
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

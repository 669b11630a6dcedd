"""Files of a folder that several processes, also on several machines, write to at once."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

_MARK = re.compile(r"([0-9a-f]{12})-([0-9]+)-[0-9a-f]{8}")
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}
_BOOT, _COUNTED = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


def mark() -> str:
    """A new name for files of this process: where its number is counted, the number, and something random."""
    return f"{_realm()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def gone(text: str) -> bool:
    """Whether the process whose mark a text holds is certainly no more.

    Numbers of processes say nothing between machines, nor between containers, whatever their names: a process that was
    counted elsewhere is never certain to be gone.
    """
    found = _MARK.search(text)
    if found is None or found[1] != _realm() or os.name != "posix":
        return False
    try:
        os.kill(int(found[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


@cache
def _realm() -> str:
    """Where numbers of processes are counted as here: this boot of this kernel, and this namespace of it."""
    told = [socket.gethostname()]
    try:
        told += [_BOOT.read_text().strip(), os.readlink(_COUNTED)]
    except OSError:  # a system without /proc
        told.append(str(uuid.getnode()))
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:12]


def create(path: Path, content: bytes) -> bool:
    """Write a file that is not there yet, whole from the first moment; False if it is there.

    Of all who try at once, one succeeds. Where a file system has no hard links, the file may be seen empty.
    """
    part = path.with_name(f".{path.name}.{mark()}.part")
    try:
        part.write_bytes(content)
        return link(part, path)
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

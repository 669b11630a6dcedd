"""Marks of processes, by which others tell whose a file is and whether its owner is gone."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from functools import cache
from pathlib import Path

MARK = "[0-9a-f]{12}-[0-9]{1,10}-[0-9a-f]{8}"
"""Pattern of a mark."""
_MARK = re.compile(r"([0-9a-f]{12})-([0-9]{1,10})-[0-9a-f]{8}")
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

"""Marks in file names, which say which process owns a file, so that others can tell whether it has ended."""

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
_BOOT, _NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


def mark() -> str:
    """Return a new mark of this process: a digest of where its id is valid, the id, and a random part."""
    return f"{_realm()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def has_ended(text: str) -> bool:
    """Whether the process whose mark a text contains has certainly ended.

    Process ids mean nothing on other machines or in other containers, even those of the same name: a process from
    elsewhere is never certain to have ended.
    """
    match = _MARK.search(text)
    if match is None or match[1] != _realm() or os.name != "posix":
        return False
    try:
        os.kill(int(match[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


@cache
def _realm() -> str:
    """Return a digest of where process ids are valid: this boot of the kernel, and this namespace of processes."""
    parts = [socket.gethostname()]
    try:
        parts += [_BOOT.read_text().strip(), os.readlink(_NAMESPACE)]
    except OSError:  # a system without /proc
        parts.append(str(uuid.getnode()))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]

"""Watches what a loader does: what it imports, runs, connects to and writes, and how much memory and time it takes."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS = 20
"""Processor time that a loader may take for one file."""
MEGABYTES = 2560
"""By which the process may have grown when all is done: the largest film that is read takes 2 GB."""

_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "socket.connect")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree")


class TooSlow(BaseException):
    """A loader that has taken all of its time."""


class Guard:
    """Notes what a loader must not do. Its hook cannot be removed, so that it belongs in a process of its own.

    Args:
        folder: The only one that may be written to.
        secret: A file outside that nobody may open.

    Attributes:
        seen: What was done that must not be, since the last ``watching``.
    """

    def __init__(self, folder: Path, secret: Path) -> None:
        self.folder, self.secret = folder.resolve(), secret.resolve()
        self.seen: list[str] = []
        self._on = False
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGPROF, _too_slow)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what is done within."""
        self.seen, self._on = [], True
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._on = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | Path):
            self._opened(Path(str(arguments[0])), arguments[1], arguments[2])
        elif event.startswith(_FORBIDDEN) or (event in _CHANGES and not self._inside(Path(str(arguments[0])))):
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "import" and str(arguments[0]).partition(".")[0] in ("canary", "antigravity", "this"):
            self.seen.append(f"import {arguments[0]}")

    def _opened(self, path: Path, mode: str | None, flags: int) -> None:
        writes = bool(set(mode or "") & set("wax+")) or bool(flags & 0o3)
        whole = Path.cwd() / path
        if (writes and not self._inside(path)) or whole.resolve() == self.secret:
            self.seen.append(f"open {path} {mode or oct(flags)}")

    def _inside(self, path: Path) -> bool:
        whole = (Path.cwd() / path).resolve()
        return whole.is_relative_to(self.folder) or whole.is_relative_to("/dev")


def _too_slow(signum: int, frame: FrameType | None) -> None:
    raise TooSlow(f"still at work after {SECONDS} s")


def limit_memory(megabytes: int) -> None:
    """Let this process ask for so much more address space and no more; beyond, it gets a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def peak() -> int:
    """The most memory that this process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

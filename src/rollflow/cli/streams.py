"""Standard streams whose reader may leave (``| head``), or that vanish with their terminal: no run ends by that."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rollflow.printable import printable

CLOSED_PIPE = 141
"""Exit code of what nobody read to its end, as shells have it: 128 and the number of SIGPIPE."""

_GONE = (errno.EPIPE, errno.EIO)  # EIO is what a terminal gives that was closed


class _Stream:
    """A stream to which writing cannot fail for want of a reader.

    Args:
        stream: What is written to; None is nothing, as where a process was started without it.
        plain: Whether control characters are written out, which a terminal would obey: no command needs any on its
            standard output, and what it prints may come from a file, a folder or a server.

    Attributes:
        gone: Whether nobody reads it any more.
    """

    def __init__(self, stream: TextIO | None, *, plain: bool = False) -> None:
        self.stream = stream
        self.plain = plain
        self.gone = False

    def write(self, text: str) -> int:
        if self.stream is not None and not self.gone:
            try:
                self.stream.write(printable(text) if self.plain else text)
            except OSError as error:
                self._leave(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.stream is not None and not self.gone:
            try:
                self.stream.flush()
            except OSError as error:
                self._leave(error)

    def _leave(self, error: OSError) -> None:
        if error.errno not in _GONE:
            raise error
        self.gone = True
        assert self.stream is not None
        with suppress(OSError, ValueError):  # what is left in the buffer goes nowhere, without a word at the exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def watched() -> Iterator[list[_Stream]]:
    """Standard output and error, to which every write succeeds; ``gone`` says whether anyone reads them."""
    before = sys.stdout, sys.stderr
    streams = [_Stream(sys.stdout, plain=True), _Stream(sys.stderr)]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    try:
        yield streams
    finally:
        for stream in streams:
            with suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before

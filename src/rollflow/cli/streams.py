"""Standard streams whose reader may close them (``| head``), or that disappear with their terminal.

Writing to them never fails. The first write to a closed stream interrupts the command, as Ctrl-C does.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rollflow.files.printable import printable
from rollflow.runtime import interruption

CLOSED_PIPE = 128 + interruption.PIPE
"""Exit code of a command whose output was not read to its end, as in shells."""

_CLOSED = (errno.EPIPE, errno.EIO)  # a closed terminal gives EIO


class _Stream:
    """A stream to which writing does not fail after its reader has closed it.

    Args:
        stream: Stream to write to; None discards everything, as in a process that was started without the stream.
        plain: Whether to escape control characters, which a terminal would obey: no command needs any on its standard
            output, and what it prints may come from a file, a folder or a server. Lines are flushed at once, so that a
            closed stream is noticed.

    Attributes:
        unread: Whether the reader has closed it.
        over: Whether the command has finished, so that there is nothing left to interrupt.
    """

    def __init__(self, stream: TextIO | None, *, plain: bool = False) -> None:
        self.stream = stream
        self.plain = plain
        self.unread = self.over = False

    def write(self, text: str) -> int:
        if self.stream is not None and not self.unread:
            shown = printable(text) if self.plain else text
            try:
                try:
                    self.stream.write(shown)
                except UnicodeEncodeError:  # the encoding of a terminal must not cost a result
                    encoding = self.stream.encoding
                    self.stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
                if self.plain and "\n" in text:
                    self.stream.flush()
            except OSError as error:
                self._leave(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.stream is not None and not self.unread:
            try:
                self.stream.flush()
            except OSError as error:
                self._leave(error)

    def _leave(self, error: OSError) -> None:
        if error.errno not in _CLOSED:
            raise error
        self.unread = True
        assert self.stream is not None
        with suppress(OSError, ValueError):  # discard the buffer, which would otherwise cause an error at exit
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)
        if not self.over:
            interruption.closed_pipe(error.errno)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def watched() -> Iterator[list[_Stream]]:
    """Replace standard output and error by streams to which every write succeeds, and yield them."""
    before = sys.stdout, sys.stderr
    streams = [_Stream(sys.stdout, plain=True), _Stream(sys.stderr)]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    try:
        yield streams
    finally:
        for stream in streams:
            stream.over = True
            with suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before

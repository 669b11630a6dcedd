"""Standard streams whose reader may leave (``| head``), or that vanish with their terminal.

No write to them fails. The first that reaches nobody interrupts the command, as Ctrl-C does.
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
"""Exit code of what nobody read to its end, as shells have it."""

_GONE = (errno.EPIPE, errno.EIO)  # EIO is what a terminal gives that was closed


class _Stream:
    """A stream to which writing cannot fail for want of a reader.

    Args:
        stream: What is written to; None is nothing, as where a process was started without it.
        plain: Whether control characters are written out, which a terminal would obey: no command needs any on its
            standard output, and what it prints may come from a file, a folder or a server. Lines are passed on at once,
            so that a reader who left is noticed.

    Attributes:
        gone: Whether nobody reads it any more.
        over: Whether the command is at its end, so that there is nothing left to interrupt.
    """

    def __init__(self, stream: TextIO | None, *, plain: bool = False) -> None:
        self.stream = stream
        self.plain = plain
        self.gone = self.over = False

    def write(self, text: str) -> int:
        if self.stream is not None and not self.gone:
            shown = printable(text) if self.plain else text
            try:
                try:
                    self.stream.write(shown)
                except UnicodeEncodeError:  # a terminal of another encoding must not cost what was computed
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
        if not self.over:
            interruption.closed_pipe(error.errno)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def watched() -> Iterator[list[_Stream]]:
    """Standard output and error, to which every write succeeds; ``gone`` says whether one reaches nobody any more."""
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

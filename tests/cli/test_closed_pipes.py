"""Output that nobody reads interrupts a command, and costs nothing of what is done."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable

import pytest
from support.waiting import PATIENCE

from rollflow.cli import main, streams
from rollflow.runtime import interruption
from rollflow.runtime.interruption import Interruption


class Gone:
    """A stream that nobody reads."""

    def __init__(self, code: int = errno.EPIPE) -> None:
        self.code, self.writes = code, 0

    def write(self, text: str) -> int:
        self.writes += 1
        raise OSError(self.code, os.strerror(self.code))

    def flush(self) -> None: ...

    def fileno(self) -> int:
        raise ValueError("no file")


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Gone]:
    def gone(name: str, code: int = errno.EPIPE) -> Gone:
        stream = Gone(code)
        monkeypatch.setattr(sys, name, stream)
        return stream

    return gone


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("code", [errno.EPIPE, errno.EIO])
def test_a_write_that_reaches_nobody_interrupts_once(name: str, code: int, gone: Callable[..., Gone]) -> None:
    stream = gone(name, code)
    with interruption.listening():
        with streams.watched() as watched:
            with pytest.raises(Interruption):
                print("a", file=getattr(sys, name))
            interruption.wind_up()
            print("b", file=getattr(sys, name))
        assert interruption.exit_code() == 141
    assert [one.unread for one in watched] == [name == "stdout", name == "stderr"]
    assert stream.writes == 1


def test_a_write_of_another_thread(gone: Callable[..., Gone]) -> None:
    gone("stderr")

    def work() -> None:
        thread = threading.Thread(target=lambda: print("a", file=sys.stderr))
        thread.start()
        thread.join(PATIENCE)

    with interruption.listening(), streams.watched(), pytest.raises(Interruption):
        work()


def test_a_full_disk_is_no_closed_pipe(gone: Callable[..., Gone]) -> None:
    gone("stdout", errno.ENOSPC)
    with interruption.listening(), streams.watched(), pytest.raises(OSError, match="space"):
        print("a")


@pytest.mark.parametrize("line", [["methods"], ["methods", "-v"], ["rewards"], ["--help"], ["bench", "presets"]])
def test_what_only_prints_ends_without_a_word(
    line: list[str], gone: Callable[..., Gone], capsys: pytest.CaptureFixture[str]
) -> None:
    gone("stdout")
    assert main(line) == 141
    assert capsys.readouterr().err == ""


def test_an_error_is_an_error_whether_or_not_it_is_read(gone: Callable[..., Gone]) -> None:
    gone("stderr")
    assert main(["generate", "a", "--nfe", "0"]) == 2


def test_lines_are_passed_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with open(read) as reader, open(write, "w") as writer:
        monkeypatch.setattr(sys, "stdout", writer)
        with streams.watched():
            print("a line")
            assert reader.readline() == "a line\n"

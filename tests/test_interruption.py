"""Signals as exceptions, and what they may not disturb."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from support.waiting import PATIENCE

from rollflow.runtime import interruption
from rollflow.runtime.interruption import Interruption, listening, shielded, skippable, wind_up


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals of these tests are never taken for one, however fast they come."""
    monkeypatch.setattr(interruption, "GRACE", 0.0)


@pytest.fixture
def listener() -> Iterator[None]:
    with listening():
        yield


@pytest.mark.parametrize(
    ("number", "said", "code"),
    [
        (signal.SIGINT, "interrupted", 130),
        (signal.SIGTERM, "interrupted by SIGTERM", 143),
        (signal.SIGHUP, "interrupted by SIGHUP", 129),
    ],
)
def test_a_signal_is_raised_once(listener: None, number: int, said: str, code: int) -> None:
    with pytest.raises(Interruption, match=f"^{said}$"):
        signal.raise_signal(number)
    wind_up()
    for more in (number, signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(more)
    assert (interruption.described(), interruption.exit_code()) == (said, code), "the first is what counts"


def test_two_in_short_order_are_one(listener: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "GRACE", PATIENCE)
    with pytest.raises(Interruption):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    wind_up()
    with skippable(PATIENCE):
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_restored_and_ignored_signals_stay_ignored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with listening():
            assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in before} == before
    assert not interruption.happened()


def test_what_is_shielded_is_whole(listener: None) -> None:
    done = []

    def work() -> None:
        with shielded():
            with shielded():
                signal.raise_signal(signal.SIGTERM)
            done.append("all")
        done.append("more")

    with pytest.raises(Interruption):
        work()
    assert done == ["all"]
    wind_up()
    with shielded():
        signal.raise_signal(signal.SIGTERM)


def test_what_is_skippable_is_cut_short_by_one_more_or_by_time(listener: None) -> None:
    with skippable(0.001):
        time.sleep(0.01)  # nothing is bounded before the end has begun
    with pytest.raises(Interruption):
        signal.raise_signal(signal.SIGINT)
    wind_up()
    begun = time.monotonic()
    with pytest.raises(Interruption), skippable(0.01):
        time.sleep(PATIENCE)
    with skippable(PATIENCE):
        pass
    with pytest.raises(Interruption), skippable(PATIENCE):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interruption), skippable(PATIENCE):
        raise AssertionError("not even begun after that")
    assert time.monotonic() - begun < PATIENCE / 2


def test_an_interruption_that_someone_swallowed_comes_again(listener: None) -> None:
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interruption, match="SIGTERM"):
        interruption.check()
    wind_up()
    interruption.check()


def test_an_interruption_in_a_destructor_comes_again(listener: None) -> None:
    class Unlucky:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Unlucky()
        time.sleep(PATIENCE)

    with pytest.raises(Interruption, match="SIGTERM"):
        work()


def test_other_threads_and_the_library_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with listening(), shielded(), skippable(1):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
    with shielded(), skippable(0.0):
        interruption.check()
        wind_up()
    assert (interruption.described(), interruption.exit_code()) == ("interrupted", 130)


def test_output_that_nobody_reads_is_raised_once(listener: None) -> None:
    with pytest.raises(Interruption, match=r"^interrupted, because its output was closed$"):
        interruption.closed_pipe(errno.EPIPE)
    assert interruption.unanswered()
    wind_up()
    with skippable(PATIENCE):
        interruption.closed_pipe(errno.EPIPE)
    with skippable(PATIENCE):
        assert interruption.exit_code() == 141, "it is no second signal, which would cut this short"


def test_output_of_another_thread_interrupts_the_main_one(listener: None) -> None:
    thread = threading.Thread(target=interruption.closed_pipe, args=(errno.EPIPE,))
    begun = time.monotonic()

    def work() -> None:
        thread.start()
        time.sleep(PATIENCE)

    with pytest.raises(Interruption, match="output was closed"):
        work()
    thread.join()
    assert time.monotonic() - begun < PATIENCE / 2
    assert interruption.exit_code() == 141


def test_what_nobody_reads_waits_for_what_must_be_whole(listener: None) -> None:
    done = []

    def work() -> None:
        with shielded():
            interruption.closed_pipe(errno.EPIPE)
            done.append("all")
        done.append("more")

    with pytest.raises(Interruption):
        work()
    assert done == ["all"]


def test_what_nobody_reads_in_a_destructor_comes_again(listener: None) -> None:
    class Unlucky:
        def __del__(self) -> None:
            interruption.closed_pipe(errno.EPIPE)

    def work() -> None:
        Unlucky()
        time.sleep(PATIENCE)

    with pytest.raises(Interruption, match="output was closed"):
        work()


def test_what_need_not_be_read(listener: None) -> None:
    with interruption.unheard():
        interruption.closed_pipe(errno.EPIPE)
    with contextlib.suppress(AttributeError):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup: the terminal may go
        try:
            interruption.closed_pipe(errno.EIO)
        finally:
            signal.signal(signal.SIGHUP, before)
    assert not interruption.happened()
    with pytest.raises(Interruption):
        interruption.closed_pipe(errno.EIO)

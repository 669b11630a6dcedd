"""What the batcher keeps, and that everyone is answered whatever happens to its thread."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from support.hosting import Spy, Wavy
from support.waiting import PATIENCE, wait_until
from torch import Tensor

from rollflow.rewards.remote.server import batcher as batching
from rollflow.rewards.remote.server.batcher import Batcher
from rollflow.rewards.remote.server.limits import Refusal
from rollflow.rewards.remote.wire import SampleBatch


@pytest.fixture
def spy() -> Iterator[Spy]:
    spy = Spy()
    yield spy
    spy.gate.set()


@pytest.fixture
def batcher(spy: Spy) -> Iterator[Batcher]:
    batcher = Batcher(spy)
    yield batcher
    batcher.close()


def batch(prompt: str) -> SampleBatch:
    return SampleBatch(torch.rand(1, 2, generator=torch.Generator().manual_seed(len(prompt))), [prompt])


def exact(prompt: str) -> list[float]:
    scores: list[float] = Wavy().score(*batch(prompt)).tolist()
    return scores


@pytest.mark.parametrize("prompt", ["trouble", "fine"])
@pytest.mark.slow
def test_no_samples_stay(prompt: str, batcher: Batcher, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those of a request nor those that the reward was given, before any collection of cycles."""
    given: list[weakref.ref[Tensor]] = []
    score = spy.score

    def watched(samples: Tensor, prompts: Sequence[str]) -> Tensor:
        given.append(weakref.ref(samples))
        if "trouble" in prompts:
            raise ValueError("of a new kind")  # which nobody else holds
        return score(samples, prompts)

    monkeypatch.setattr(spy, "score", watched)
    gc.collect()
    gc.disable()
    try:
        sent = batch(prompt)
        given.append(weakref.ref(sent.samples))
        answer = batcher.submit(sent, b"key")
        error = answer.exception(PATIENCE)
        assert isinstance(error, Refusal) == (prompt == "trouble")
        assert error is None or (error.__traceback__ is None and error.__context__ is None)
        del sent
        wait_until(lambda: len(given) == 2 and all(ref() is None for ref in given))
    finally:
        gc.enable()


def test_what_failed_is_scored_again_and_what_did_not_is_remembered(batcher: Batcher, spy: Spy) -> None:
    first = batcher.submit(batch("trouble"), b"key")
    assert isinstance(first.exception(PATIENCE), Refusal)
    spy.trouble = None
    again = batcher.submit(batch("trouble"), b"key")
    assert again.result(PATIENCE) == exact("trouble")
    assert batcher.submit(batch("trouble"), b"key") is again
    assert spy.calls == [["trouble"]] * 2


def test_only_the_last_are_remembered(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_REMEMBERED", 2)
    first, second, third = (batcher.submit(batch("x"), key) for key in (b"1", b"2", b"3"))
    assert batcher.submit(batch("x"), b"3") is third
    assert batcher.submit(batch("x"), b"2") is second
    assert batcher.submit(batch("x"), b"1") is not first


def test_no_memory_for_all_together(batcher: Batcher, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    cat = torch.cat

    def small(tensors: list[Tensor]) -> Tensor:
        if len(tensors) > 1:
            raise MemoryError
        return cat(tensors)

    monkeypatch.setattr(torch, "cat", small)
    spy.gate.clear()
    asked = {"first": batcher.submit(batch("first"))}
    assert spy.entered.wait(PATIENCE)
    asked |= {prompt: batcher.submit(batch(prompt)) for prompt in ("a", "bc")}
    spy.gate.set()
    for prompt, answer in asked.items():
        assert answer.result(PATIENCE) == exact(prompt)
    assert batcher.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_everyone_is_told_that_the_thread_has_ended(batcher: Batcher, spy: Spy) -> None:
    spy.trouble = KeyboardInterrupt()  # what no reward is blamed for
    spy.gate.clear()
    asked = [batcher.submit(batch("first"))]
    assert spy.entered.wait(PATIENCE)
    asked += [batcher.submit(batch(prompt), prompt.encode()) for prompt in ("trouble", "after")]
    assert batcher.submit(batch("after"), b"after") is asked[-1]
    spy.gate.set()
    assert asked[0].exception(PATIENCE) is None
    for answer in asked[1:]:
        error = answer.exception(PATIENCE)
        assert isinstance(error, Refusal)
        assert error.status == 503
    assert not batcher.alive
    with pytest.raises(Refusal, match="restart the server"):
        batcher.submit(batch("later"))
    batcher._thread.join()  # which tells pytest of its end


def test_what_comes_after_the_end_is_refused(spy: Spy) -> None:
    batcher = Batcher(spy)
    answer = batcher.submit(batch("x"))
    batcher.close()
    assert answer.result(PATIENCE) == exact("x")
    wait_until(lambda: not batcher.alive)
    with pytest.raises(Refusal, match="has ended"):
        batcher.submit(batch("y"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=["Python", "CPU", "CUDA"],
)
def test_memory_that_runs_out_is_too_much_not_a_failure(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    spy = Spy()
    spy.trouble = error
    batcher = Batcher(spy)
    told = batcher.submit(SampleBatch(torch.zeros(1, 2), ["trouble"])).exception(PATIENCE)
    assert isinstance(told, Refusal)
    assert (told.status, str(told)) == (413, "reward 'wavy' ran out of memory; send fewer or smaller samples")
    assert not caplog.records
    batcher.close()


def test_large_samples_share_no_call() -> None:
    spy = Spy()
    spy.gate.clear()
    batcher = Batcher(spy, numbers=20)
    asked = [batcher.submit(SampleBatch(torch.zeros(1, 10), [str(i)])) for i in range(5)]
    assert spy.entered.wait(PATIENCE)
    spy.gate.set()
    for future in asked:
        future.result(PATIENCE)
    assert max(len(prompts) for prompts in spy.calls) <= 2
    assert sum(len(prompts) for prompts in spy.calls) == 5
    batcher.close()

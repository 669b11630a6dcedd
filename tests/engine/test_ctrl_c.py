"""Ctrl-C ends a run at once with its best sample: nobody is waited for, and another Ctrl-C loses nothing."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.waiting import PATIENCE
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Interrupted, Job, Observer, Result, Task
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.mixing import WeightedSum
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SVDD, BestOfN

STEPS4 = Sampler(Linear(), steps=4)


class Away(ToyReward):
    """Of another process, which stops answering at one of its calls, during which the user presses Ctrl-C."""

    name = "away"
    remote = True

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers, self.asked, self.forever = answers, 0, threading.Event()

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.asked += 1
        if self.asked > self.answers:
            os.kill(os.getpid(), signal.SIGINT)
            self.forever.wait(PATIENCE)
        return super().score(samples, prompts)


class Odd(ToyReward):
    """Local; is called ``name``, and interrupted in its first so many calls."""

    def __init__(self, name: str, interruptions: int = 0) -> None:
        super().__init__()
        self.name, self.left, self.asked = name, interruptions, 0  # type: ignore[misc]

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.asked += 1
        self.left -= 1
        if self.left >= 0:
            raise KeyboardInterrupt
        return super().score(samples, prompts)


def stopped(job: Job, observers: Sequence[Observer] = ()) -> tuple[Result, float]:
    """The result of a job that is interrupted, and the seconds that it took."""
    begun = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        Engine(observers=observers).run([job])
    [result] = caught.value.results
    assert result is not None
    return result, time.monotonic() - begun


def test_a_reward_that_does_not_answer_is_not_waited_for(line: ToyModel) -> None:
    """Nor is one from elsewhere asked what it says of the sample; those that are here are."""
    silent, far, near = Away(2), Away(99), Odd("near")
    try:
        result, seconds = stopped(Job(Task(line, "wide", silent, (far, near)), SVDD(2), 100, 0, STEPS4))
    finally:
        silent.forever.set()
    assert seconds < PATIENCE / 2
    assert silent.asked == 3
    assert result.interrupted
    assert result.reward == float(ToyReward().score(result.sample[None], ["wide"]))
    assert (far.asked, near.asked) == (0, 1)
    assert math.isnan(result.held_out["away"])
    assert result.held_out["near"] == result.reward
    assert result.missing == {"away": "interrupted before it was called"}


def test_parts_of_a_mixture_that_does_not_answer_are_missing(line: ToyModel) -> None:
    silent, near = Away(2), Odd("near")
    try:
        result, seconds = stopped(Job(Task(line, "wide", WeightedSum((silent, near))), SVDD(2), 100, 0, STEPS4))
    finally:
        silent.forever.set()
    assert seconds < PATIENCE / 2
    assert math.isfinite(result.reward)
    assert set(result.missing) == {"away", "near"}
    assert silent.asked == 3


def test_a_mixture_that_is_held_out_is_elsewhere_if_a_part_is(line: ToyModel, spy: Any) -> None:
    far = Away(99)
    spy.trouble, spy.fails_at = KeyboardInterrupt(), 2
    judge = WeightedSum((far, Odd("near")))
    result, _ = stopped(Job(Task(spy, "wide", ToyReward(), (judge,)), SVDD(2), 100, 0, STEPS4))
    assert far.asked == 0
    assert result.missing == {"sum": "interrupted before it was called"}


def test_nobody_is_asked_at_the_terminal_any_more(spy: Any) -> None:
    class Person(Odd):
        interactive = True

    person = Person("person")
    spy.trouble, spy.fails_at = KeyboardInterrupt(), 2
    result, _ = stopped(Job(Task(spy, "wide", ToyReward(), (person,)), SVDD(2), 100, 0, STEPS4))
    assert person.asked == 0
    assert result.missing == {"person": "interrupted before it was called"}


def test_nothing_is_kept_of_a_search_whose_only_judge_is_away(spy: Any) -> None:
    """Where nothing was scored there is no best, and the judge is not asked for it."""
    far = Away(99)
    spy.trouble, spy.fails_at = KeyboardInterrupt(), 2
    with pytest.raises(Interrupted, match="before there was a sample to keep") as caught:
        Engine().run([Job(Task(spy, "wide", far), BestOfN(), 100, 0, STEPS4)])
    assert (caught.value.results, far.asked) == ((None,), 0)


@pytest.mark.parametrize("interruptions", [1, 3])
def test_another_ctrl_c_leaves_out_what_the_sample_can_do_without(spy: Any, interruptions: int) -> None:
    spy.trouble, spy.fails_at = KeyboardInterrupt(), 2
    first, second = Odd("first", interruptions), Odd("second")
    result, _ = stopped(Job(Task(spy, "wide", ToyReward(), (first, second)), SVDD(2), 100, 0, STEPS4))
    assert result.reward == float(ToyReward().score(result.sample[None], ["wide"]))
    assert result.missing == {
        "first": "interrupted before it answered",
        "second": "interrupted before it was called",
    }
    assert (first.asked, second.asked) == (1, 0)


def test_another_ctrl_c_while_the_sample_is_decoded_loses_nothing(spy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy.trouble, spy.fails_at = KeyboardInterrupt(), 2
    left, decode = 3, spy.decode

    def impatient(x0: Tensor) -> Tensor:
        nonlocal left
        if spy.rows > 0 and len(spy.calls) > 2:
            left -= 1
            if left >= 0:
                raise KeyboardInterrupt
        decoded: Tensor = decode(x0)
        return decoded

    monkeypatch.setattr(spy, "decode", impatient)
    result, _ = stopped(Job(Task(spy, "wide", ToyReward()), SVDD(2), 100, 0, STEPS4))
    assert left < 0
    assert result.reward == float(ToyReward().score(result.sample[None], ["wide"]))


def test_another_ctrl_c_while_estimates_are_scored_keeps_the_best_of_those_that_were(spy: Any) -> None:
    """A search that scores nothing on the way scores what it has in parts, of which the second is interrupted."""

    class Slow(ToyReward):
        batch_size = 3
        asked: list[int] = []  # noqa: RUF012 - of this test alone

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            if len(spy.calls) > 2:  # after Ctrl-C
                self.asked.append(len(samples))
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().score(samples, prompts)

    spy.trouble, spy.fails_at = KeyboardInterrupt(), 2
    judge = Slow()
    result, _ = stopped(Job(Task(spy, "wide", judge), BestOfN(), 80, 0, STEPS4))
    assert judge.asked == [3, 3]
    assert result.spent.reward_calls == 6
    assert result.reward == float(ToyReward().score(result.sample[None], ["wide"]))


def test_a_finished_search_that_waits_for_a_held_out_reward_gives_its_own_sample(line: ToyModel) -> None:
    [whole] = Engine().run([job := Job(Task(line, "wide", ToyReward()), SVDD(2), 100, 0, STEPS4)])
    far = Away(0)
    far.forever.set()  # it answers, but only after Ctrl-C
    result, _ = stopped(replace(job, task=replace(job.task, held_out=(far,))))
    assert torch.equal(result.x0, whole.x0)
    assert (result.reward, result.noise_level, result.spent) == (whole.reward, whole.noise_level, whole.spent)
    assert result.missing == {"away": "interrupted before it was called"}


def test_what_has_ended_stays_ended(line: ToyModel) -> None:
    """Ctrl-C in the moment in which a job ends."""

    class Impatient(Observer):
        def completed(self, job: Job, result: Result) -> None:
            if not result.interrupted:
                raise KeyboardInterrupt

    jobs = [Job(Task(line, "wide", ToyReward()), SVDD(2), nfe, 0, STEPS4) for nfe in (20, 200)]
    with pytest.raises(Interrupted) as caught:
        Engine(observers=[Impatient()]).run(jobs)
    first, second = caught.value.results
    [whole] = Engine().run(jobs[:1])
    assert first is not None
    assert second is not None
    assert (first.interrupted, first.reward) == (False, whole.reward)
    assert second.interrupted


def test_an_observer_that_is_interrupted_again_does_not_lose_the_others(spy: Any) -> None:
    class Impatient(Observer):
        def completed(self, job: Job, result: Result) -> None:
            raise KeyboardInterrupt

    spy.trouble, spy.fails_at = KeyboardInterrupt(), 4
    jobs = [Job(Task(spy, "wide", ToyReward()), SVDD(2), 100, seed, STEPS4) for seed in range(3)]
    with pytest.raises(Interrupted) as caught:
        Engine(observers=[Impatient()]).run(jobs)
    assert all(result is not None and result.interrupted for result in caught.value.results)

"""A job in flight, and its populations, each with the request that it waits for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rollflow.engine.executor import (
    DYNAMICS,
    GRADIENT,
    REWARD,
    Fault,
    Query,
    Sloped,
    Verdict,
    gave,
    joined,
    price,
    sound_rows,
)
from rollflow.engine.executor import NETWORK as IN_NETWORK
from rollflow.engine.job import Job
from rollflow.engine.meter import Meter
from rollflow.engine.state import Candidate, Checkpoint, PopulationState, ineligible_of
from rollflow.errors import BadModel, BadReward, RollflowError
from rollflow.requests import Asking, Grad, Request, Save, Velocity, some_rows
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import outside
from rollflow.runtime.callees import called
from rollflow.search.propagator import Finished, Progress

NETWORK = (Velocity, Grad)
"""Requests that the flow model answers."""


@dataclass(eq=False)
class RunningJob:
    """A job in flight.

    Args:
        place: Among the jobs, from 0.
        job: The job.
        meter: Its account.
        condition: Its prompt, as the model reads it.
        now: Where its populations stand ...
        saved: ... and where each stood when it was last saved.
        seconds: Computing time until now.
    """

    place: int
    job: Job
    meter: Meter
    condition: Any
    now: list[PopulationState]
    saved: list[PopulationState]
    seconds: float

    @property
    def finished(self) -> list[Candidate]:
        """What the populations that are done returned."""
        return [Candidate(i, one.state) for i, one in enumerate(self.now) if isinstance(one.state, Finished)]

    @property
    def done(self) -> bool:
        """Whether all are."""
        return len(self.finished) == len(self.now)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the job can go on from."""
        return Checkpoint(tuple(self.saved), self.seconds)

    def note(self, fault: Fault) -> None:
        """Count a sample that is not eligible, of no population in particular."""
        self.now[0] = self.now[0].faulty(*fault)

    @property
    def nothing_eligible(self) -> RollflowError | None:
        """The error of a job that has no eligible sample: where the first value that is not finite arose."""
        for where, what in (one.fault for one in self.now if one.fault is not None):
            if where != GRADIENT:
                return (BadReward if where == REWARD else BadModel)(f"no sample can be chosen: first, {what}")
        if self.done:
            return RollflowError(f"method '{self.job.search.name}' returned no sample that can be chosen")
        return None

    @property
    def warnings(self) -> Iterator[str]:
        """What its user should know: samples that could not be chosen, and scores outside their declared range."""
        counts = ineligible_of(self.now)
        first = {where: what for where, what in (one.fault for one in reversed(self.now) if one.fault is not None)}
        leans = counts.pop(GRADIENT, 0)
        if counts:
            samples = "1 sample" if sum(counts.values()) == 1 else f"{sum(counts.values())} samples"
            told = ", ".join(f"{where} {count}" for where, count in counts.items())
            what = next((f"; first, {first[where]}" for where in counts if where in first), "")
            yield f"{samples} could not be chosen ({told}){what}"
        if leans:
            times = "once" if leans == 1 else f"{leans} times"
            yield f"guidance had no finite gradient to follow {times}; there nothing leaned"
        reward = self.job.task.reward
        for one in dict.fromkeys((*reward.parts, reward)):
            strayed = [standing.outside[one.name] for standing in self.now if one.name in standing.outside]
            if strayed:
                yield out_of_range(one, max(strayed, key=lambda score: outside(one, score)))


@dataclass(eq=False)
class Population:
    """A population and the request that it waits for.

    Args:
        run: Its job.
        population: Which of the job's.
        asking: Its generator.
        request: What it waits for.
        answers: To the rows that have been answered, ...
        answered: ... which are the first so many.
    """

    run: RunningJob
    population: int
    asking: Asking[Finished]
    request: Any = None
    answers: list[Any] = field(default_factory=list)
    answered: int = 0

    def ask(self, request: Request) -> None:
        """Wait for the answer to a request."""
        self.request, self.answers, self.answered = request, [], 0

    @property
    def standing(self) -> PopulationState:
        """Where it stands."""
        return self.run.now[self.population]

    @standing.setter
    def standing(self, standing: PopulationState) -> None:
        self.run.now[self.population] = standing

    @property
    def rows(self) -> int:
        """Samples of its request that wait for an answer; 0 of one to save."""
        if isinstance(self.request, Save):
            return 0
        return len(self.request.x if isinstance(self.request, NETWORK) else self.request.x0) - self.answered

    def asked(self, rows: int) -> Query:
        """The request for the first so many of the samples that wait."""
        whole = rows == self.rows and not self.answered
        request = self.request if whole else some_rows(self.request, self.answered, self.answered + rows)
        return Query(request, self.run.job.task, self.run.condition)

    def take(self, rows: int, answer: Any) -> bool:
        """Keep the answer to so many samples; whether none waits any more."""
        self.answers.append(answer)
        self.answered += rows
        return not self.rows

    @property
    def answer(self) -> Any:
        """To the whole request."""
        return joined(self.answers)

    def debit(self) -> None:
        """Account for the request before any of it is answered; raises ``BudgetExceeded`` if a cap forbids it."""
        if self.answered:
            return
        cost = price(self.request, self.run.job.task.model)
        self.run.meter.debit(cost)
        self.standing = replace(self.standing, spent=self.standing.spent + cost)

    def read(self, answer: Any) -> Any:
        """What the population is told of an answer, whose faults are noted here.

        Raises:
            BadReward: If the reward's parts cannot be combined.
        """
        if isinstance(answer, Verdict):
            return self._judged(answer)
        if isinstance(answer, Sloped):
            self._check(self.request, answer.slope.velocity)
            self._note(answer.faults)
            self._range(self.run.job.task.reward, answer.slope.reward)
            return answer.slope
        if isinstance(self.request, Velocity):
            self._check(self.request, answer)
        return answer

    def _judged(self, verdict: Verdict) -> Tensor:
        """Rewards (B,) of the samples that it asks about, from what the parts of the reward say; -inf if ineligible."""
        reward, faults = self.run.job.task.reward, [*verdict.faults]
        sound = [row for row, fault in enumerate(faults) if fault is None]
        rewards = torch.full((len(faults),), -torch.inf, dtype=torch.float64)
        if sound:
            scores = verdict.scores[sound]
            seen = scores if self.standing.seen is None else torch.cat([self.standing.seen, scores])
            if reward.relative:
                self.standing = replace(self.standing, seen=seen)
            rewards[sound] = combined(reward, scores, seen)
        for row in sound:
            if not math.isfinite(rewards[row]):
                faults[row], rewards[row] = gave(reward, float(rewards[row])), -torch.inf
        self._note(faults)
        for part, scores in zip(reward.parts, verdict.scores.T, strict=True):
            self._range(part, scores)
        if len(reward.parts) > 1:
            self._range(reward, rewards)
        return rewards

    def _note(self, faults: Sequence[Fault | None]) -> None:
        """Count samples that are not eligible, and gradients that are not followed."""
        level = self.request.noise_level
        for row, fault in enumerate(faults):
            if fault is not None:
                # A clean state is not finite because the network's velocity was not, if that was seen before.
                network = fault.where == DYNAMICS and IN_NETWORK in self.standing.ineligible
                where = IN_NETWORK if network else fault.where
                self.standing = self.standing.faulty(where, self._at(fault.what, row, len(faults), level))

    def _check(self, request: Velocity | Grad, v: Tensor) -> None:
        """Remember a velocity that is not finite, of a state that was."""
        if IN_NETWORK in self.standing.ineligible or bool(v.isfinite().all()):
            return
        model = self.run.job.task.model
        for row, (state, sound) in enumerate(zip(sound_rows(request.x), sound_rows(v), strict=True)):
            if state and not sound:
                alpha, sigma = model.interpolant.alpha(request.t[row]), model.interpolant.sigma(request.t[row])
                what = f"the network of model '{model.name}' gave a velocity that is not finite"
                text = self._at(what, row, len(v), float(sigma / (alpha + sigma)))
                self.standing = self.standing.faulty(IN_NETWORK, text, 0)
                return

    def _at(self, what: str, row: int, rows: int, level: float) -> str:
        prompt = self.run.job.task.prompt
        return f"{what} for row {row} of {rows} of the prompt '{prompt}' at noise level {level:.2f}"

    def _range(self, reward: RewardModel, scores: Tensor) -> None:
        """Remember the score that lies furthest outside the range that its reward declares."""
        if reward.bounds is None:
            return
        for score in scores.tolist():
            known = self.standing.outside.get(reward.name)
            if outside(reward, score) > (0.0 if known is None else outside(reward, known)):
                self.standing = replace(self.standing, outside={**self.standing.outside, reward.name: score})

    def keep(self, state: Progress | Finished) -> None:
        """Save where it stands."""
        self.standing = self.standing.kept(state)
        self.run.saved[self.population] = self.standing


def combined(reward: RewardModel, scores: Tensor, seen: Tensor) -> Tensor:
    """What ``combine`` makes of (B, k) scores: (B,).

    Raises:
        BadReward: If it raises an exception or gives another shape.
    """
    with called(f"reward '{reward.name}' failed", BadReward):
        rewards = reward.combine(scores.clone(), seen.clone())
    if not isinstance(rewards, Tensor) or rewards.shape != (len(scores),):
        shape = tuple(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
        raise BadReward(f"combine of reward '{reward.name}' gave {shape}; expected shape ({len(scores)},)")
    if rewards.is_complex() or rewards.is_meta:
        raise BadReward(f"combine of reward '{reward.name}' gave {rewards.dtype} on {rewards.device}; expected numbers")
    return rewards.detach().double().cpu()


def out_of_range(reward: RewardModel, score: float) -> str:
    """The warning of a score outside its reward's declared range."""
    assert reward.bounds is not None
    low, high = reward.bounds
    return f"reward '{reward.name}' gave {score:.6g}, outside its declared range of {low:g} to {high:g}"

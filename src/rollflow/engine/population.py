"""A population of a running job: its search, its pending request, and the processing of answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.dynamics.shapes import States
from rollflow.engine.execution.batching import joined
from rollflow.engine.execution.executor import Query
from rollflow.engine.execution.faults import (
    DYNAMICS,
    NETWORK,
    Fault,
    GradientVerdict,
    Verdict,
    finite_rows,
    score_not_finite,
    sound_rows,
)
from rollflow.engine.meter import price
from rollflow.engine.promises import check_request, versions
from rollflow.engine.running_job import RunningJob
from rollflow.engine.scores import combined
from rollflow.engine.state import PopulationState
from rollflow.errors import BudgetExceeded, RollflowError
from rollflow.requests import Asking, Grad, Request, Save, Velocity, slice_rows
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import outside
from rollflow.search.propagator import Finished, Progress
from rollflow.search.rehearsal import MOST_IDLE, EndlessSearch

NETWORK_REQUESTS = (Velocity, Grad)
"""Requests that the flow model answers."""


@dataclass(eq=False)
class Population:
    """A population and its pending request.

    Args:
        id: Id within the session.
        job: The running job that it belongs to.
        index: Index among the job's populations.
        search: Generator of its requests.
        request: The request that waits for an answer.
        answers: Answers to the first ``answered`` rows of the request.
        answered: Number of rows that have an answer.
        idle: Number of requests in a row that cost no NFE.
        versions: Versions of the tensors that it saved last.
    """

    id: int
    job: RunningJob
    index: int
    search: Asking[Finished]
    request: Any = None
    answers: list[Any] = field(default_factory=list)
    answered: int = 0
    idle: int = 0
    versions: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.versions = versions(self.state.state)

    def ask(self, request: Request) -> None:
        """Set the request to be answered next.

        Raises:
            EndlessSearch: If so many requests in a row cost nothing that no budget would end the population.
            RollflowError: If it has no rows or those of another model.
        """
        check_request(f"method '{self.job.job.search.name}'", request, self.job.job.task.model)
        self.request, self.answers, self.answered = request, [], 0
        self.idle = 0 if isinstance(request, NETWORK_REQUESTS) and self.rows else self.idle + 1
        if self.idle > MOST_IDLE:
            raise EndlessSearch(
                f"method '{self.job.job.search.name}' does not end: a population made {MOST_IDLE:,} requests that cost "
                "no NFE and had not returned"
            )

    @property
    def state(self) -> PopulationState:
        """The current state."""
        return self.job.states[self.index]

    @state.setter
    def state(self, state: PopulationState) -> None:
        self.job.states[self.index] = state

    @property
    def rows(self) -> int:
        """Number of rows of the request that are not answered yet; 0 for a ``Save``."""
        if isinstance(self.request, Save):
            return 0
        return len(self.request.x if isinstance(self.request, NETWORK_REQUESTS) else self.request.x0) - self.answered

    def query(self, rows: int) -> Query:
        """Make the request for the first ``rows`` of the unanswered rows."""
        whole = rows == self.rows and not self.answered
        request = self.request if whole else slice_rows(self.request, self.answered, self.answered + rows)
        return Query(request, self.job.job.task, self.job.condition)

    def debit(self) -> None:
        """Debit the request before any of it is answered.

        Raises:
            BudgetExceeded: If it would exceed a cap.
        """
        if self.answered:
            return
        cost, job = price(self.request, self.job.job.task.model), self.job.job
        try:
            self.job.meter.debit(cost)
        except BudgetExceeded as error:
            if self.job.meter.spent.nfe + cost.nfe <= job.nfe:
                raise
            raise BudgetExceeded(f"method '{job.search.name}' asks for more than its budget: {error}") from None
        self.state = replace(self.state, spent=self.state.spent + cost)

    def take(self, rows: int, answer: Any) -> bool:
        """Store the answer to the next ``rows`` rows, and return whether the request is now fully answered."""
        self.answers.append(answer)
        self.answered += rows
        return not self.rows

    @property
    def answer(self) -> Any:
        """The answer to the whole request."""
        return joined(self.answers)

    def read(self, answer: Any) -> Any:
        """Convert the executor's answer to the search's, and record its faults.

        Raises:
            BadReward: If the scores of the reward's parts cannot be combined.
        """
        if isinstance(answer, Verdict):
            return self._read_scores(answer)
        if isinstance(answer, GradientVerdict):
            self._check_network(self.request, answer.slope.velocity)
            self._note(answer.faults)
            self._check_range(self.job.job.task.objective, answer.slope.reward)
            return answer.slope
        if isinstance(self.request, Velocity):
            self._check_network(self.request, answer)
        return answer

    def check_saved(self) -> None:
        """Raise a RollflowError if the search has changed what it saved, from which it could not be resumed."""
        if isinstance(self.state.state, Progress) and versions(self.state.state) != self.versions:
            raise RollflowError(
                f"method '{self.job.job.search.name}' changed a tensor of the state that it saved at step "
                f"{self.state.state.step}, in place; let it change a copy (clone) instead"
            )

    def keep(self, state: Progress | Finished) -> None:
        """Save the current state, with the state that the search saved or the sample that it returned."""
        if isinstance(state, Progress):
            left = self.job.job.shares[self.index] - self.state.spent.nfe  # it may have asked without its propagator
            state = replace(state, nfe_left=max(left, 0)) if state.nfe_left > left else state
            self.versions = versions(state)
        self.state = self.state.kept(state)
        self.job.saved[self.index] = self.state

    def _read_scores(self, verdict: Verdict) -> Float64[Tensor, " B"]:
        """Compute the rewards (B,) of the samples; -inf for one that is not eligible."""
        reward, faults = self.job.job.task.objective, [*verdict.faults]
        sound = sound_rows(faults)
        rewards = torch.full((len(faults),), -torch.inf, dtype=torch.float64)
        if sound:
            scores = verdict.scores[sound]
            seen = scores if self.state.seen is None else torch.cat([self.state.seen, scores])
            if reward.relative:
                self.state = replace(self.state, seen=seen)
            rewards[sound] = combined(reward, scores, seen)
        for row in sound:
            if not math.isfinite(rewards[row]):
                faults[row], rewards[row] = score_not_finite(reward, float(rewards[row])), -torch.inf
        self._note(faults)
        for part, scores in zip(reward.parts, verdict.scores.T, strict=True):
            self._check_range(part, scores)
        if len(reward.parts) > 1:
            self._check_range(reward, rewards)
        return rewards

    def _note(self, faults: Sequence[Fault | None]) -> None:
        """Count samples that are not eligible and gradients that are not followed."""
        level = self.request.noise_level
        for row, fault in enumerate(faults):
            if fault is not None:
                # If the network's velocity was seen not to be finite before, that is why the clean state is not.
                by_network = fault.where == DYNAMICS and NETWORK in self.state.ineligible
                where = NETWORK if by_network else fault.where
                self.state = self.state.faulty(where, self._located(fault.what, row, len(faults), level))

    def _check_network(self, request: Velocity | Grad, v: States) -> None:
        """Record the first velocity that is not finite although its state is."""
        if NETWORK in self.state.ineligible or bool(v.isfinite().all()):
            return
        model = self.job.job.task.model
        for row, (state, sound) in enumerate(zip(finite_rows(request.x), finite_rows(v), strict=True)):
            if state and not sound:
                alpha, sigma = model.interpolant.alpha(request.t[row]), model.interpolant.sigma(request.t[row])
                what = f"the network of model '{model.name}' gave a velocity that is not finite"
                text = self._located(what, row, len(v), float(sigma / (alpha + sigma)))
                self.state = self.state.faulty(NETWORK, text, 0)
                return

    def _located(self, what: str, row: int, rows: int, level: float) -> str:
        prompt = self.job.job.task.prompt
        return f"{what} for row {row} of {rows} of the prompt '{prompt}' at noise level {level:.2f}"

    def _check_range(self, reward: RewardModel, scores: Float64[Tensor, " B"]) -> None:
        """Record the score furthest outside the range that its reward declares."""
        if reward.bounds is None:
            return
        for score in scores.tolist():
            known = self.state.outside.get(reward.name)
            if outside(reward, score) > (0.0 if known is None else outside(reward, known)):
                self.state = replace(self.state, outside={**self.state.outside, reward.name: score})

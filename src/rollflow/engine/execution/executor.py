"""The second phase: evaluate the requests of many searches in a few calls of model, decoder and reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rollflow.engine.execution.batching import Batching, CallKind, RowCall, Rows, at_rows
from rollflow.engine.execution.faults import Fault, GradientVerdict, Verdict, score_not_finite, sound_rows
from rollflow.engine.execution.gradients import GradientCall
from rollflow.engine.execution.model_calls import examined, screened, velocity
from rollflow.engine.task import Task
from rollflow.requests import Decode, Grad, Request, Reward, Slope, Velocity
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import MemoryLimit, rewards_of
from rollflow.runtime.numbering import Numbering


class Query(NamedTuple):
    """A request with the task that it belongs to.

    Args:
        request: The request, not a ``Save``.
        task: Task of the job.
        condition: Encoded prompt of the task.
    """

    request: Any
    task: Task
    condition: Any


@dataclass(frozen=True)
class Executor:
    """Evaluates queries; those of one call share a model and, if they need one, a reward.

    Models and rewards are given copies, and their exceptions become errors that name them. A call for which memory runs
    out is repeated in halves.

    Args:
        max_rows: Largest number of rows in one call.
        max_grad_rows: Largest number of rows in one differentiated call, whose graph takes the most memory.
        padded: Whether to pad calls with fewer rows, so that all calls have the same shape.
        numbering: Ids of models and rewards.
        batching: How rows are split into calls; made from ``padded``.
    """

    max_rows: int
    max_grad_rows: int
    padded: bool = False
    numbering: Numbering = field(default_factory=Numbering, compare=False, repr=False)
    batching: Batching = field(default=None, compare=False, repr=False)  # type: ignore[assignment]  # made below

    def __post_init__(self) -> None:
        if self.batching is None:
            object.__setattr__(self, "batching", Batching(self.padded))

    def most_rows(self, kind: type[Request]) -> int:
        """Return the largest number of rows in one call that answers requests of a kind."""
        return self.max_grad_rows if kind is Grad else self.max_rows

    def computed_rows(self, kind: type[Request], rows: int) -> int:
        """Return the number of rows computed to answer ``rows`` requested ones of a kind, padding included."""
        most = self.most_rows(kind)
        return -(-rows // most) * most if self.padded else rows

    def answer(self, kind: type[Request], queries: Sequence[Query]) -> list[Any]:
        """Answer queries of one kind.

        Args:
            kind: Class of their requests.
            queries: Queries that can share a call.

        Returns:
            The answer to each: a ``Verdict`` for a ``Reward``, a ``GradientVerdict`` for a ``Grad``, a tensor for a
            ``Velocity`` or ``Decode``, None for a ``Save``.
        """
        if kind is Grad:
            return self._gradients(queries)
        with torch.no_grad():
            if kind is Velocity:
                return self._velocities(queries)
            if kind is Reward:
                return self.verdicts(queries)
            if kind is Decode:
                return self._samples(queries)
        return [None] * len(queries)

    def verdicts(self, queries: Sequence[Query]) -> list[Verdict]:
        """Decode and score the clean samples of ``Reward`` queries."""
        task, prompts = queries[0].task, _prompts(queries)

        def judge(rows: Rows, x0: Tensor) -> Verdict:
            return self._verdict(task.objective, *examined(task, x0), at_rows(prompts, rows))

        return [Verdict(*parts) for parts in self._map(Reward, task, _clean(queries), judge)]

    def verdicts_later(self, queries: Sequence[Query]) -> Callable[[], list[Verdict]]:
        """Decode the clean samples of ``Reward`` queries now; the function returned scores them, in any thread."""
        task, prompts = queries[0].task, _prompts(queries)
        decoded = self.examined(task, _clean(queries))
        samples, faults = [samples for samples, _ in decoded], [fault for _, faults in decoded for fault in faults]
        # The other process or device forms its own batches.
        unpadded = replace(self, padded=False, batching=replace(self.batching, padded=False))

        def judge(rows: Rows, chosen: Tensor) -> Verdict:
            return unpadded._verdict(task.objective, chosen, at_rows(faults, rows), at_rows(prompts, rows))

        def score() -> list[Verdict]:
            with torch.no_grad():
                return [Verdict(*parts) for parts in unpadded.batching.map(None, samples, judge, self.max_rows)]

        return score

    def examined(self, task: Task, states: list[Tensor]) -> list[tuple[Tensor, list[Fault | None]]]:
        """Decode several tensors of clean states and determine which samples are not eligible."""

        def examine(rows: Rows, x0: Tensor) -> tuple[Any, ...]:
            samples, faults = examined(task, x0)
            return samples.clone(), faults  # a model may reuse its memory before they are scored

        with torch.no_grad():
            return [(samples, faults) for samples, faults in self._map(Decode, task, states, examine)]

    def memory_limit(self, reward: RewardModel) -> MemoryLimit:
        """Return the limit on the samples that fit into memory in one call of a reward."""
        return self.batching.limits[CallKind("score", self.numbering.id_of(reward))]

    def _verdict(
        self,
        reward: RewardModel,
        samples: Float[Tensor, " B *sample"],
        faults: list[Fault | None],
        prompts: Sequence[str],
    ) -> Verdict:
        """Score the rows without a fault; no others are given to the reward."""
        sound, faults = sound_rows(faults), [*faults]
        scores = torch.full((len(faults), len(reward.parts)), torch.nan, dtype=torch.float64)
        if not sound:
            return Verdict(scores, faults)
        # Where all calls have one shape, a sound sample stands in for each that is not.
        rows = [row if fault is None else sound[0] for row, fault in enumerate(faults)] if self.padded else sound
        given, texts = samples if len(sound) == len(faults) else samples[rows], at_rows(prompts, rows)
        columns = [rewards_of(part, given, texts, self.memory_limit(part)) for part in reward.parts]
        answered = torch.stack(columns, 1)
        scores[sound] = answered[sound] if self.padded else answered
        for row in (~scores.isfinite().all(1)).nonzero()[:, 0].tolist():
            if faults[row] is None:
                part = int((~scores[row].isfinite()).nonzero()[0])
                faults[row] = score_not_finite(reward.parts[part], float(scores[row, part]))
        return Verdict(scores, faults)

    def _velocities(self, queries: Sequence[Query]) -> list[Tensor]:
        task, t = queries[0].task, torch.cat([query.request.t for query in queries])
        conditions = [query.condition for query in queries for _ in query.request.x]

        def call(rows: Rows, x: Tensor) -> tuple[Tensor]:
            return (velocity(task, x, t[rows], at_rows(conditions, rows)),)

        return [v for (v,) in self._map(Velocity, task, [query.request.x for query in queries], call)]

    def _samples(self, queries: Sequence[Query]) -> list[Tensor]:
        task = queries[0].task

        def call(rows: Rows, x0: Tensor) -> tuple[Tensor]:
            return (screened(task, x0).samples.clone(),)

        return [samples for (samples,) in self._map(Decode, task, _clean(queries), call)]

    def _gradients(self, queries: Sequence[Query]) -> list[GradientVerdict]:
        task = queries[0].task
        call = GradientCall(
            task,
            torch.cat([query.request.t for query in queries]),
            [query.task.prompt for query in queries for _ in query.request.x],
            [query.condition for query in queries for _ in query.request.x],
            self.padded,
            self.memory_limit(task.objective),
        )
        answers = self._map(Grad, task, [query.request.x for query in queries], call)
        return [GradientVerdict(Slope(*parts), faults) for *parts, faults in answers]

    def _map(self, kind: type[Request], task: Task, tensors: list[Tensor], call: RowCall) -> list[tuple[Any, ...]]:
        calls = CallKind(kind, self.numbering.id_of(task.model), keeps_graph=kind is Grad)
        return self.batching.map(calls, tensors, call, self.most_rows(kind))


def _clean(queries: Sequence[Query]) -> list[Tensor]:
    return [query.request.x0 for query in queries]


def _prompts(queries: Sequence[Query]) -> list[str]:
    return [query.task.prompt for query in queries for _ in query.request.x0]

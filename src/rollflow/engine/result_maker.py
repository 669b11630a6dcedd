"""Makes the results of jobs: decodes and scores the selected sample again, and adds the account."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from rollflow.engine.background import Background
from rollflow.engine.execution.model_calls import examined
from rollflow.engine.meter import Spending
from rollflow.engine.promises import broken_promises
from rollflow.engine.rescue import Rescue
from rollflow.engine.result import Result
from rollflow.engine.running_job import RunningJob
from rollflow.engine.scores import range_warning
from rollflow.engine.state import Candidate, Origin, Point, ineligible_of, trace_of
from rollflow.engine.task import Task
from rollflow.errors import BadModel, BadReward
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import HeldOutScores, judged_by, outside
from rollflow.search.propagator import Finished

NOT_CALLED, CUT_SHORT = "interrupted before it was called", "interrupted before it answered"
"""Reasons why a score of an interrupted run's sample is missing."""

_HALF_A_BYTE = 0.5 / 255
"""How far pixels may lie outside [0, 1] without changing a byte of their file."""


class ResultMaker:
    """Makes results of the samples that were selected.

    Args:
        background: Threads in which rewards are called.
        rescue: State of an interruption, which limits the rewards that may still be called.
    """

    def __init__(self, background: Background, rescue: Rescue) -> None:
        self.background, self.rescue = background, rescue

    def make(
        self, job: RunningJob, candidates: Sequence[Candidate], *, interrupted: bool, cause: Exception | None
    ) -> Result:
        """Make the result of a job.

        Args:
            job: The job.
            candidates: Samples that it may return, the best first.
            interrupted: Whether it ends early.
            cause: Error that ends it early; None if the user does.

        Raises:
            BadModel: If no candidate is eligible when it is decoded by itself.
        """
        task = job.job.task
        candidate, sample = _decoded(job, candidates)
        best, chosen = candidate.sample, candidate.chosen
        parts = task.reward.parts if len(task.reward.parts) > 1 else ()
        of_parts = self._scores(task, parts, sample[None], in_background=True)
        judged = [] if task.surrogate is None else [task.reward]
        reported = self._scores(task, judged, sample[None], in_background=True)
        if reported.missing and not self.rescue.begun:
            raise BadReward(
                f"reward '{task.reward.name}' did not score the sample: {reported.missing[task.reward.name]}"
            )
        held_out = self._scores(task, task.held_out, sample[None], in_background=False)
        rises = trace_of(job.states)
        end = Point(job.meter.spent.nfe, rises[-1].reward if rises else best.reward)
        return Result(
            job=job.job,
            sample=sample,
            x0=best.x0.clone(),
            origin=_origin(job, candidate),
            reward=reported.scores.get(task.reward.name, best.reward),
            chosen=chosen,
            surrogate=None if task.surrogate is None else best.reward,
            parts=of_parts.scores,
            held_out=held_out.scores,
            missing=of_parts.missing | reported.missing | held_out.missing,
            spent=job.meter.spent,
            noise_level=best.noise_level,
            interrupted=interrupted,
            cause=cause,
            trace=(*rises, end),
            shares=tuple(state.spent.nfe for state in job.states),
            seconds=job.seconds,
            diagnostics=tuple(one.sample.diagnostics or {} for one in job.returned),
            ineligible=ineligible_of(job.states),
            warnings=tuple(_warnings(job, sample, reported.scores, held_out.scores)),
        )

    def _scores(
        self, task: Task, rewards: Sequence[RewardModel], sample: Float[Tensor, " 1 *sample"], *, in_background: bool
    ) -> HeldOutScores:
        """Score the returned sample; after Ctrl-C, only by rewards that do not keep the user waiting."""

        def score(selected: Sequence[RewardModel]) -> HeldOutScores:
            call = partial(judged_by, selected, sample, task.prompt)
            return self.background.call(task.objective, call) if in_background else call()

        if not self.rescue.begun:
            return score(rewards)
        all_scores = HeldOutScores({}, {})
        busy = in_background and self.background.busy
        for reward in rewards:
            one = HeldOutScores({reward.name: math.nan}, {reward.name: NOT_CALLED})
            if not (busy or self.rescue.skips(reward)):
                try:
                    with self.rescue.limit():
                        one = score([reward])
                except KeyboardInterrupt:
                    self.rescue.hurried, one.missing[reward.name] = True, CUT_SHORT
            all_scores.scores.update(one.scores)
            all_scores.missing.update(one.missing)
        return all_scores


def _decoded(job: RunningJob, candidates: Sequence[Candidate]) -> tuple[Candidate, Float[Tensor, "*sample"]]:
    """Return the first candidate that is still eligible when it is decoded by itself, and its pixels."""
    what = "there was no candidate"
    for candidate in candidates:
        if candidate is not candidates[0]:
            job.meter.debit(Spending(decodes=1))
        with torch.no_grad():
            samples, [fault] = examined(job.job.task, candidate.sample.x0[None].clone())
        if fault is None:
            return candidate, samples[0].clone()
        job.note(fault)
        what = f"{fault.what} when it was decoded by itself"
    raise BadModel(f"no sample is left to return: {what}")


def _origin(job: RunningJob, candidate: Candidate) -> Origin:
    """Return where a sample came from; the row of one that the final choice preferred is unknown."""
    state = job.states[candidate.population]
    own = state.state.x0 if isinstance(state.state, Finished) else None
    other = candidate.chosen is not None and (own is None or not torch.equal(own, candidate.sample.x0))
    return Origin(candidate.population, None if other else state.row_of(candidate.sample))


def _warnings(
    job: RunningJob, sample: Float[Tensor, "*sample"], reported: dict[str, float], held_out: dict[str, float]
) -> Iterator[str]:
    """Yield warnings about the job's samples, and about the returned sample and the scores that the search never saw.

    Args:
        job: The job.
        sample: (...) pixels of the returned sample.
        reported: Its score by the reward if the search optimised a surrogate; empty otherwise.
        held_out: Its held-out scores, by name.
    """
    yield from job.warnings
    yield from broken_promises(job)
    if sample.ndim in (3, 4) and sample.shape[-3] == 3:
        low, high = float(sample.min()), float(sample.max())
        if low < -_HALF_A_BYTE or high > 1 + _HALF_A_BYTE:
            yield (
                f"model '{job.job.task.model.name}' decodes pixels from {low:.3g} to {high:.3g}; expected 0 to 1, "
                "to which they are clipped when saved, so that the file may have another score"
            )
    task = job.job.task
    for score in reported.values():
        if outside(task.reward, score):
            yield range_warning(task.reward, score)
    for reward in task.held_out:
        if outside(reward, held_out[reward.name]):
            yield range_warning(reward, held_out[reward.name])

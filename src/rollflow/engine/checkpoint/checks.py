"""Checks that a checkpoint read from a file can belong to its job."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rollflow.engine.final_choice import Shortlist
from rollflow.engine.state import Checkpoint, Point, PopulationState
from rollflow.search.propagator import Finished, Progress

if TYPE_CHECKING:
    from rollflow.engine.job import Job

MOST_SPENT = 1 << 53
"""Largest amount in an account."""


def check_fits(job: Job, checkpoint: Checkpoint) -> None:
    """Check that the number, shapes and types of the populations are the job's, and that their accounts are possible.

    Raises:
        ValueError: If one of these is not so.
    """
    shares = job.search.shares(job.dynamics, job.nfe)
    if len(checkpoint.populations) != len(shares):
        raise ValueError(f"it holds {len(checkpoint.populations)} populations, not {len(shares)}")
    if not 0 <= checkpoint.seconds < math.inf:
        raise ValueError(f"it took {checkpoint.seconds} seconds, expected a finite number >= 0")
    for one, share in zip(checkpoint.populations, shares, strict=True):
        _check_account(one, share)
        _check_best(job, one)
        if one.shortlist is not None:
            _check_shortlist(job, one.shortlist)
        if isinstance(one.state, Finished):
            _check_finished(job, one.state)
        elif one.state is not None:
            _check_progress(job, one.state, share - one.spent.nfe)


def _check_account(one: PopulationState, share: int) -> None:
    """Check that a population can have spent and counted these amounts."""
    if not 0 <= one.spent.nfe <= share:
        raise ValueError(f"a population has spent {one.spent.nfe} of {share} NFE")
    for name, amount in (*vars(one.spent).items(), *one.ineligible.items()):
        if not 0 <= amount <= MOST_SPENT:
            raise ValueError(f"its account has {amount} of '{name:.50}'")


def _check_best(job: Job, one: PopulationState) -> None:
    """Check that the rises increase, and that the best sample is that of the last one."""
    if (one.best is None) != (not one.rises):
        raise ValueError("a population has a best sample without a rise of the reward, or the reverse")
    before = Point(0, -math.inf)
    for point in one.rises:
        if not (before.nfe <= point.nfe <= one.spent.nfe and before.reward < point.reward < math.inf):
            raise ValueError(f"the reward rises from {before.reward} to {point.reward} at {point.nfe} NFE")
        before = point
    if one.best is not None:
        _check_finished(job, one.best)
        if one.best.reward != before.reward:
            raise ValueError(f"the reward of its best sample is {one.best.reward}, not {before.reward}")
        if not one.best.x0.isfinite().all():
            raise ValueError("its best sample has values that are not finite")
    if one.seen is not None and (one.seen.ndim != 2 or one.seen.shape[1] != len(job.task.objective.parts)):
        raise ValueError(f"scores of shape {tuple(one.seen.shape)} are not of {len(job.task.objective.parts)} rewards")


def _check_shortlist(job: Job, one: Shortlist) -> None:
    """Check that the candidates for a final choice are samples with rewards that fall."""
    most = 0 if job.task.choice is None else job.task.choice.shortlist
    rows = len(one.reward) if one.reward.ndim == 1 else -1
    if not 0 < rows <= most or one.reward.dtype != torch.float64 or not 0 <= one.noise_level <= 1:
        raise ValueError(f"a shortlist has rewards of shape {tuple(one.reward.shape)} at level {one.noise_level}")
    if not bool((one.reward.diff() <= 0).all()) or not bool(one.reward.isfinite().all()):
        raise ValueError("the rewards of a shortlist do not fall")
    _check_tensor(job, "a shortlist", one.x0, (rows,))


def _check_finished(job: Job, finished: Finished) -> None:
    _check_tensor(job, "a sample", finished.x0, ())
    if not -math.inf <= finished.reward < math.inf or not 0 <= finished.noise_level <= 1:
        raise ValueError(f"a sample has reward {finished.reward} and noise level {finished.noise_level}")


def _check_progress(job: Job, state: Progress, left: int) -> None:
    """Check that particles have the model's shape and type, and that their number of NFE left is possible."""
    if not 0 <= state.nfe_left <= left or not 0 <= state.nfe_spent <= MOST_SPENT or state.step < 0:
        raise ValueError(f"a population at step {state.step} has {state.nfe_left} NFE left, of {left}")
    particles, rows = state.particles, len(state.particles.reward)
    for name, part in particles._asdict().items():
        if name == "reward":
            if part.shape != (rows,) or part.dtype != torch.float64 or (part == math.inf).any():
                raise ValueError(f"rewards of shape {tuple(part.shape)} and {part.dtype}, or that are infinite")
        elif part is not None:
            _check_tensor(job, f"'{name}' of its particles", part, (rows,))
    if state.best is not None:
        _check_finished(job, state.best)
    if state.ancestors is not None and (state.ancestors.shape != (rows,) or state.ancestors.dtype != torch.int64):
        raise ValueError(f"ancestors of shape {tuple(state.ancestors.shape)} are not those of {rows} particles")


def _check_tensor(job: Job, what: str, tensor: Tensor, rows: tuple[int, ...]) -> None:
    model = job.task.model
    if tuple(tensor.shape) != (*rows, *model.shape) or tensor.dtype != model.dtype:
        raise ValueError(
            f"{what} has shape {tuple(tensor.shape)} and {tensor.dtype}, not {(*rows, *model.shape)} and {model.dtype}"
        )

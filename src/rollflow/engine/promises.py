"""What a search promises about its spending and its sample, compared with what it did."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from rollflow.checks import instance, refused, whole
from rollflow.engine.meter import Spending
from rollflow.engine.running_job import RunningJob
from rollflow.errors import RollflowError
from rollflow.models.base import FlowModel
from rollflow.requests import Grad, Request, Save, Velocity
from rollflow.search.own_state import changed_settings, own_state
from rollflow.search.propagator import Finished, Progress

_UNITS = {"nfe": "NFE", "reward_calls": "reward calls", "decodes": "decodes", "backward_passes": "backward passes"}


def broken_promises(job: RunningJob) -> Iterator[str]:
    """Warnings of a job whose search did not spend what it declared, or returned a reward that nothing had."""
    if job.done:
        yield from _unscored(job)
        yield from _misdeclared(job)
        changed = changed_settings(job.job.search, job.settings)
        if changed:
            yield own_state(job.job.search.name, changed)


def _unscored(job: RunningJob) -> Iterator[str]:
    """A reward above those of all samples that the population scored, which its own sample cannot have."""
    for candidate in job.returned:
        best, reward = job.states[candidate.population].best, candidate.sample.reward
        if not job.job.task.objective.relative and reward > (-math.inf if best is None else best.reward):
            seen = "scored none" if best is None else f"the best that it scored has {best.reward:.6g}"
            yield f"method '{job.job.search.name}' returned a sample with reward {reward:.6g}, but {seen}"


def _misdeclared(job: RunningJob) -> Iterator[str]:
    search, cost = job.job.search, job.job.declared_cost
    spent = sum((state.spent for state in job.states), Spending())
    amounts = [(unit, getattr(spent, name), getattr(cost, name)) for name, unit in _UNITS.items()]
    if cost.exact:
        wrong = [(unit, ours, theirs) for unit, ours, theirs in amounts if ours != theirs]
        what, mend = "exactly ", "set exact = False if what it spends depends on the rewards"
    else:
        wrong = [(unit, ours, theirs) for unit, ours, theirs in amounts if ours > theirs]
        what, mend = "at most ", "exact = False allows less, so it must spend the most where all rewards are equal"
    if wrong:
        done = ", ".join(f"{ours} {unit}" for unit, ours, _ in wrong)
        said = ", ".join(f"{theirs} {unit}" for unit, _, theirs in wrong)
        yield f"method '{search.name}' spent {done} but declared {what}{said}, which a dry run shows; {mend}"


def check_request(method: str, request: Request, model: FlowModel) -> None:
    """Check a request of a search, which may share a call with those of others.

    Raises:
        RollflowError: If it has no rows, or rows that are no states of the model; or if it saves no ``Progress``.
    """
    if isinstance(request, Save):
        instance(f"what {method} saves", request.state, Progress)
        return
    network = isinstance(request, Velocity | Grad)
    states, shape = request.x if isinstance(request, Velocity | Grad) else request.x0, tuple(model.shape)
    fits = isinstance(states, Tensor) and states.ndim and len(states) and tuple(states.shape[1:]) == shape
    if not fits:
        got = f"shape {tuple(states.shape)}" if isinstance(states, Tensor) else type(states).__name__
        sides = ", ".join(map(str, shape))
        raise RollflowError(
            f"{method} asks with states of {got} ({type(request).__name__}); expected shape (B, {sides}) with B >= 1"
        )
    if network and not (isinstance(request.t, Tensor) and request.t.shape == (len(states),)):  # type: ignore[union-attr]
        raise RollflowError(f"{method} asks with times that are not one for each of its {len(states)} states")


def versions(value: object) -> list[int]:
    """Numbers that change when a tensor of a saved state is changed in place."""
    if isinstance(value, Tensor):
        return [] if value.is_inference() else [value._version]
    if isinstance(value, Progress):
        return versions((value.particles, value.extra, value.ancestors))
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [number for part in parts for number in versions(part)]


def as_finished(method: str, returned: object, model: FlowModel) -> Finished:
    """Check what a population returned.

    Args:
        method: The search, as errors call it.
        returned: What its population returned.
        model: Model of the job.

    Raises:
        RollflowError: If it is no sample of the model with a reward and a noise level.
    """
    finished: Finished = instance(f"what {method} returns", returned, Finished)
    x0, shape = finished.x0, tuple(model.shape)
    if not isinstance(x0, Tensor) or tuple(x0.shape) != shape or x0.dtype != model.dtype:
        got = f"shape {tuple(x0.shape)} and {x0.dtype}" if isinstance(x0, Tensor) else type(x0).__name__
        raise RollflowError(f"{method} returned a sample of {got}; expected one of shape {shape} and {model.dtype}")
    reward = finished.reward
    if not isinstance(reward, float | int) or not reward < math.inf:
        raise refused(
            f"the reward that {method} returns", "a number, or -inf for a sample that must not be chosen", reward
        )
    level = finished.noise_level
    if not isinstance(level, float | int) or not 0 <= level <= 1:
        raise refused(f"the noise level that {method} returns", "a number in [0, 1]", level)
    if finished.row is not None:
        whole(f"the row that {method} returns", finished.row, at_least=0)
    return finished

"""What requests cost, and how those of many searches are answered in a few calls of model, decoder and reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.engine.job import Task
from rollflow.engine.meter import Spending
from rollflow.errors import BadModel, BadReward
from rollflow.models.base import FlowModel, Screened
from rollflow.requests import Decode, Grad, Request, Reward, Slope, Velocity
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import free_memory, is_out_of_memory, rewards_of
from rollflow.runtime.callees import called

Rows: TypeAlias = slice | list[int]
"""Some of many rows: where they are."""

NETWORK, DYNAMICS, DECODER, REWARD, GRADIENT = "network", "dynamics", "decoder", "reward", "gradient of the reward"
"""Where a value that is not finite can arise."""


class Query(NamedTuple):
    """A request and who asks.

    Args:
        request: Not a ``Save``.
        task: Of the job that asks.
        condition: Its encoded prompt.
    """

    request: Any
    task: Task
    condition: Any


class Fault(NamedTuple):
    """Why a sample is not eligible, or why guidance does not follow its gradient.

    Args:
        where: In what it arose (``NETWORK``, ...), or who rejected the sample.
        what: That in words, which end before the row is named.
    """

    where: str
    what: str


class Verdict(NamedTuple):
    """The answer to a ``Reward``, before the parts of the reward are mixed.

    Args:
        scores: (B, k) what the k parts say; NaN in a row that has a fault.
        faults: Of each row that is not eligible; None of all others.
    """

    scores: Tensor
    faults: list[Fault | None]


class Sloped(NamedTuple):
    """The answer to a ``Grad``.

    Args:
        slope: With reward -inf in rows that are not eligible, and gradient 0 in all rows that have a fault.
        faults: Of each row; that of a ``GRADIENT`` leaves it eligible.
    """

    slope: Slope
    faults: list[Fault | None]


def price(request: Request, model: FlowModel) -> Spending:
    """What answering a request costs."""
    match request:
        case Velocity(x):
            return Spending(nfe=len(x), network_rows=len(x) * model.rows_per_nfe)
        case Grad(x):
            n = len(x)
            return Spending(n, n * model.rows_per_nfe, n, n, n)
        case Reward(x0):
            return Spending(reward_calls=len(x0), decodes=len(x0))
        case Decode(x0):
            return Spending(decodes=len(x0))
    return Spending()


@dataclass(frozen=True)
class Executor:
    """Calls of models and rewards; the requests of one call share a model and, if they need one, a reward.

    Whatever is called gets copies, and what it raises becomes an error that names it. A call for which memory runs out
    is made again in halves.

    Args:
        max_rows: The most rows in one call.
        max_grad_rows: The same where a graph is kept for the backward pass, which is what bounds its memory.
        padded: Whether a call of fewer rows is filled up, so that all calls are of one shape.
        limits: The most rows for which memory was enough, by reward, and by model and kind of call.
    """

    max_rows: int
    max_grad_rows: int
    padded: bool = False
    limits: dict[Any, int] = field(default_factory=dict, compare=False, repr=False)

    def most(self, kind: type[Request]) -> int:
        """The most rows in one call that answers requests of a kind."""
        return self.max_grad_rows if kind is Grad else self.max_rows

    def computed(self, kind: type[Request], rows: int) -> int:
        """Rows that answering so many takes, those that fill calls up included."""
        return -(-rows // self.most(kind)) * self.most(kind) if self.padded else rows

    def of(self, kind: type[Request], group: Sequence[Query]) -> list[Any]:
        """The answer to each request of one kind: a ``Verdict`` to a ``Reward``, a ``Sloped`` to a ``Grad``."""
        if kind is Grad:
            return self._slopes(group)
        with torch.no_grad():
            if kind is Velocity:
                return self._velocities(group)
            if kind is Reward:
                return self.rewards(group)
            if kind is Decode:
                task = group[0].task
                return self._alone(
                    (Decode, task),
                    [asked.request.x0 for asked in group],
                    lambda rows, x0: screened(task, x0).samples.clone(),
                )
        return [None] * len(group)

    def rewards(self, group: Sequence[Query]) -> list[Verdict]:
        """What the k parts of the reward say of clean samples, for each request."""
        task, prompts = group[0].task, _prompts(group)

        def judged(rows: Rows, x0: Tensor) -> Verdict:
            return self._verdict(task.reward, *examined(task, x0), _at(prompts, rows))

        tensors = [asked.request.x0 for asked in group]
        return [Verdict(*parts) for parts in self._split((Reward, task), tensors, judged, self.max_rows)]

    def examined(self, task: Task, tensors: list[Tensor]) -> list[tuple[Tensor, list[Fault | None]]]:
        """Decoded samples of each tensor of clean states, and what makes any of them ineligible so far."""

        def kept(rows: Rows, x0: Tensor) -> tuple[Any, ...]:
            samples, faults = examined(task, x0)
            return samples.clone(), faults  # a model may use its own memory again before they are scored

        with torch.no_grad():
            return [(samples, faults) for samples, faults in self._split((Decode, task), tensors, kept, self.max_rows)]

    def rewards_later(self, group: Sequence[Query]) -> Callable[[], list[Verdict]]:
        """The same, with the model's work done now; what is returned does the reward's, in any thread."""
        task, prompts = group[0].task, _prompts(group)

        found = self.examined(task, [asked.request.x0 for asked in group])
        samples, faults = [samples for samples, _ in found], [fault for _, faults in found for fault in faults]
        unpadded = replace(self, padded=False)  # whoever is elsewhere makes batches of its own

        def judged(rows: Rows, some: Tensor) -> Verdict:
            return unpadded._verdict(task.reward, some, _at(faults, rows), _at(prompts, rows))

        def later() -> list[Verdict]:
            with torch.no_grad():
                return [Verdict(*parts) for parts in unpadded._split(None, samples, judged, self.max_rows)]

        return later

    def _verdict(
        self, reward: RewardModel, samples: Tensor, faults: list[Fault | None], prompts: Sequence[str]
    ) -> Verdict:
        """Scores of the rows that have no fault; no other is given to the reward."""
        sound = [row for row, fault in enumerate(faults) if fault is None]
        scores, faults = torch.full((len(faults), len(reward.parts)), torch.nan, dtype=torch.float64), [*faults]
        if not sound:
            return Verdict(scores, faults)
        # Where all calls are to be of one shape, a sound sample stands in for each that is not.
        rows = [row if fault is None else sound[0] for row, fault in enumerate(faults)] if self.padded else sound
        given = samples if len(sound) == len(faults) else samples[rows]
        told = torch.stack([rewards_of(part, given, _at(prompts, rows), self.limits) for part in reward.parts], 1)
        scores[sound] = told[sound] if self.padded else told
        for row in (~scores.isfinite().all(1)).nonzero()[:, 0].tolist():
            if faults[row] is None:
                at = int((~scores[row].isfinite()).nonzero()[0])
                faults[row] = gave(reward.parts[at], float(scores[row, at]))
        return Verdict(scores, faults)

    def _velocities(self, group: Sequence[Query]) -> list[Tensor]:
        task, t = group[0].task, torch.cat([asked.request.t for asked in group])
        conditions = [asked.condition for asked in group for _ in asked.request.x]
        return self._alone(
            (Velocity, task),
            [asked.request.x for asked in group],
            lambda rows, x: velocity(task, x, t[rows], _at(conditions, rows)),
        )

    def _slopes(self, group: Sequence[Query]) -> list[Sloped]:
        task, t = group[0].task, torch.cat([asked.request.t for asked in group])
        prompts = [asked.task.prompt for asked in group for _ in asked.request.x]
        conditions = [asked.condition for asked in group for _ in asked.request.x]

        def slope(rows: Rows, x: Tensor) -> tuple[Any, ...]:
            # Two leaves, since past a network that is cut off a gradient still finds the short cut of x0 = x - t v.
            through, past = (x.detach().requires_grad_() for _ in range(2))
            with torch.enable_grad():
                v = velocity(task, through, t[rows], _at(conditions, rows))
                clean = denoised_from_velocity(task.model.interpolant, v, past, t[rows])
                samples, faults = examined(task, clean.clone())  # which decode may write to
                sound = [row for row, fault in enumerate(faults) if fault is None]
                reward, gradient = torch.full((len(x),), -torch.inf, dtype=torch.float64), torch.zeros_like(x)
                if sound:
                    of = [row if fault is None else sound[0] for row, fault in enumerate(faults)]
                    of = of if self.padded else sound
                    given = samples if len(sound) == len(faults) else samples[of]
                    told = rewards_of(task.reward, given, _at(_at(prompts, rows), of), self.limits)
                    told = told[sound] if self.padded else told
                    inner, outer = _gradients(told, through, past)
                    reward[sound] = told.detach()
                    if inner is not None and outer is not None:
                        gradient = inner + outer
                    elif told.isfinite().any():
                        raise _cut_off(task, behind_velocity=outer is None)
            faults = _judged_slopes(task, reward, gradient, faults)
            bad = torch.tensor([fault is not None for fault in faults])
            reward[[fault is not None and fault.where != GRADIENT for fault in faults]] = -torch.inf
            gradient[bad.to(gradient.device)] = 0.0
            return v.detach().clone(), clean.detach(), reward, gradient, faults

        tensors = [asked.request.x for asked in group]
        made = self._split((Grad, task), tensors, slope, self.max_grad_rows)
        return [Sloped(Slope(*parts), faults) for *parts, faults in made]

    def _alone(
        self, what: tuple[type[Request], Task], tensors: list[Tensor], call: Callable[[Rows, Tensor], Tensor]
    ) -> list[Tensor]:
        return [answer for (answer,) in self._split(what, tensors, lambda rows, x: (call(rows, x),), self.max_rows)]

    def _split(
        self,
        what: tuple[type[Request], Task] | None,
        tensors: list[Tensor],
        call: Callable[[Rows, Tensor], tuple[Any, ...]],
        most: int,
    ) -> list[tuple[Any, ...]]:
        """Rows of many tensors through ``call``, which gets where they are and themselves, at most ``most`` at once.

        Where calls are padded all but the last are full, and the last is filled up with its own last row.

        Args:
            what: The kind of call, and of whom, by which it is known how many rows fit into memory; None is unlimited.
            tensors: One a request.
            call: Gives tensors and lists of one entry a row.
            most: Rows.
        """
        rows = torch.cat(tensors)
        calls = -(-len(rows) // most)
        bounds = [min(len(rows), most * i) if self.padded else len(rows) * i // calls for i in range(calls + 1)]
        made = []
        for a, b in pairwise(bounds):
            room = most - (b - a) if self.padded else 0
            some: Rows = slice(None) if calls == 1 and not room else [*range(a, b), *[b - 1] * room]
            parts = self._within_memory(what, some, rows[some], call)
            made.append(tuple(part[: b - a] for part in parts))
        sizes = [len(tensor) for tensor in tensors]
        return list(zip(*(_apart(joined(part), sizes) for part in zip(*made, strict=True)), strict=True))

    def _within_memory(
        self,
        what: tuple[type[Request], Task] | None,
        rows: Rows,
        x: Tensor,
        call: Callable[[Rows, Tensor], tuple[Any, ...]],
    ) -> tuple[Any, ...]:
        """``call`` on all rows, on half as many at once wherever memory runs out; what fits is remembered."""
        key, graph = None if what is None else (what[0], id(what[1].model)), what is not None and what[0] is Grad
        places, done, made = list(range(len(x))) if isinstance(rows, slice) else rows, 0, list[tuple[Any, ...]]()
        while done < len(x):
            most = min(self.limits.get(key, len(x)), len(x) - done)
            part = x[done : done + most]
            answer = _unless_out_of_memory(call, rows if most == len(x) else places[done : done + most], part, graph)
            if answer is None:
                self.limits[key] = most // 2
                free_memory()
            else:
                made.append(answer)
                done += most
        return made[0] if len(made) == 1 else tuple(joined(part) for part in zip(*made, strict=True))


def _unless_out_of_memory(
    call: Callable[[Rows, Tensor], tuple[Any, ...]], rows: Rows, x: Tensor, graph: bool
) -> tuple[Any, ...] | None:
    """What ``call`` gives; None if memory ran out, and fewer rows, or a graph of fewer, may leave enough."""
    try:
        return call(rows, x)
    except Exception as error:
        halved = isinstance(error, BadReward) and not graph  # by the reward's own batches
        if halved or len(x) == 1 or not is_out_of_memory(error):
            raise
        return None


def velocity(task: Task, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
    """What the model's ``velocity`` gives, in the dtype of the states; a copy, unless it is differentiated.

    Raises:
        BadModel: If it raises an exception, gives another shape, or no floating-point numbers.
    """
    with called(f"the network of model '{task.model.name}' failed", BadModel):
        v = task.model.velocity(x, t, conditions)
    if not isinstance(v, Tensor) or v.shape != x.shape:
        shape = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
        raise BadModel(f"velocity of model '{task.model.name}' gave {shape}; expected shape {tuple(x.shape)}")
    _check_numbers(f"velocity of model '{task.model.name}'", v)
    v = v.to(x)
    return v if torch.is_grad_enabled() else v.detach().clone()  # a model may use its own memory again


def _check_numbers(what: str, given: Tensor) -> None:
    if given.is_meta or not given.is_floating_point():
        shown = f"{given.dtype} on the device 'meta', which has no values" if given.is_meta else str(given.dtype)
        raise BadModel(f"{what} gave {shown}; expected floating-point numbers")


def screened(task: Task, x0: Tensor) -> Screened:
    """What the model's ``screened`` gives.

    Raises:
        BadModel: If it raises an exception, does not give one sample a state, or no floating-point numbers.
    """
    with called(f"the decoder of model '{task.model.name}' failed", BadModel):
        samples, verdicts = task.model.screened(x0)
        rejected = tuple(verdicts)
    if not isinstance(samples, Tensor) or not samples.ndim or not len(samples) == len(rejected) == len(x0):
        shape = tuple(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise BadModel(f"decode of model '{task.model.name}' gave {shape} for {len(x0)} clean states; expected as many")
    _check_numbers(f"decode of model '{task.model.name}'", samples)
    return Screened(samples if torch.is_grad_enabled() else samples.detach(), rejected)


def examined(task: Task, x0: Tensor) -> tuple[Tensor, list[Fault | None]]:
    """Decoded samples, and what makes any of them ineligible before a reward has seen it."""
    name, clean = task.model.name, sound_rows(x0)
    samples, rejected = screened(task, x0)
    faults = list[Fault | None]()
    for state, sample, who in zip(clean, sound_rows(samples), rejected, strict=True):
        if not state:
            faults.append(Fault(DYNAMICS, f"model '{name}' was sampled to a clean state that is not finite"))
        elif not sample:
            faults.append(Fault(DECODER, f"the decoder of model '{name}' gave pixels that are not finite"))
        else:
            faults.append(None if who is None else Fault(who, f"{who} of model '{name}' rejected the sample"))
    return samples, faults


def sound_rows(rows: Tensor) -> list[bool]:
    """Which rows of (B, ...) are finite."""
    finite = rows.detach().isfinite()
    sound: list[bool] = (finite.flatten(1).all(1) if rows.ndim > 1 else finite).tolist()
    return sound


def gave(reward: RewardModel, score: float) -> Fault:
    """That of a reward whose score is not finite."""
    return Fault(REWARD, f"reward '{reward.name}' gave {score}")


def joined(parts: Sequence[Any]) -> Any:
    """Answers to consecutive rows as one: tensors, lists, or tuples of such."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, tuple):
        return type(first)(*map(joined, zip(*parts, strict=True)))  # a NamedTuple
    return [entry for part in parts for entry in part]


def _apart(whole: Any, sizes: list[int]) -> list[Any]:
    """The rows of each request."""
    if isinstance(whole, Tensor):
        return list(torch.split(whole, sizes))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _prompts(group: Sequence[Query]) -> list[str]:
    return [asked.task.prompt for asked in group for _ in asked.request.x0]


def _at(values: Sequence[Any], rows: Rows) -> list[Any]:
    return list(values[rows]) if isinstance(rows, slice) else [values[row] for row in rows]


def _gradients(rewards: Tensor, *leaves: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of rewards; None where no path leads to a leaf."""
    if not rewards.requires_grad:
        return (None,) * len(leaves)
    return torch.autograd.grad(rewards.sum(), leaves, allow_unused=True)


def _judged_slopes(task: Task, reward: Tensor, gradient: Tensor, faults: list[Fault | None]) -> list[Fault | None]:
    """The faults of rows, with those whose reward or gradient is not finite."""
    told, flat = list[Fault | None](), sound_rows(gradient)
    for fault, score, leans in zip(faults, reward.tolist(), flat, strict=True):
        if fault is None and not -torch.inf < score < torch.inf:
            told.append(gave(task.reward, score))
        elif fault is None and not leans:
            what = f"reward '{task.reward.name}' gave a gradient that is not finite"
            told.append(Fault(GRADIENT, what))
        else:
            told.append(fault)
    return told


def _cut_off(task: Task, *, behind_velocity: bool) -> BadReward:
    behind = f"decode of model '{task.model.name}' and the reward's score"
    at = behind if behind_velocity else f"velocity of model '{task.model.name}'"
    return BadReward(
        f"no gradient of reward '{task.reward.name}' reaches the state; {at} must not detach or run under torch.no_grad"
    )

"""What is to be done, and what came of it."""

from __future__ import annotations

import types
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from rollflow.checks import MOST_NFE, MOST_SEED, each, instance, whole
from rollflow.engine.meter import Caps, Spending
from rollflow.engine.standing import Checkpoint, Point
from rollflow.models.base import Declared, FlowModel
from rollflow.requests import Asking
from rollflow.rewards import RewardModel, check_differentiable, check_reward
from rollflow.rng import Noise
from rollflow.sampler import Dynamics, Sampler
from rollflow.search.base import Finished, Search, Walk


@dataclass(frozen=True)
class Task:
    """A model, what it is asked for, and how the answer is judged.

    Args:
        model: The flow model.
        prompt: What it is asked for.
        reward: What the search optimises.
        held_out: Rewards that the search never sees; the returned sample is scored by them too.
    """

    model: FlowModel
    prompt: str
    reward: RewardModel
    held_out: tuple[RewardModel, ...] = ()

    def __post_init__(self) -> None:
        instance("model", self.model, FlowModel)
        instance("prompt", self.prompt, str, what="a text")
        check_reward("reward", self.reward)
        held_out = each("held_out", self.held_out, check_reward, "a tuple of rewards")
        object.__setattr__(self, "held_out", held_out)

    @property
    def apart(self) -> bool:
        """Whether rewards can be computed while the model runs, since it is elsewhere."""
        return self.reward.apart(self.model.device)


def declared(model: Declared, search: Search, sampler: Sampler, nfe: int) -> Spending:
    """What a job will spend, told without weights (the dry run); the decode of the returned sample is included.

    A model that does not know its network rows before it is loaded takes at least one a NFE, which is what is told.

    Raises:
        BudgetTooSmall: If the search cannot run in ``nfe``.
    """
    whole("nfe", nfe, at_most=MOST_NFE)
    cost = search.cost(sampler.bind(model), nfe)
    rows = cost.nfe * (model.rows_per_nfe or 1)
    return Spending(cost.nfe, rows, cost.reward_calls, cost.decodes + 1, cost.backward_passes)


@dataclass(frozen=True)
class Job:
    """A search on a task, with a seed and a budget.

    Args:
        task: What to make.
        search: How to spend the budget.
        nfe: The budget, in guided velocity evaluations.
        seed: Of all the job's noise, 0 <= seed < 2^63.
        sampler: How particles move.
        caps: Further limits; ``caps.nfe`` is the budget in any case.
        resume: Where an earlier run of the same job stood; it goes on from there, its spending counted in.

    Raises:
        BadSetting: On an argument of the wrong type or out of range.
        NotDifferentiable: On guidance by a reward that is not differentiable.
        BudgetTooSmall: If the search cannot run in ``nfe``.
    """

    task: Task
    search: Search
    nfe: int
    seed: int = 0
    sampler: Sampler = field(default_factory=Sampler)
    caps: Caps = Caps()
    resume: Checkpoint | None = None

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("task", self.task, Task),
            ("search", self.search, Search),
            ("sampler", self.sampler, Sampler),
            ("caps", self.caps, Caps),
        ):
            instance(name, value, kind)
        instance("resume", self.resume, Checkpoint, types.NoneType, what="a Checkpoint (see load_checkpoint) or None")
        object.__setattr__(self, "nfe", whole("nfe", self.nfe, at_least=1, at_most=MOST_NFE))
        object.__setattr__(self, "seed", whole("seed", self.seed, at_least=0, at_most=MOST_SEED))
        if self.sampler.guidance is not None:
            check_differentiable(self.task.reward)
        self.search.cost(self.dynamics, self.nfe)

    @property
    def capped(self) -> bool:
        """Whether there is a limit beside the budget."""
        return replace(self.caps, nfe=None) != Caps()

    @cached_property
    def dynamics(self) -> Dynamics:
        """The sampler bound to the task's model."""
        return self.sampler.bind(self.task.model)

    def populations(self) -> list[Asking[Finished] | Finished]:
        """The job's populations, not yet started, or what they returned before the run that is resumed stopped."""
        model, shares = self.task.model, self.search.shares(self.dynamics, self.nfe)
        saved = [one.state for one in self.resume.populations] if self.resume else [None] * len(shares)
        made: list[Asking[Finished] | Finished] = []
        for i, (share, state) in enumerate(zip(shares, saved, strict=True)):
            if isinstance(state, Finished):
                made.append(state)
            else:
                noise = Noise(self.seed, i, model.shape, model.dtype)
                made.append(self.search.population(Walk(self.dynamics, noise, share, model.origin), state))
        return made


@dataclass(frozen=True)
class Result:
    """What a job returned, and what it spent.

    Args:
        job: The job.
        sample: Decoded, (...), pixels (3, H, W) in [0, 1] for images.
        x0: The same in the model's space.
        reward: Of the sample.
        parts: What the parts of a mixed reward say of it, by name, scored once more; empty where it is not mixed.
        held_out: Held-out rewards by name.
        missing: Why one of these could not be had, by name; it is NaN then, since the sample is there.
        spent: Exact account, the final decode included, held-out scoring not.
        noise_level: 0 for a fully denoised sample, else the linear noise level at which the estimate was made.
        interrupted: Whether the search was stopped early, the sample being the best until then ...
        cause: ... and by what; None is the user.
        trace: Best reward so far against NFE, one point a rise and one at the end; populations are taken abreast, as
            if all spent at the same rate, since who of them is really the first depends on what else runs.
        shares: NFE that each population has spent.
        seconds: Spent in calls of model, decoder and reward; of a call that was shared, its rows' share.
        diagnostics: Of each population that ran to its end, the search's own figures by name.
    """

    job: Job
    sample: Tensor
    x0: Tensor
    reward: float
    parts: dict[str, float]
    held_out: dict[str, float]
    missing: dict[str, str]
    spent: Spending
    noise_level: float
    interrupted: bool
    cause: Exception | None
    trace: tuple[Point, ...]
    shares: tuple[int, ...]
    seconds: float
    diagnostics: tuple[dict[str, Any], ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the sample is fully denoised, not a clean estimate on the way."""
        return self.noise_level == 0

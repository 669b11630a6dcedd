"""What is to be done."""

from __future__ import annotations

import types
import warnings
from collections.abc import Generator, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rollflow.checks import MOST_NFE, MOST_SEED, each, instance, whole
from rollflow.defaults import (
    DEFAULT_KERNEL,
    DEFAULT_LOOKAHEAD,
    DEFAULT_STEPS,
    FEW_STEP_INTERPOLANT,
    MANY_STEP_INTERPOLANT,
)
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import KERNELS
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.engine.descriptions import ModelDescription, RewardDescription
from rollflow.engine.meter import Caps, Spending
from rollflow.engine.state import Checkpoint
from rollflow.errors import RollflowWarning, blamed
from rollflow.models.base import FlowModel, ModelSpec, check_attributes
from rollflow.models.function import as_model
from rollflow.particles.rng import Noise
from rollflow.requests import Asking
from rollflow.rewards.base import RewardModel
from rollflow.rewards.checks import check_differentiable, check_names, check_reward
from rollflow.sampler import Dynamics, Sampler
from rollflow.search.base import Search
from rollflow.search.cost import Cost
from rollflow.search.propagator import Finished, Propagator


@dataclass(frozen=True)
class Task:
    """A model, what it is asked for, and how the answer is judged.

    Args:
        model: The flow model; a pair of a velocity function and a shape becomes a ``FunctionModel``.
        prompt: What it is asked for.
        reward: What the search optimises.
        held_out: Rewards that the search never sees; the returned sample is scored by them too.
    """

    model: FlowModel
    prompt: str
    reward: RewardModel
    held_out: tuple[RewardModel, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", instance("model", as_model(self.model), FlowModel))
        check_attributes(self.model)
        instance("prompt", self.prompt, str, what="a text")
        check_reward("reward", self.reward)
        held_out = each("held_out", self.held_out, check_reward, "a tuple of rewards")
        check_names("held-out reward", [reward for reward in held_out if not reward.remote])
        object.__setattr__(self, "held_out", held_out)

    @property
    def described(self) -> Task:
        """The same with descriptions in place of model and rewards, which take no memory and cannot be run."""
        rewards = [RewardDescription(reward) for reward in (self.reward, *self.held_out)]
        return Task(ModelDescription(self.model), self.prompt, rewards[0], tuple(rewards[1:]))

    @property
    def overlaps(self) -> bool:
        """Whether rewards can be computed while the model runs, since it is elsewhere."""
        return self.reward.overlaps(self.model.device)


def estimate_cost(model: ModelSpec, search: Search, sampler: Sampler, nfe: int) -> Spending:
    """What a job will spend, told without weights (the dry run); the decode of the returned sample is included.

    A model that does not know its network rows before it is loaded takes at least one a NFE, which is what is told.

    Raises:
        BudgetTooSmall: If the search cannot run in ``nfe``.
    """
    whole("nfe", nfe, at_most=MOST_NFE)
    dynamics = sampler.bind(model)
    with blamed(f"method '{search.name}' cannot tell its cost"):
        cost = instance(f"the cost of method '{search.name}'", search.cost(dynamics, nfe), Cost)
        _warn(search, dynamics, nfe)
    rows = cost.nfe * (model.rows_per_nfe or 1)
    return Spending(cost.nfe, rows, cost.reward_calls, cost.decodes + 1, cost.backward_passes)


def default_sampler(model: ModelSpec, search: Search) -> Sampler:
    """How particles move where nothing is said.

    Along VP for a step-distilled model, the paper's choice for such (arXiv 2503.19385), and along the linear
    interpolant for any other; with the kernel that the method's paper runs it with, else the reverse SDE; in
    ``DEFAULT_STEPS`` steps.
    """
    interpolant = INTERPOLANTS.make(FEW_STEP_INTERPOLANT if model.few_step else MANY_STEP_INTERPOLANT)
    kernel = KERNELS.make(search.default_kernel or DEFAULT_KERNEL)
    return Sampler(interpolant, kernel, steps=DEFAULT_STEPS, lookahead=LOOKAHEADS.make(DEFAULT_LOOKAHEAD))


def _warn(search: Search, dynamics: Dynamics, nfe: int) -> None:
    """Warn of a budget that is not a sensible one, once wherever it is met."""
    doubt = search.doubt(dynamics, nfe)
    if doubt is not None:
        warnings.warn(doubt, RollflowWarning, stacklevel=1)


@dataclass(frozen=True)
class Job:
    """A search on a task, with a seed and a budget.

    Args:
        task: What to make.
        search: How to spend the budget.
        nfe: The budget, in guided velocity evaluations.
        seed: Of all the job's noise, 0 <= seed < 2^63.
        sampler: How particles move; by default as in ``generate``, which depends on model and search
            (``default_sampler``).
        caps: Further limits; ``caps.nfe`` is the budget in any case.
        resume: Where an earlier run of the same job stood; it goes on from there, its spending counted in.
        plan: Options that the job was made from, in JSON's own types (``Plan.to_json``), for its record; empty for a
            job that was made without one.

    Raises:
        BadSetting: On an argument of the wrong type or out of range.
        NotDifferentiable: On guidance by a reward that is not differentiable.
        BudgetTooSmall: If the search cannot run in ``nfe``.
    """

    task: Task
    search: Search
    nfe: int
    seed: int = 0
    sampler: Sampler = None  # type: ignore[assignment]  # chosen below
    caps: Caps = Caps()
    resume: Checkpoint | None = None
    plan: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        instance("task", self.task, Task)
        instance("search", self.search, Search)
        if self.sampler is None:
            object.__setattr__(self, "sampler", default_sampler(self.task.model, self.search))
        for name, value, kind in (
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
        _warn(self.search, self.dynamics, self.nfe)

    @property
    def described(self) -> Job:
        """The same with a description in place of the task, and without a checkpoint."""
        job = copy(self)  # not made anew, since a description may start elsewhere than its model and so cost more
        object.__setattr__(job, "task", self.task.described)
        object.__setattr__(job, "resume", None)
        return job

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
        with blamed(f"method '{self.search.name}' failed"):
            return self._populations()

    def _populations(self) -> list[Asking[Finished] | Finished]:
        model = self.task.model
        shares = each(
            f"shares of method '{self.search.name}'",
            self.search.shares(self.dynamics, self.nfe),
            whole,
            "a list of whole numbers",
        )
        saved = [deepcopy(one.state) for one in self.resume.populations] if self.resume else [None] * len(shares)
        made: list[Asking[Finished] | Finished] = []
        for i, (share, state) in enumerate(zip(shares, saved, strict=True)):
            if isinstance(state, Finished):
                made.append(state)
            else:
                noise = Noise(self.seed, i, model.shape, model.dtype)
                asking = self.search.population(Propagator(self.dynamics, noise, share, model.origin), state)
                made.append(
                    instance(
                        f"population of method '{self.search.name}'", asking, Generator, what="a generator of requests"
                    )
                )
        return made

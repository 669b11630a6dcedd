"""A search on a task, with a seed and a budget."""

from __future__ import annotations

import types
from collections.abc import Generator, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rollflow.checks import MOST_NFE, MOST_SEED, each, instance, whole
from rollflow.engine.estimate import default_sampler, warn_of_budget
from rollflow.engine.meter import Caps
from rollflow.engine.state import Checkpoint
from rollflow.engine.task import Task
from rollflow.errors import blamed
from rollflow.particles.rng import Noise
from rollflow.requests import Asking
from rollflow.rewards.checks import check_differentiable
from rollflow.sampler import Dynamics, Sampler
from rollflow.search.base import Search
from rollflow.search.cost import Cost
from rollflow.search.propagator import Finished, Propagator
from rollflow.search.purpose import Purpose


@dataclass(frozen=True)
class Job:
    """A search on a task, with a seed and a budget.

    Args:
        task: Model, prompt and rewards.
        search: Search that spends the budget.
        nfe: Budget in guided velocity evaluations.
        seed: Seed of all noise of the job, 0 <= seed < 2^63.
        sampler: Sampler that moves particles; by default that of ``generate``, which depends on model and search
            (``default_sampler``).
        caps: Further limits; ``caps.nfe`` is the budget in any case.
        resume: Checkpoint of an earlier run of the same job to continue from; its spending counts.
        plan: Options that the job was made from, in JSON types (``Plan.to_json``), for its record; empty for a job that
            was made without a plan.

    Raises:
        BadSetting: If an argument has the wrong type or is out of range.
        NotDifferentiable: If guidance would follow a reward that is not differentiable.
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
        instance("sampler", self.sampler, Sampler, types.NoneType, what="a Sampler")
        instance("caps", self.caps, Caps)
        instance("resume", self.resume, Checkpoint, types.NoneType, what="a Checkpoint (see load_checkpoint) or None")
        object.__setattr__(self, "nfe", whole("nfe", self.nfe, at_least=1, at_most=MOST_NFE))
        object.__setattr__(self, "seed", whole("seed", self.seed, at_least=0, at_most=MOST_SEED))
        kernel = None if self.sampler is None else self.sampler.kernel
        task, shortlist = self.task, 1 if self.task.choice is None else self.task.choice.shortlist
        rewards = (*task.objective.known_as, task.reward.name)
        search = self.search.prepared(Purpose(task.model, rewards, self.nfe, kernel, shortlist))
        object.__setattr__(self, "search", search)
        if self.sampler is None:
            object.__setattr__(self, "sampler", default_sampler(self.task.model, search))
        if self.sampler.guidance is not None:
            check_differentiable(self.task.objective)
        _ = self.declared_cost
        warn_of_budget(self.search, self.dynamics, self.nfe)

    @property
    def described(self) -> Job:
        """The job with a description in place of the task, and without a checkpoint."""
        job = copy(self)  # not made anew, since a description may start elsewhere than its model and so cost more
        object.__setattr__(job, "task", self.task.described)
        object.__setattr__(job, "resume", None)
        return job

    @property
    def capped(self) -> bool:
        """Whether there is a limit besides the budget."""
        return replace(self.caps, nfe=None) != Caps()

    @cached_property
    def dynamics(self) -> Dynamics:
        """The sampler bound to the task's model."""
        return self.sampler.bind(self.task.model)

    @cached_property
    def declared_cost(self) -> Cost:
        """What the search declares that it spends."""
        return self.search.cost(self.dynamics, self.nfe)

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """NFE of each population."""
        shares = self.search.shares(self.dynamics, self.nfe)
        return each(f"shares of method '{self.search.name}'", shares, whole, "a list of whole numbers")

    def populations(self) -> list[Asking[Finished] | Finished]:
        """Create the populations, not yet started; a population that had returned is given by its result."""
        with blamed(f"method '{self.search.name}' failed"):
            return self._populations()

    def _populations(self) -> list[Asking[Finished] | Finished]:
        model = self.task.model
        shares = self.shares
        saved = [deepcopy(one.state) for one in self.resume.populations] if self.resume else [None] * len(shares)
        populations: list[Asking[Finished] | Finished] = []
        for i, (share, state) in enumerate(zip(shares, saved, strict=True)):
            if isinstance(state, Finished):
                populations.append(state)
            else:
                noise = Noise(self.seed, i, model.shape, model.dtype)
                asking = self.search.population(Propagator(self.dynamics, noise, share, model.origin), state)
                populations.append(
                    instance(
                        f"population of method '{self.search.name}'", asking, Generator, what="a generator of requests"
                    )
                )
        return populations

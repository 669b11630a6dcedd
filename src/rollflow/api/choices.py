"""The options of a run, with the objects that they stand for."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

from rollflow.defaults import DEFAULT_STEPS
from rollflow.dynamics.grids import GRIDS
from rollflow.dynamics.guidance import GUIDANCE
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import KERNELS
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.engine import default_sampler
from rollflow.models import FlowModel, Source, as_model, find_model
from rollflow.options import Options
from rollflow.registry import Registry
from rollflow.rewards import REWARDS, RewardFunction, RewardModel, as_reward
from rollflow.rewards.components import components
from rollflow.sampler import Dynamics, Sampler
from rollflow.search import SEARCHES, Search
from rollflow.search.published import as_published, published_sampler
from rollflow.search.purpose import Purpose

T = TypeVar("T")


class Choices(Options):
    """Every option of a run, and what each choice stands for; no weights are loaded."""

    @cached_property
    def declared_model(self) -> FlowModel | type[FlowModel] | Source:
        """The model, or the class or source with its attributes before it is loaded."""
        return find_model(self.model) if isinstance(self.model, str) else as_model(self.model)

    @cached_property
    def declared_reward(self) -> RewardModel | type[RewardModel]:
        """The reward, or its class if it need not be created before it is loaded."""
        return _declared(self.reward)

    @cached_property
    def declared_surrogate(self) -> RewardModel | type[RewardModel] | None:
        """The reward that the search optimises in place of the reward, or its class; None if there is none."""
        if isinstance(self.surrogate, str):
            return REWARDS.resolve(self.surrogate)
        if isinstance(self.surrogate, RewardModel):
            return self.surrogate
        declared = self.declared_reward
        if not self._own_surrogate:
            return None
        return declared.surrogate if isinstance(declared, type) else declared.own_surrogate

    @property
    def _own_surrogate(self) -> bool:
        """Whether the search optimises the reward's own surrogate, if it has one."""
        return self.surrogate is True or (self.surrogate is None and not self.as_published)

    @property
    def declared_objective(self) -> RewardModel | type[RewardModel]:
        """The reward that the search sees, or its class."""
        return self.declared_surrogate or self.declared_reward

    @cached_property
    def judges(self) -> list[RewardModel | type[RewardModel]]:
        """The held-out rewards, or their classes."""
        default = [name for name in self.declared_reward.held_out if name not in self.seen]
        named = default if self.held_out is None else self.held_out
        return [_declared(judge) for judge in named]

    @cached_property
    def declared_chooser(self) -> RewardModel | type[RewardModel] | None:
        """The reward of the final choice, or its class; None if there is none."""
        return None if self.choose_by is None else _declared(self.choose_by)

    @property
    def seen(self) -> dict[str, str]:
        """Names of the rewards that a named surrogate and the final choice are made of, each with its option."""
        own = self.surrogate is None or isinstance(self.surrogate, bool)
        made = {"surrogate": None if own else self.declared_surrogate, "choose_by": self.declared_chooser}
        return {one.name: of for of, reward in made.items() if reward is not None for one in components(reward)}

    @property
    def structured(self) -> bool:
        """Whether a reward reads what the prompt asks for (``prompts.asked``)."""
        return any(reward.structured for reward in self.declared_rewards)

    @property
    def declared_rewards(self) -> list[RewardModel | type[RewardModel]]:
        """All rewards that score a sample, or their classes."""
        others = [one for one in (self.declared_surrogate, self.declared_chooser) if one is not None]
        return [self.declared_reward, *others, *self.judges]

    @cached_property
    def search(self) -> Search:
        """The search method, with every choice made that depends on model, reward and budget."""
        return self.named_search.prepared(self._purpose)

    @property
    def explanation(self) -> tuple[str, ...]:
        """Lines that say what the search was chosen to be, and why; none if nothing was chosen."""
        return self.named_search.explained(self._purpose)

    @property
    def _purpose(self) -> Purpose:
        kernel = None if self.kernel is None else _named(self.kernel, KERNELS)
        objective, shortlist = self.declared_objective, 1 if self.choose_by is None else self.shortlist
        known = objective.known_as if isinstance(objective, RewardModel) else (objective.name,)
        rewards = (*known, self.declared_reward.name)
        return Purpose(self.declared_model, rewards, self.nfe, kernel, shortlist)

    @cached_property
    def named_search(self) -> Search:
        """The search method as it is named, before anything is chosen for it."""
        named = _named(self.method, SEARCHES)
        return as_published(named) if self.as_published else named

    @cached_property
    def sampler(self) -> Sampler:
        """The sampler, which moves the particles."""
        interpolant = None if self.interpolant is None else _named(self.interpolant, INTERPOLANTS)
        if self.as_published:
            default = published_sampler(self.search, interpolant)
        else:
            default = default_sampler(self.declared_model, self.search, interpolant)
        return Sampler(
            default.interpolant,
            default.kernel if self.kernel is None else _named(self.kernel, KERNELS),
            grid=default.grid if self.grid is None else _named(self.grid, GRIDS),
            steps=default.steps if self.steps is None else self.steps,
            lookahead=_named(self.lookahead, LOOKAHEADS),
            finish=default.finish if self.finish is None else self.finish,
            guidance=None if self.guidance is None else _named(self.guidance, GUIDANCE),
            best_seen=self.best_seen,
        )

    @property
    def plain_steps(self) -> int:
        """Number of steps of the plain sample that a search is compared with."""
        return DEFAULT_STEPS if self.steps is None else self.steps

    @property
    def dynamics(self) -> Dynamics:
        """The sampler, bound to what the model declares."""
        return self.sampler.bind(self.declared_model)

    @property
    def rows_per_nfe(self) -> int | None:
        """Network rows of one NFE; None if the model does not know them before it is loaded."""
        return self.declared_model.rows_per_nfe


def _declared(reward: str | RewardModel | RewardFunction) -> RewardModel | type[RewardModel]:
    """The reward, or its class if it need not be created before it is loaded."""
    made: RewardModel | type[RewardModel] = REWARDS.resolve(reward) if isinstance(reward, str) else as_reward(reward)
    return made


def _named(choice: str | T, registry: Registry[T]) -> T:
    """Create the choice that a text such as ``ddim(eta=0.5)`` names; return an object unchanged."""
    return registry.make(choice) if isinstance(choice, str) else choice

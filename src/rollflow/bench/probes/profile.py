"""Measurement of a profile: what choosing gains along a trajectory, for any model, reward and sampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rollflow.bench.probes.siblings import Siblings
from rollflow.canonical import digest, stable_repr
from rollflow.checks import MOST_SEED, Settings, whole
from rollflow.defaults import DEFAULT_MAX_ROWS
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import KERNELS
from rollflow.engine import Engine, Job, JobsFailed, Spending, Task, completed, estimate_cost
from rollflow.errors import BadSetting, RollflowError
from rollflow.models.base import FlowModel, ModelSpec
from rollflow.registry import Registry
from rollflow.rewards.base import RewardModel
from rollflow.sampler import Sampler
from rollflow.search.profile import MAX_BYTES, Profile


@dataclass(frozen=True)
class Profiling(Settings):
    """What to measure a profile of (``search.profile.Profile``), but for model and reward.

    Every prompt is one job of its own, so that its numbers do not depend on which prompts were measured before, and a
    profile that was begun can be continued exactly. All prompts share their noise, as siblings of other prompts are
    never compared.

    Args:
        prompts: Prompts, at least one.
        sampler: Dynamics of the trajectories; it should finish, so that the last reward of a trajectory is a sample's.
        parents: Number n of parents, at least 2.
        siblings: Number m of siblings of each, at least 2.
        seed: Seed of all noise.
        max_rows: Largest number of rows in a call of the model.

    Raises:
        BadSetting: If a setting is out of range, or the profile would be too large for a file.
    """

    prompts: tuple[str, ...]
    sampler: Sampler
    parents: int = 4
    siblings: int = 6
    seed: int = 0
    max_rows: int = DEFAULT_MAX_ROWS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompts:
            raise BadSetting("a profile needs at least 1 prompt, got none")
        whole("parents of a profile", self.parents, at_least=2)
        whole("siblings of a profile", self.siblings, at_least=2)
        whole("seed", self.seed, at_least=0, at_most=MOST_SEED)
        whole("max_rows", self.max_rows, at_least=1)
        times = self.sampler.steps
        size = 4 * len(self.prompts) * times * (times + 1) * self.parents * self.siblings
        if size > MAX_BYTES - 2**20:
            raise BadSetting(
                f"a profile of {len(self.prompts)} prompts, {times} steps, {self.parents} parents and {self.siblings} "
                f"siblings has {size:,} bytes, more than {MAX_BYTES - 2**20:,}; ask for less"
            )

    @property
    def search(self) -> Siblings:
        """The search that records the rewards of one prompt."""
        return Siblings(self.parents, self.siblings)

    def cost(self, model: ModelSpec, done: int = 0) -> Spending:
        """Return what measuring the prompts after the first ``done`` costs, without loading anything."""
        one = estimate_cost(model, self.search, self.sampler, self._nfe(model))
        left = len(self.prompts) - done
        return Spending(**{name: left * amount for name, amount in vars(one).items()})

    def _nfe(self, model: ModelSpec) -> int:
        return self.search.smallest_nfe(self.sampler.bind(model))

    def refuse_other(self, begun: Profile) -> None:
        """Raise a BadSetting unless a profile was begun with these settings; the prompts that it has are the first.

        What is known only once model and reward are loaded is checked by ``measure``.
        """
        asked = {
            "interpolant": _text(INTERPOLANTS, self.sampler.interpolant),
            "kernel": _text(KERNELS, self.sampler.kernel),
            "seed": self.seed,
            "parents": self.parents,
            "siblings": self.siblings,
        }
        _refuse(begun, asked, steps=self.sampler.steps)
        same = tuple(map(str, self.prompts[: len(begun.prompts)])) == begun.prompts
        if not same:
            raise BadSetting("the profile was begun with other prompts; remove it, or choose another folder")

    def measure(self, model: FlowModel, reward: RewardModel, begun: Profile | None = None) -> Iterator[Profile]:
        """Measure prompt by prompt, and yield what is known after each.

        Args:
            model: Flow model to sample from.
            reward: Reward to measure.
            begun: Profile of the first prompts, which are not measured again.

        Raises:
            BadSetting: If ``begun`` is of other settings, or a prompt has no sample that may be chosen.
            RollflowError: If model or reward fail.
        """
        dynamics = self.sampler.bind(model)
        levels = tuple(round(dynamics.noise_level(k), 6) for k in range(self.sampler.steps))
        of = digest(model.identity, reward.identity, stable_repr(self.sampler), str(self.max_rows))
        if begun is not None:
            self.refuse_other(begun)
            _refuse(begun, {"model": model.name, "reward": reward.name, "levels": levels, "digest": of})
        nfe = self._nfe(model)
        for prompt in self.prompts[0 if begun is None else len(begun.prompts) :]:
            job = Job(Task(model, prompt, reward), self.search, nfe, self.seed, self.sampler)
            try:
                [result] = completed(Engine(self.max_rows).run([job]))
            except JobsFailed as failed:
                raise RollflowError(f"'{prompt}': {failed.failures[0]}") from failed
            rewards = result.diagnostics[0]["rewards"].numpy().astype(np.float32)[None]
            if begun is None:
                texts = _text(INTERPOLANTS, self.sampler.interpolant), _text(KERNELS, self.sampler.kernel)
                begun = Profile(model.name, reward.name, *texts, self.seed, (prompt,), levels, rewards, of)
            else:
                rewards = np.concatenate([begun.rewards, rewards])
                begun = replace(begun, prompts=(*begun.prompts, prompt), rewards=rewards)
            yield begun


def profile_of(
    model: FlowModel,
    reward: RewardModel,
    prompts: Sequence[str],
    sampler: Sampler,
    *,
    parents: int = 4,
    siblings: int = 6,
    seed: int = 0,
    max_rows: int = DEFAULT_MAX_ROWS,
) -> Profile:
    """Measure the profile of a model and a reward; arguments as ``Profiling``."""
    *_, whole_one = Profiling(tuple(prompts), sampler, parents, siblings, seed, max_rows).measure(model, reward)
    return whole_one


def _refuse(begun: Profile, asked: Mapping[str, Any], steps: int | None = None) -> None:
    told = [
        f"{name} was {getattr(begun, name)}, is {value}"
        for name, value in asked.items()
        if getattr(begun, name) != value
    ]
    if steps is not None and len(begun.levels) != steps:
        told.append(f"steps were {len(begun.levels)}, are {steps}")
    if told:
        raise BadSetting(
            f"the profile was begun with other settings: {'; '.join(told)}; remove it, or choose another folder"
        )


def _text(registry: Registry[Any], choice: Any) -> str:
    try:
        return registry.text(choice)
    except BadSetting:  # of a class that no text names
        return repr(choice)

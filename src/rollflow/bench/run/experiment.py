"""Experiments: arms, prompts and seeds, described by text so that they can be saved as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from rollflow.bench.suites.load import Item, Suite
from rollflow.defaults import DEFAULT_SHORTLIST
from rollflow.engine import Pool
from rollflow.errors import BadSetting
from rollflow.options import SamplingOptions, options_of

MOST_JOBS = 1_000_000
"""Largest number of jobs in an experiment."""
PLACES = frozenset({"device", "offload"})
"""Settings of a pipeline that determine where it runs; processes that share an experiment may differ in them."""


@dataclass(frozen=True)
class Arm(SamplingOptions):
    """A search with its dynamics and budget: options of a plan, as text that can be saved as JSON.

    Objects that have a text form, such as ``DDIM(0.5)``, are converted to it.

    Args:
        name: Name in tables, unique within an experiment.
        method: Search method.
        nfe: Budget in NFE; None for the plain sample, ``steps`` steps (by default 10) of the model's own ODE without a
            search.
        surrogate: Reward that the search optimises in place of the experiment's reward, by which all arms are compared.
            True or ``own`` is that reward's own surrogate, if it has one; False or ``none``, unlike for ``Plan`` the
            default, is the reward itself.
        choose_by: Second reward, which chooses among the last candidates of the search; None chooses nothing.
        shortlist: Number of candidates that it chooses among.
        pool_until: Reward at which the jobs of this arm stop that share their budgets (``Pool``), whatever the
            experiment's pool is; None leaves it at that.

    Raises:
        BadSetting: If an option is an object without a text form.
    """

    name: str
    method: str = "bon"
    nfe: int | None = None
    surrogate: str | bool = False
    choose_by: str | None = None
    shortlist: int = DEFAULT_SHORTLIST
    pool_until: float | None = None

    def __post_init__(self) -> None:
        for name, (_, option) in options_of().items():
            value = getattr(self, name, None)
            if isinstance(value, str) and value in option.words:
                object.__setattr__(self, name, option.words[value])
            registry = option.find_registry()
            if registry is not None and isinstance(value, registry.base):
                object.__setattr__(self, name, registry.text(value))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types.

        Fields added after the first release are omitted at their defaults, so that the ids of jobs and the
        configurations of earlier folders stay the same.
        """
        fields_ = {one.name: one for one in fields(self)}
        later = [name for name, one in fields_.items() if name not in _FIRST and getattr(self, name) != one.default]
        return {name: getattr(self, name) for name in (*_FIRST, *later)}


_FIRST = ("name", "method", "nfe", "interpolant", "kernel", "grid", "guidance", "steps", "finish")


@dataclass(frozen=True)
class Trial:
    """One job of an experiment.

    Args:
        arm: Arm that the job belongs to.
        place: Index of the prompt in its suite.
        item: Prompt with its category.
        seed: Seed, shared by all arms so that they can be compared pair by pair.
    """

    arm: Arm
    place: int
    item: Item
    seed: int

    @property
    def noise(self) -> int:
        """Seed of the job's noise; it differs between prompts, so that they are independent of each other."""
        content = json.dumps([self.item.prompt, self.seed])
        return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") >> 1

    @property
    def id(self) -> str:
        """Id of the job in files; it does not depend on what else the experiment contains."""
        content = [self.arm.to_json(), asdict(self.item), self.seed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Spread:
    """Settings for measuring the diversity of samples from one noise (``bench.probes.diversity``).

    Args:
        trajectories: Number of trajectories per prompt, for the dynamics of every arm that searches.
        distance: Name of the distance between samples.
    """

    trajectories: int
    distance: str


@dataclass(frozen=True)
class Experiment:
    """An experiment: every arm on every prompt with every seed.

    Args:
        name: Name of the experiment.
        model: Name of the flow model.
        pipeline: Settings of ``PipelineSource`` if the model is a diffusers pipeline; its ``arguments`` are text, as on
            the command line.
        reward: Reward that searches optimise, as text with settings.
        held_out: Rewards that no search sees.
        suite: Suite of prompts.
        arms: Arms, in the order of the tables.
        seeds: Number of seeds.
        max_rows: Number of rows in every call of the model. Smaller calls are padded, so that the bits of a job do not
            depend on the jobs that run beside it, and it can be replayed alone.
        diversity: Settings for measuring diversity after the jobs; None measures nothing.
        pool: Pool that the jobs of one arm and seed share, a separate one for each; None gives every job the budget of
            its arm.
        first_seed: First of the seeds, which are consecutive.
    """

    name: str
    model: str
    reward: str
    held_out: tuple[str, ...]
    suite: Suite
    arms: tuple[Arm, ...]
    seeds: int
    max_rows: int
    pipeline: Mapping[str, Any] = field(default_factory=dict)
    diversity: Spread | None = None
    pool: Pool | None = None
    first_seed: int = 0

    def trials(self) -> Iterator[Trial]:
        """Yield every job, seed by seed, then prompt by prompt, then arm by arm.

        An unfinished experiment thereby has about the same prompts and seeds in every arm.
        """
        for seed in range(self.first_seed, self.first_seed + self.seeds):
            for place, item in enumerate(self.suite.items):
                for arm in self.arms:
                    yield Trial(arm, place, item, seed)

    def pool_of(self, arm: Arm) -> Pool | None:
        """Return the pool that the jobs of an arm and one seed share; None if they share none, as plain samples do."""
        if arm.nfe is None:
            return None
        return self.pool if arm.pool_until is None else Pool(until=arm.pool_until)

    def arms_named(self, patterns: Sequence[str]) -> tuple[Arm, ...]:
        """Return the arms whose names match any of some patterns with wildcards (``fnmatch``); without patterns, all.

        Raises:
            BadSetting: If a pattern matches no arm.
        """
        for pattern in patterns:
            if not any(fnmatchcase(arm.name, pattern) for arm in self.arms):
                names = "; ".join(arm.name for arm in self.arms)
                raise BadSetting(f"no arm matches '{pattern}'; the arms are: {names}")
        return tuple(arm for arm in self.arms if not patterns or any(fnmatchcase(arm.name, one) for one in patterns))

    def measurements(self) -> list[tuple[str, Trial]]:
        """Return the measurements of diversity with their ids, one per prompt and dynamics.

        Of arms with the same dynamics only the first is measured.
        """
        if self.diversity is None:
            return []
        alike: dict[str, Arm] = {}
        for arm in (arm for arm in self.arms if arm.nfe is not None):
            method = arm.method if arm.kernel is None else ""  # it matters only if it chooses the kernel
            moves = replace(arm, name="", method=method, nfe=None, surrogate=False, choose_by=None, pool_until=None)
            alike.setdefault(json.dumps(moves.to_json()), arm)
        measurements = []
        for place, item in enumerate(self.suite.items):
            for dynamics, arm in alike.items():
                content = json.dumps([dynamics, asdict(item), asdict(self.diversity)], sort_keys=True)
                name = f"diversity-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
                measurements.append((name, Trial(arm, place, item, 0)))
        return measurements

    def config(self) -> dict[str, Any]:
        """Return the configuration, which must match for a folder to be resumed; it omits where a pipeline runs."""
        content = {key: value for key, value in asdict(self).items() if key != "suite"}
        content["arms"] = [arm.to_json() for arm in self.arms]
        for name, default in (("diversity", None), ("pool", None), ("first_seed", 0)):  # added after the first release
            if content[name] == default:
                del content[name]
        content["pipeline"] = {key: value for key, value in content["pipeline"].items() if key not in PLACES}
        suite = {"name": self.suite.name, "version": self.suite.version, "prompts": len(self.suite.items)}
        config: dict[str, Any] = json.loads(json.dumps(content | {"suite": suite | {"sha256": self.suite.digest}}))
        return config

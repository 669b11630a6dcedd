"""Experiments: arms, prompts and seeds, described by text alone so that a file can hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from rollflow.api import Plan
from rollflow.bench.probes.diversity import check_distance, diversity_nfe
from rollflow.bench.run.schema import MOST_ROWS
from rollflow.bench.suites.load import Item, Suite
from rollflow.engine import Job
from rollflow.errors import BadSetting, RollflowError
from rollflow.models import FlowModel, PipelineSource, Source, find_model
from rollflow.models.diffusers import read_argument
from rollflow.options import SamplingOptions, options_of, sampling_of
from rollflow.rewards import REWARDS, RewardModel

MOST_JOBS = 1_000_000
"""Largest number of jobs in an experiment."""
PLACES = frozenset({"device", "offload"})
"""Settings of a pipeline that decide where it runs; processes that share an experiment may differ in them."""


@dataclass(frozen=True)
class Arm(SamplingOptions):
    """One way to spend a budget: options of a plan, as text so that a file can hold them.

    An object that has a text form, such as ``DDIM(0.5)``, can be given instead of its text.

    Args:
        name: Name in tables, unique within an experiment.
        method: Search method.
        nfe: Budget in NFE; None for the plain sample, ``steps`` steps of the model's own ODE without a search.

    Raises:
        BadSetting: If an option is an object without a text form.
    """

    name: str
    method: str = "bon"
    nfe: int | None = None

    def __post_init__(self) -> None:
        for name, (_, option) in options_of().items():
            value = getattr(self, name, None)
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
        """Seed of all its noise; it differs between prompts, so that they are independent of each other."""
        content = json.dumps([self.item.prompt, self.seed])
        return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") >> 1

    @property
    def id(self) -> str:
        """Name in files; the same job has the same id, whatever else the experiment contains."""
        content = [self.arm.to_json(), asdict(self.item), self.seed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Spread:
    """Settings for measuring the diversity of samples from one noise (``bench.diversity``).

    Args:
        trajectories: Number of trajectories per prompt, for the dynamics of every arm that searches.
        distance: Name of the distance between samples.
    """

    trajectories: int
    distance: str


@dataclass(frozen=True)
class Experiment:
    """Every arm on every prompt with every seed.

    Args:
        name: Name of the experiment.
        model: Name of the flow model.
        pipeline: Settings of ``PipelineSource`` if the model is a diffusers pipeline, with its ``arguments`` as text,
            as on the command line.
        reward: Reward that searches optimise, as text with settings.
        held_out: Rewards that no search sees.
        suite: Prompts.
        arms: Arms in the order of the tables.
        seeds: Number of seeds, counted from 0.
        max_rows: Rows of every call of the model; smaller calls are padded, so that a job has the same bits whatever
            runs beside it and can be replayed alone.
        diversity: Settings for measuring diversity beside the jobs; None measures nothing.
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

    def trials(self) -> Iterator[Trial]:
        """Yield every job, seed by seed, then prompt by prompt, so that an unfinished experiment is a fair smaller one.

        Within a prompt the arms follow in their order.
        """
        for seed in range(self.seeds):
            for place, item in enumerate(self.suite.items):
                for arm in self.arms:
                    yield Trial(arm, place, item, seed)

    def measurements(self) -> list[tuple[str, Trial]]:
        """Return the measurements of diversity with their ids, one per prompt and dynamics.

        The first of the arms with the same dynamics stands for all of them.
        """
        if self.diversity is None:
            return []
        alike: dict[str, Arm] = {}
        for arm in (arm for arm in self.arms if arm.nfe is not None):
            method = arm.method if arm.kernel is None else ""  # it matters only where it chooses the kernel
            alike.setdefault(json.dumps(replace(arm, name="", method=method, nfe=None).to_json()), arm)
        measurements = []
        for place, item in enumerate(self.suite.items):
            for dynamics, arm in alike.items():
                content = json.dumps([dynamics, asdict(item), asdict(self.diversity)], sort_keys=True)
                name = f"diversity-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
                measurements.append((name, Trial(arm, place, item, 0)))
        return measurements

    def config(self) -> dict[str, Any]:
        """Return the configuration that must match for a folder to be resumed; the device of a pipeline may differ."""
        content = {key: value for key, value in asdict(self).items() if key != "suite"}
        content["arms"] = [arm.to_json() for arm in self.arms]
        if self.diversity is None:
            del content["diversity"]
        content["pipeline"] = {key: value for key, value in content["pipeline"].items() if key not in PLACES}
        suite = {"name": self.suite.name, "version": self.suite.version, "prompts": len(self.suite.items)}
        config: dict[str, Any] = json.loads(json.dumps(content | {"suite": suite | {"sha256": self.suite.digest}}))
        return config


def model_of(name: str, pipeline: Mapping[str, Any]) -> str | PipelineSource:
    """Return the model of an experiment, not loaded.

    Raises:
        RollflowError: If a pipeline does not have one of the settings, or the model is not a pipeline.
    """
    if not pipeline:
        return name
    if not isinstance(find_model(name), PipelineSource):
        raise RollflowError(
            f"'{name}' does not take {', '.join(pipeline)}: only diffusers pipelines do; remove the settings or choose "
            "a pipeline"
        )
    arguments = {key: read_argument(value) for key, value in pipeline.get("arguments", {}).items()}
    return PipelineSource(name, **{**pipeline, "arguments": arguments})


def plan_of(
    trial: Trial,
    model: str | FlowModel | Source,
    reward: str | RewardModel,
    held_out: list[str] | list[RewardModel],
) -> Plan:
    """Return the plan of a job, with names to compute its cost or with loaded objects to run it."""
    arm = trial.arm
    return Plan(
        trial.item.asked,
        model=model,
        method=arm.method,
        reward=reward,
        held_out=held_out,
        nfe=arm.steps if arm.nfe is None else arm.nfe,
        seed=trial.noise,
        **sampling_of(arm),
    )


def check_size(experiment: Experiment) -> None:
    """Raise a BadSetting if an experiment is too large or has no jobs."""
    jobs = len(experiment.arms) * len(experiment.suite.items) * experiment.seeds
    if not 1 <= jobs <= MOST_JOBS:
        raise BadSetting(
            f"expected 1 to {MOST_JOBS} jobs, got {jobs}: {len(experiment.arms)} arms, {len(experiment.suite.items)} "
            f"prompts, {experiment.seeds} seeds; change the number of prompts or seeds"
        )
    if not 1 <= experiment.max_rows <= MOST_ROWS:
        raise BadSetting(f"max_rows must be between 1 and {MOST_ROWS}, got {experiment.max_rows}")


def check(experiment: Experiment) -> None:
    """Raise the errors that running an experiment would raise, without loading anything.

    Raises:
        BadSetting: If the experiment is too large, has an unknown name or setting, or a prompt that the model or a
            reward cannot read.
        RollflowError: If a package is missing, or ``costs_of`` raises it.
    """
    check_size(experiment)
    if experiment.diversity is not None:
        check_distance(experiment.diversity.distance)
    model = find_model(experiment.model)
    readers: list[Any] = [model] if model.suite_family else []  # a pipeline can read every prompt
    for text in (experiment.reward, *experiment.held_out):
        readers += _parts(REWARDS.resolve(text))
    for item in experiment.suite.items:
        for reader in readers:
            try:
                reader.check_prompt(item.asked)
            except (ValueError, RollflowError) as error:
                raise BadSetting(f"'{reader.name}' cannot read the prompt '{item.prompt}': {error}") from None
    costs_of(experiment)


def _parts(reward: RewardModel | type[RewardModel]) -> list[RewardModel | type[RewardModel]]:
    """Return the parts of a reward, recursively."""
    if isinstance(reward, type) or reward.parts == (reward,):
        return [reward]
    return [one for part in reward.parts for one in _parts(part)]


def costs_of(experiment: Experiment) -> dict[str, int]:
    """Return the NFE of each arm over all its jobs, without loading anything; raises what ``Plan`` does."""
    model, costs = model_of(experiment.model, experiment.pipeline), {}
    declared = REWARDS.resolve(experiment.reward)
    reward = experiment.reward if isinstance(declared, type) else declared  # made once, not for each arm
    for arm in experiment.arms:
        trial = Trial(arm, 0, experiment.suite.items[0], 0)
        plan = plan_of(trial, model, reward, list(experiment.held_out))
        _ = plan.declared_reward
        one = (plan.baseline_cost() if arm.nfe is None else plan.cost()).nfe
        costs[arm.name] = one * len(experiment.suite.items) * experiment.seeds
    return costs


def diversity_cost(experiment: Experiment) -> int:
    """Return the NFE of measuring the diversity, without loading anything."""
    if experiment.diversity is None:
        return 0
    model, nfe = model_of(experiment.model, experiment.pipeline), 0
    for _, trial in experiment.measurements():
        plan = plan_of(trial, model, experiment.reward, [])
        nfe += diversity_nfe(plan.dynamics, experiment.diversity.trajectories)
    return nfe


def job_of(trial: Trial, model: FlowModel, reward: RewardModel, held_out: list[RewardModel]) -> Job:
    """Return the job of a trial for the engine."""
    plan = plan_of(trial, model, reward, held_out)
    return plan.baseline() if trial.arm.nfe is None else plan.job()

"""What an experiment is: arms, prompts and seeds, in texts alone, so that a file can hold it."""

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
"""Of one experiment."""
PLACES = frozenset({"device", "offload"})
"""Settings of a pipeline that say where it runs, in which processes at one experiment may differ."""


@dataclass(frozen=True)
class Arm(SamplingOptions):
    """One way to spend a budget: options of a plan, as texts, so that a file can hold them.

    An object with a text, such as ``DDIM(0.5)``, may be given in its place.

    Args:
        name: Name in tables, unique within an experiment.
        method: Search method.
        nfe: Budget in NFE; None is the plain sample, ``steps`` steps of the model's own ODE without a search.

    Raises:
        BadSetting: If an option is an object that has no text.
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
        """The fields in JSON's own types.

        Those that came after the first release are left out at their defaults, so that the identifiers of jobs and the
        configurations of folders made before stay what they were.
        """
        fields_ = {one.name: one for one in fields(self)}
        later = [name for name, one in fields_.items() if name not in _FIRST and getattr(self, name) != one.default]
        return {name: getattr(self, name) for name in (*_FIRST, *later)}


_FIRST = ("name", "method", "nfe", "interpolant", "kernel", "grid", "guidance", "steps", "finish")


@dataclass(frozen=True)
class Trial:
    """One job of an experiment.

    Args:
        arm: How.
        place: Of the prompt in its suite.
        item: The prompt.
        seed: The same for all arms, so that they can be compared pair by pair.
    """

    arm: Arm
    place: int
    item: Item
    seed: int

    @property
    def noise(self) -> int:
        """The seed of all its noise: another for every prompt, so that prompts are independent of each other."""
        content = json.dumps([self.item.prompt, self.seed])
        return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") >> 1

    @property
    def id(self) -> str:
        """A name for files: the same for the same job, whatever else is in the experiment."""
        content = [self.arm.to_json(), asdict(self.item), self.seed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Spread:
    """That the diversity of samples of one noise is measured, too (``bench.diversity``).

    Args:
        trajectories: A prompt, for the dynamics of every arm that searches.
        distance: Name of the distance of samples.
    """

    trajectories: int
    distance: str


@dataclass(frozen=True)
class Experiment:
    """Every arm on every prompt with every seed.

    Args:
        name: Of the experiment.
        model: Name of the flow model.
        pipeline: Where that is a pipeline of diffusers, how it is loaded and called: settings of ``PipelineSource``,
            its ``arguments`` in texts as on the command line.
        reward: That searches optimise; a text with settings.
        held_out: That no search sees.
        suite: The prompts.
        arms: In the order of the tables.
        seeds: How many, from 0.
        max_rows: Rows of every call of the model; calls of fewer are padded, so that a job has the same bits in any
            company and can be replayed alone.
        diversity: What is measured beside the jobs; None is nothing.
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
        """Every job, seed by seed, then prompt by prompt, so that an unfinished experiment is a fair smaller one."""
        for seed in range(self.seeds):
            for place, item in enumerate(self.suite.items):
                for arm in self.arms:
                    yield Trial(arm, place, item, seed)

    def measurements(self) -> list[tuple[str, Trial]]:
        """What diversity is measured of, a prompt and an arm each, of arms that move alike the first; with ids."""
        if self.diversity is None:
            return []
        alike: dict[str, Arm] = {}
        for arm in (arm for arm in self.arms if arm.nfe is not None):
            method = arm.method if arm.kernel is None else ""  # which decides on the kernel then, and else on nothing
            alike.setdefault(json.dumps(replace(arm, name="", method=method, nfe=None).to_json()), arm)
        told = []
        for place, item in enumerate(self.suite.items):
            for dynamics, arm in alike.items():
                content = json.dumps([dynamics, asdict(item), asdict(self.diversity)], sort_keys=True)
                name = f"diversity-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
                told.append((name, Trial(arm, place, item, 0)))
        return told

    def config(self) -> dict[str, Any]:
        """What must be the same for a folder to be gone on with; where a pipeline runs need not be."""
        told = {key: value for key, value in asdict(self).items() if key != "suite"}
        told["arms"] = [arm.to_json() for arm in self.arms]
        if self.diversity is None:
            del told["diversity"]
        told["pipeline"] = {key: value for key, value in told["pipeline"].items() if key not in PLACES}
        suite = {"name": self.suite.name, "version": self.suite.version, "prompts": len(self.suite.items)}
        config: dict[str, Any] = json.loads(json.dumps(told | {"suite": suite | {"sha256": self.suite.digest}}))
        return config


def model_of(name: str, pipeline: Mapping[str, Any]) -> str | PipelineSource:
    """The model of an experiment, not loaded.

    Raises:
        RollflowError: On settings that a pipeline does not have, or that are of another model.
    """
    if not pipeline:
        return name
    if not isinstance(find_model(name), PipelineSource):
        raise RollflowError(f"{', '.join(pipeline)}: of pipelines of diffusers alone, which '{name}' is not")
    arguments = {key: read_argument(value) for key, value in pipeline.get("arguments", {}).items()}
    return PipelineSource(name, **{**pipeline, "arguments": arguments})


def plan_of(
    trial: Trial,
    model: str | FlowModel | Source,
    reward: str | RewardModel,
    held_out: list[str] | list[RewardModel],
) -> Plan:
    """The plan of a job, for names (what it costs) or for what they name (to run it)."""
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
    """Raise a BadSetting if an experiment is too large for a folder, or has no jobs."""
    jobs = len(experiment.arms) * len(experiment.suite.items) * experiment.seeds
    if not 1 <= jobs <= MOST_JOBS:
        raise BadSetting(
            f"expected 1 to {MOST_JOBS} jobs, got {jobs}: {len(experiment.arms)} arms, {len(experiment.suite.items)} "
            f"prompts, {experiment.seeds} seeds; take fewer prompts or seeds"
        )
    if not 1 <= experiment.max_rows <= MOST_ROWS:
        raise BadSetting(f"expected 1 to {MOST_ROWS} rows of a call, got {experiment.max_rows}")


def check(experiment: Experiment) -> None:
    """Refuse what the run of an experiment by its names would refuse or fail at, without loading anything.

    Raises:
        BadSetting: On an experiment that is too large, an unknown name or setting, or a prompt that the model or a
            reward cannot read.
        RollflowError: On a package that is missing, and as ``costs_of``.
    """
    check_size(experiment)
    if experiment.diversity is not None:
        check_distance(experiment.diversity.distance)
    model = find_model(experiment.model)
    readers: list[Any] = [model] if model.suite_family else []  # of a pipeline every prompt can be read
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
    """The rewards that one is made of, and those that these are made of."""
    if isinstance(reward, type) or reward.parts == (reward,):
        return [reward]
    return [one for part in reward.parts for one in _parts(part)]


def costs_of(experiment: Experiment) -> dict[str, int]:
    """NFE of each arm, over all its jobs, told without loading anything; raises what ``Plan`` does."""
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
    """NFE of measuring the diversity, told without loading anything."""
    if experiment.diversity is None:
        return 0
    model, nfe = model_of(experiment.model, experiment.pipeline), 0
    for _, trial in experiment.measurements():
        plan = plan_of(trial, model, experiment.reward, [])
        nfe += diversity_nfe(plan.dynamics, experiment.diversity.trajectories)
    return nfe


def job_of(trial: Trial, model: FlowModel, reward: RewardModel, held_out: list[RewardModel]) -> Job:
    """The job itself."""
    plan = plan_of(trial, model, reward, held_out)
    return plan.baseline() if trial.arm.nfe is None else plan.job()

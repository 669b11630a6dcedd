"""Plans, jobs and costs of the trials of an experiment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from rollflow.api import Plan
from rollflow.api.loading import load_reward
from rollflow.bench.probes.diversity import check_distance, diversity_nfe
from rollflow.bench.run.experiment import Experiment, Trial
from rollflow.bench.run.schema import MOST_ROWS
from rollflow.defaults import DEFAULT_STEPS
from rollflow.engine import Job, Pool
from rollflow.errors import BadSetting, RollflowError
from rollflow.models import FlowModel, PipelineSource, Source, find_model
from rollflow.models.diffusers import read_argument
from rollflow.options import sampling_of
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.components import components

MOST_JOBS = 1_000_000
"""Largest number of jobs in an experiment."""


def model_of(name: str, pipeline: Mapping[str, Any]) -> str | PipelineSource:
    """Return the model of an experiment without loading it.

    Args:
        name: Name of the model.
        pipeline: Settings of the model if it is a diffusers pipeline.

    Raises:
        RollflowError: If there are settings that a pipeline does not have, or settings for a model that is no pipeline.
    """
    if not pipeline:
        return name
    if not isinstance(find_model(name), PipelineSource):
        raise RollflowError(
            f"'{name}' does not take {', '.join(pipeline)}, which are only for diffusers pipelines; remove them, or "
            "choose a pipeline"
        )
    arguments = {key: read_argument(value) for key, value in pipeline.get("arguments", {}).items()}
    return PipelineSource(name, **{**pipeline, "arguments": arguments})


def _once(model: str | PipelineSource) -> str | FlowModel | PipelineSource:
    """Return a model that is named with settings, which loads it, as an object that all arms share."""
    found = find_model(model) if isinstance(model, str) else model
    return found if isinstance(found, FlowModel) else model


def plan_of(
    trial: Trial,
    model: str | FlowModel | Source,
    reward: str | RewardModel,
    held_out: list[str] | list[RewardModel],
    *,
    max_rows: int,
    load: bool = False,
) -> Plan:
    """Return the plan of a job.

    Args:
        trial: Job of the experiment.
        model: Name of the model to compute the cost, or the loaded model to run the job; likewise the rewards.
        reward: Reward that arms are compared by, and that the search optimises unless its arm names another.
        held_out: Held-out rewards.
        max_rows: Number of rows in every call of the model, which is the experiment's.
        load: Whether to load the rewards that the arm names, once for all jobs, so that these share their calls.
    """
    arm, named = trial.arm, _loaded if load else _declared
    return Plan(
        trial.item.asked,
        model=model,
        method=arm.method,
        reward=reward,
        surrogate=named(arm.surrogate) if isinstance(arm.surrogate, str) else arm.surrogate,
        choose_by=None if arm.choose_by is None else named(arm.choose_by),
        shortlist=arm.shortlist,
        held_out=held_out,
        nfe=(arm.steps or DEFAULT_STEPS) if arm.nfe is None else arm.nfe,
        seed=trial.noise,
        max_rows=max_rows,
        **sampling_of(arm),
    )


@cache
def _declared(text: str) -> RewardModel | str:
    """Return a reward that an arm names, the same object for all jobs; its text if constructing it loads it."""
    declared = REWARDS.resolve(text)
    return text if isinstance(declared, type) else declared


@cache
def _loaded(text: str) -> RewardModel:
    """Return a reward that an arm names, the same object for all jobs, loaded."""
    return load_reward(REWARDS.resolve(text))


def check_size(experiment: Experiment) -> None:
    """Raise a BadSetting if an experiment is too large or has no jobs."""
    jobs = len(experiment.arms) * len(experiment.suite.items) * experiment.seeds
    if not 1 <= jobs <= MOST_JOBS:
        raise BadSetting(
            f"expected 1 to {MOST_JOBS} jobs, got {jobs} (arms: {len(experiment.arms)}, prompts: "
            f"{len(experiment.suite.items)}, seeds: {experiment.seeds}); change the number of prompts or seeds"
        )
    if not 1 <= experiment.max_rows <= MOST_ROWS:
        raise BadSetting(f"max_rows must be between 1 and {MOST_ROWS}, got {experiment.max_rows}")


def check(experiment: Experiment) -> None:
    """Check that an experiment can run, without loading anything.

    Raises:
        BadSetting: If the experiment is too large, has an unknown name or setting, or a prompt that the model or a
            reward cannot read.
        RollflowError: If a package is missing, or an arm cannot run.
    """
    check_size(experiment)
    if experiment.diversity is not None:
        check_distance(experiment.diversity.distance)
    model = find_model(experiment.model)
    readers: list[Any] = [model] if model.suite_family else []  # a pipeline can read every prompt
    named = [text for arm in experiment.arms for text in (arm.surrogate, arm.choose_by) if isinstance(text, str)]
    for text in dict.fromkeys((experiment.reward, *experiment.held_out, *named)):
        readers += components(REWARDS.resolve(text))
    for item in experiment.suite.items:
        for reader in readers:
            try:
                reader.check_prompt(item.asked)
            except (ValueError, RollflowError) as error:
                raise BadSetting(f"'{reader.name}' cannot read the prompt '{item.prompt}': {error}") from None
    costs_of(experiment)


def costs_of(experiment: Experiment) -> dict[str, int]:
    """Return the NFE of all jobs of each arm, without loading anything; raises whatever ``Plan`` raises."""
    model, costs = _once(model_of(experiment.model, experiment.pipeline)), {}
    declared = REWARDS.resolve(experiment.reward)
    reward = experiment.reward if isinstance(declared, type) else declared  # constructed once for all arms
    for arm in experiment.arms:
        trial = Trial(arm, 0, experiment.suite.items[0], 0)
        plan = plan_of(trial, model, reward, list(experiment.held_out), max_rows=experiment.max_rows)
        _ = plan.declared_reward
        one = (plan.baseline_cost() if arm.nfe is None else plan.cost()).nfe
        prompts = len(experiment.suite.items)
        pool = experiment.pool_of(arm)
        if pool is not None:
            check_pool(pool, plan)
            costs[arm.name] = (pool.nfe or (arm.nfe or 0) * prompts) * experiment.seeds
        else:
            costs[arm.name] = one * prompts * experiment.seeds
    return costs


def check_pool(pool: Pool, plan: Plan) -> None:
    """Raise a BadSetting if jobs of a plan cannot share a pool, as far as that is known before the reward is loaded."""
    reward = plan.declared_reward
    kind = reward if isinstance(reward, type) else type(reward)
    if not isinstance(getattr(kind, "bounds", None), property):
        pool.threshold(reward)  # type: ignore[arg-type]  # the class has the same attributes


def diversity_cost(experiment: Experiment, arms: Collection[str] | None = None) -> int:
    """Return the NFE of the measurements of diversity of some arms or of all, without loading anything."""
    if experiment.diversity is None:
        return 0
    model, nfe = _once(model_of(experiment.model, experiment.pipeline)), 0
    for _, trial in experiment.measurements():
        if arms is not None and trial.arm.name not in arms:
            continue
        plan = plan_of(trial, model, experiment.reward, [], max_rows=experiment.max_rows)
        nfe += diversity_nfe(plan.dynamics, experiment.diversity.trajectories)
    return nfe


def job_of(trial: Trial, model: FlowModel, reward: RewardModel, held_out: list[RewardModel], *, max_rows: int) -> Job:
    """Return the engine's job of a trial, with loaded model and rewards; the arguments are those of ``plan_of``."""
    plan = plan_of(trial, model, reward, held_out, max_rows=max_rows, load=True)
    return plan.baseline() if trial.arm.nfe is None else plan.job()

"""Preset experiments: those of Kim et al. 2025, arXiv 2503.19385, for any model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rollflow.bench.run.experiment import Arm, Experiment, Spread
from rollflow.bench.run.hard_arms import hard_arms
from rollflow.bench.run.pool_arms import pool_arms
from rollflow.bench.run.preset_arms import (
    aesthetic_arms,
    initial_arms,
    published_arms,
    scaling_arms,
    search_arms,
    table_arms,
    vp_arms,
)
from rollflow.bench.run.surrogate_arms import surrogate_arms
from rollflow.bench.suites.load import load
from rollflow.engine import Pool
from rollflow.errors import unknown


@dataclass(frozen=True)
class Preset:
    """An experiment without its model.

    Args:
        about: One-line description.
        suite: Suite of prompts for the embedded model.
        real: Suite of prompts for a diffusers pipeline.
        reward: Reward for the embedded model.
        real_reward: Reward for a diffusers pipeline.
        held_out: Held-out rewards for the embedded model.
        real_held_out: Held-out rewards for a pipeline.
        arms: Function from the budget in NFE to the arms.
        nfe: Budget in NFE.
        prompts: Number of prompts for the embedded model; None uses the whole suite.
        real_prompts: Number of prompts for a pipeline; None uses the whole suite.
        seeds: Number of seeds per prompt.
        quick: Budget in NFE, number of prompts and number of seeds of ``--quick``.
        trajectories: Number of trajectories per prompt for measuring diversity; 0 measures nothing.
        category: Category of ``suite`` that the prompts are taken from; None takes all of them.
        split: Part of ``suite``; None takes all of it.
        first_seed: First of the seeds.
    """

    about: str
    suite: str
    real: str
    reward: str
    real_reward: str
    held_out: tuple[str, ...]
    real_held_out: tuple[str, ...]
    arms: Callable[[int], tuple[Arm, ...]]
    nfe: int = 500
    prompts: int | None = None
    real_prompts: int | None = None
    seeds: int = 3
    quick: tuple[int, int, int] = (100, 8, 1)
    trajectories: int = 0
    category: str | None = None
    split: str | None = None
    first_seed: int = 0


_COMPOSITIONAL = Preset(
    "table 1 of arXiv 2503.19385: compositional prompts",
    "scenes-composition",
    "genai-bench-compositional",
    "caption",
    "vqascore",
    ("judge", "caption-judge"),
    ("vqascore-instructblip", "aesthetic"),
    table_arms,
    prompts=100,
)
_HARD = replace(
    _COMPOSITIONAL,
    about="all searches at 50, 100 and 200 NFE on hard prompts, along the linear interpolant and along VP",
    suite="scenes-hard",
    held_out=("judge",),
    arms=hard_arms,
    prompts=None,
    real_prompts=100,
    seeds=4,
    quick=(100, 8, 1),
    category="hard",
    split="confirmation",
    first_seed=1000,
)
_QUANTITY = replace(
    _COMPOSITIONAL,
    about="table 2 of arXiv 2503.19385: prompts that ask for numbers of things",
    suite="scenes-quantity",
    real="t2i-compbench-numeracy",
    real_prompts=100,
    reward="count",
    real_reward="counting",
    held_out=("judge",),
    real_held_out=("vqascore", "aesthetic"),
)
_AESTHETIC = replace(
    _COMPOSITIONAL,
    about="table 3 of arXiv 2503.19385: a differentiable reward, with and without its gradient",
    suite="scenes-aesthetic",
    real="prompts",
    reward="colorfulness",
    real_reward="aesthetic",
    held_out=("judge", "caption-judge"),
    real_held_out=("image-reward",),
    arms=aesthetic_arms,
    prompts=60,
)
PRESETS: dict[str, Preset] = {
    "table-compositional": _COMPOSITIONAL,
    "paper": replace(
        _COMPOSITIONAL,
        about="table 1 of arXiv 2503.19385 with every setting as its release has it",
        arms=published_arms,
    ),
    "table-quantity": _QUANTITY,
    "table-aesthetic": _AESTHETIC,
    "ablation-vp": replace(
        _COMPOSITIONAL,
        about="section 5 of arXiv 2503.19385: which parts of the VP-SDE help",
        arms=vp_arms,
        trajectories=16,
    ),
    "nfe-scaling": replace(
        _COMPOSITIONAL,
        about="reward against budget, from 50 to 1,000 NFE",
        arms=lambda nfe: scaling_arms(tuple(n for n in (50, 100, 200, 500, 1000) if n <= nfe)),
        nfe=1000,
        prompts=60,
        quick=(100, 6, 1),
    ),
    "hard": _HARD,
    "surrogates": replace(
        _HARD,
        about="the default search on hard prompts by rewards that mislead less, and with a final choice",
        arms=surrogate_arms,
        nfe=60,
        quick=(60, 8, 1),
    ),
    "pool": replace(
        _COMPOSITIONAL,
        about="a budget that easy, medium and hard prompts share, and the same budget split evenly",
        suite="scenes-mixed",
        held_out=("judge",),
        arms=pool_arms,
        nfe=150,
        prompts=None,
        real_prompts=100,
        seeds=2,
        quick=(60, 9, 1),
        first_seed=1000,
    ),
    "searches": replace(
        _QUANTITY,
        about="all dynamics with and without a search, by difficulty of the prompts",
        arms=search_arms,
        nfe=200,
        prompts=None,
    ),
    "init": replace(
        _COMPOSITIONAL, about="searches from one and from several initial noises", arms=initial_arms, prompts=60
    ),
}
"""Experiments by name."""


def experiment_of(
    preset: str,
    model: str,
    *,
    family: str | None,
    quick: bool = False,
    suite: str | None = None,
    category: str | None = None,
    split: str | None = None,
    reward: str | None = None,
    held_out: tuple[str, ...] | None = None,
    nfe: int | None = None,
    prompts: int | None = None,
    seeds: int | None = None,
    first_seed: int | None = None,
    distance: str | None = None,
    pool: Pool | None = None,
    surrogate: str | bool | None = None,
    choose_by: str | None = None,
    max_rows: int,
    pipeline: Mapping[str, Any] | None = None,
) -> Experiment:
    """Return the experiment of a preset on a model; arguments other than None override the preset.

    Args:
        preset: Name of the preset, from ``PRESETS``.
        model: Name of the flow model.
        family: ``suite_family`` of the model, which selects the preset's prompts and rewards.
        quick: Whether to use the small form of the preset.
        suite: Suite of prompts; one that is given is taken whole unless a category or a split is given, too.
        category: Category of the suite.
        split: Part of the suite, ``tuning`` or ``confirmation``.
        reward: Reward that searches optimise.
        held_out: Rewards that no search sees.
        nfe: Budget of every search, in NFE.
        prompts: Number of prompts to take from the suite.
        seeds: Number of seeds per prompt.
        first_seed: First of the seeds.
        distance: Distance between samples if the preset measures diversity; ``none`` measures nothing.
        pool: Pool that the jobs of one arm and seed share.
        surrogate: Reward that all searches optimise in place of the reward (``Arm.surrogate``).
        choose_by: Second reward, which chooses among the last candidates of every search.
        max_rows: Number of rows in every call of the model.
        pipeline: Settings of ``PipelineSource`` if the model is a diffusers pipeline.

    Raises:
        UnknownName: If the preset or the suite is unknown.
        BadSetting: If the suite has no prompts of the category.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    known, embedded = PRESETS[preset], family == "scenes"
    full = known.nfe, known.prompts if embedded else known.real_prompts, known.seeds
    own = known.quick if quick else full
    if suite is None and embedded:
        category, split = category or known.category, split or known.split
    wanted = load((known.suite if embedded else known.real) if suite is None else suite)
    wanted = wanted if category is None else wanted.only(category)
    wanted = wanted if split is None else wanted.split(split)
    arms = known.arms(nfe or own[0])
    told: dict[str, Any] = {"surrogate": surrogate, "choose_by": choose_by}
    told = {name: value for name, value in told.items() if value is not None}
    arms = tuple(arm if arm.nfe is None else replace(arm, **told) for arm in arms)
    count, distance = prompts or own[1], ("scenes" if embedded else "lpips") if distance is None else distance
    return Experiment(
        preset,
        model,
        (known.reward if embedded else known.real_reward) if reward is None else reward,
        held_out if held_out is not None else known.held_out if embedded else known.real_held_out,
        wanted if count is None else wanted.first(count),
        arms,
        seeds or own[2],
        max_rows,
        pipeline or {},
        Spread(known.trajectories, distance) if known.trajectories and distance != "none" else None,
        pool,
        known.first_seed if first_seed is None else first_seed,
    )

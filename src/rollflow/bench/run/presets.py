"""The experiments of the paper (Kim et al. 2025, arXiv 2503.19385), on any model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from rollflow.bench.run.experiment import Arm, Experiment, Spread
from rollflow.bench.suites.load import load
from rollflow.defaults import DEFAULT_STEPS
from rollflow.errors import unknown


class DynamicsSettings(TypedDict):
    """Settings of an ``Arm`` that name its dynamics."""

    interpolant: str
    kernel: str


DYNAMICS: dict[str, DynamicsSettings] = {
    "Linear-ODE": {"interpolant": "linear", "kernel": "ode"},
    "Linear-SDE": {"interpolant": "linear", "kernel": "sde"},
    "VP-SDE": {"interpolant": "vp", "kernel": "sde"},
}
"""The three dynamics of the paper's tables."""

TABLE_METHODS = {"SMC": "smc", "CoDe": "code", "SVDD": "svdd", "RBF": "rbf"}
PLAIN = Arm("plain")
_VP_NOISE = "sde(diffusion=converted(latest=0.97))"
ONE = 2 * DEFAULT_STEPS - 1
"""NFE that suffice for one trajectory and its finishing, but not for two."""


def table_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the arms of tables 1 and 2: best of N and search over paths on the ODE, the others on all dynamics."""
    ode = DYNAMICS["Linear-ODE"]
    arms = [
        PLAIN,
        Arm("BoN, Linear-ODE", "bon", nfe, **ode),
        Arm("SoP, Linear-ODE", "paths", nfe, **ode),
    ]
    for name, dynamics in DYNAMICS.items():
        arms += [Arm(f"{method}, {name}", text, nfe, **dynamics) for method, text in TABLE_METHODS.items()]
    return tuple(arms)


def aesthetic_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the arms of the aesthetic table: gradients alone and combined with searches."""
    arms = [PLAIN, Arm("BoN, Linear-ODE", "bon", nfe, **DYNAMICS["Linear-ODE"])]
    for name in ("Linear-SDE", "VP-SDE"):
        of = DYNAMICS[name]
        arms += [
            Arm(f"DPS, {name}", "bon", ONE, **of, guidance="dps"),
            Arm(f"BoN + DPS, {name}", "bon", nfe, **of, guidance="dps"),
            Arm(f"SVDD, {name}", "svdd", nfe, **of),
            Arm(f"SVDD + DPS, {name}", "svdd", nfe, **of, guidance="dps"),
            Arm(f"RBF, {name}", "rbf", nfe, **of),
            Arm(f"RBF + DPS, {name}", "rbf", nfe, **of, guidance="dps"),
        ]
    return tuple(arms)


def vp_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the arms of section 5: the VP-SDE's time grid, its diffusion coefficient, and both."""
    linear, vp = DYNAMICS["Linear-SDE"], DYNAMICS["VP-SDE"]
    return (
        PLAIN,
        Arm("RBF, Linear-SDE", "rbf", nfe, **linear),
        Arm("RBF, VP's grid only", "rbf", nfe, **linear, grid="matched"),
        Arm(
            "RBF, VP's diffusion only", "rbf", nfe, interpolant="linear", kernel="sde(diffusion=converted(latest=0.97))"
        ),
        Arm("RBF, VP-SDE", "rbf", nfe, **vp),
    )


def scaling_arms(budgets: tuple[int, ...]) -> tuple[Arm, ...]:
    """Return arms at several budgets; the smallest ones do not allow the paper's 25 initial noises per chain."""
    arms = [PLAIN]
    for nfe in budgets:
        arms.append(Arm(f"BoN, Linear-ODE, {nfe}", "bon", nfe, **DYNAMICS["Linear-ODE"]))
        for name in ("Linear-SDE", "VP-SDE"):
            rbf = f"rbf(initial={max(1, min(25, nfe // 8))})"
            arms.append(Arm(f"SVDD, {name}, {nfe}", "svdd", nfe, **DYNAMICS[name]))
            arms.append(Arm(f"RBF, {name}, {nfe}", rbf, nfe, **DYNAMICS[name]))
    return tuple(arms)


def initial_arms(nfe: int) -> tuple[Arm, ...]:
    """Return arms with and without several initial noises."""
    arms = [PLAIN]
    for name in ("Linear-SDE", "VP-SDE"):
        arms += [
            Arm(f"RBF, {name}, 25 noises", "rbf(initial=25)", nfe, **DYNAMICS[name]),
            Arm(f"RBF, {name}, one noise", "rbf(initial=1)", nfe, **DYNAMICS[name]),
            Arm(f"SVDD, {name}", "svdd", nfe, **DYNAMICS[name]),
        ]
    return tuple(arms)


def search_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the arms for each dynamics: one trajectory, best of N, SVDD and RBF."""
    dynamics = DYNAMICS | {"Linear-DDIM(1)": DynamicsSettings(interpolant="linear", kernel="ddim")}
    arms = []
    for name, of in dynamics.items():
        arms += [
            Arm(f"one trajectory, {name}", "bon", ONE, **of),
            Arm(f"BoN, {name}", "bon", nfe, **of),
            Arm(f"SVDD, {name}", "svdd", nfe, **of),
            Arm(f"RBF, {name}", "rbf", nfe, **of),
        ]
    return tuple(arms)


@dataclass(frozen=True)
class Preset:
    """An experiment without its model.

    Args:
        about: Description in one line.
        suite: Suite of prompts for the embedded model.
        real: Suite of prompts for a diffusers pipeline.
        reward: Reward for the embedded model.
        real_reward: Reward for a pipeline.
        held_out: Held-out rewards for the embedded model.
        real_held_out: Held-out rewards for a pipeline.
        arms: Function from the budget in NFE to the arms.
        nfe: Budget in NFE.
        prompts: Number of prompts for the embedded model; None uses the whole suite.
        real_prompts: Number of prompts for a pipeline; None uses the whole suite.
        seeds: Number of seeds per prompt.
        quick: Budget, prompts and seeds of ``--quick``.
        trajectories: Trajectories per prompt for measuring diversity; 0 measures nothing.
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


_COMPOSITIONAL = Preset(
    "table 1: compositional prompts",
    "scenes-composition",
    "genai-bench-compositional",
    "caption",
    "vqascore",
    ("judge", "caption-judge"),
    ("vqascore-instructblip", "aesthetic"),
    table_arms,
    prompts=100,
)
_QUANTITY = replace(
    _COMPOSITIONAL,
    about="table 2: how many of each",
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
    about="table 3: a differentiable reward, with gradients and without",
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
    "table-quantity": _QUANTITY,
    "table-aesthetic": _AESTHETIC,
    "ablation-vp": replace(_COMPOSITIONAL, about="section 5: what of the VP-SDE helps", arms=vp_arms, trajectories=16),
    "nfe-scaling": replace(
        _COMPOSITIONAL,
        about="reward against budget, 50 to 1,000 NFE",
        arms=lambda nfe: scaling_arms(tuple(n for n in (50, 100, 200, 500, 1000) if n <= nfe)),
        nfe=1000,
        prompts=60,
        quick=(100, 6, 1),
    ),
    "searches": replace(
        _QUANTITY,
        about="every dynamics with and without searches, by difficulty",
        arms=search_arms,
        nfe=200,
        prompts=None,
    ),
    "init": replace(_COMPOSITIONAL, about="with first draws of noise and without", arms=initial_arms, prompts=60),
}
"""Experiments by name."""


def experiment_of(
    preset: str,
    model: str,
    *,
    family: str | None,
    quick: bool = False,
    suite: str | None = None,
    reward: str | None = None,
    held_out: tuple[str, ...] | None = None,
    nfe: int | None = None,
    prompts: int | None = None,
    seeds: int | None = None,
    distance: str | None = None,
    max_rows: int,
    pipeline: Mapping[str, Any] | None = None,
) -> Experiment:
    """Return the experiment of a preset on a model; arguments that are given override the preset.

    Args:
        preset: Name of the preset, from ``PRESETS``.
        model: Name of the flow model.
        family: ``suite_family`` of the model; models of ``scenes`` have their own prompts and rewards.
        quick: Whether to use the small form of the preset.
        suite: Suite of prompts.
        reward: Reward that searches optimise.
        held_out: Rewards that no search sees.
        nfe: Budget of every search, in NFE.
        prompts: Number of prompts from the suite.
        seeds: Number of seeds per prompt.
        distance: Distance between samples if the preset measures diversity; ``none`` measures nothing.
        max_rows: Rows of every call of the model.
        pipeline: Settings that load and call a diffusers pipeline.

    Raises:
        UnknownName: If the preset or the suite is unknown.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    known, embedded = PRESETS[preset], family == "scenes"
    full = known.nfe, known.prompts if embedded else known.real_prompts, known.seeds
    own = known.quick if quick else full
    wanted = load((known.suite if embedded else known.real) if suite is None else suite)
    count, distance = prompts or own[1], ("scenes" if embedded else "lpips") if distance is None else distance
    return Experiment(
        preset,
        model,
        (known.reward if embedded else known.real_reward) if reward is None else reward,
        held_out if held_out is not None else known.held_out if embedded else known.real_held_out,
        wanted if count is None else wanted.first(count),
        known.arms(nfe or own[0]),
        seeds or own[2],
        max_rows,
        pipeline or {},
        Spread(known.trajectories, distance) if known.trajectories and distance != "none" else None,
    )

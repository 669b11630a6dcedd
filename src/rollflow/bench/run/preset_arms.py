"""Arms of the preset experiments."""

from __future__ import annotations

from typing import TypedDict

from rollflow.bench.run.experiment import Arm
from rollflow.defaults import DEFAULT_STEPS


class DynamicsSettings(TypedDict):
    """Settings of an ``Arm`` that name its dynamics."""

    interpolant: str
    kernel: str
    steps: int


DYNAMICS: dict[str, DynamicsSettings] = {
    "Linear-ODE": {"interpolant": "linear", "kernel": "ode", "steps": DEFAULT_STEPS},
    "Linear-SDE": {"interpolant": "linear", "kernel": "sde", "steps": DEFAULT_STEPS},
    "VP-SDE": {"interpolant": "vp", "kernel": "sde", "steps": DEFAULT_STEPS},
}
"""Dynamics of the tables of arXiv 2503.19385."""

TABLE_METHODS = {"SMC": "smc", "CoDe": "code", "SVDD": "svdd", "RBF": "rbf"}
PLAIN = Arm("plain", steps=DEFAULT_STEPS)
_VP_NOISE = "sde(diffusion=converted(latest=0.97))"
ONE = 2 * DEFAULT_STEPS - 1
"""NFE that suffice for one trajectory and its finishing, but not for two."""


def table_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the arms of tables 1 and 2: best of N and search over paths with the ODE, the others with all dynamics."""
    ode = DYNAMICS["Linear-ODE"]
    arms = [
        PLAIN,
        Arm("BoN, Linear-ODE", "bon", nfe, **ode),
        Arm("SoP, Linear-ODE", "paths", nfe, **ode),
    ]
    for name, dynamics in DYNAMICS.items():
        arms += [Arm(f"{method}, {name}", text, nfe, **dynamics) for method, text in TABLE_METHODS.items()]
    return tuple(arms)


def published_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the arms of ``table_arms`` with every setting as in the release of arXiv 2503.19385."""
    from rollflow.dynamics.interpolants import INTERPOLANTS
    from rollflow.search import SEARCHES
    from rollflow.search.published import as_published, published_sampler

    def arm(label: str, method: str, name: str) -> Arm:
        search, dynamics = as_published(SEARCHES.make(method)), DYNAMICS[name]
        sampler = published_sampler(search, INTERPOLANTS.make(dynamics["interpolant"]))
        text = SEARCHES.text(search)
        return Arm(f"{label}, {name}", text, nfe, **dynamics, grid=sampler.grid, finish=sampler.finish)

    arms = [PLAIN, arm("BoN", "bon", "Linear-ODE"), arm("SoP", "paths", "Linear-ODE")]
    arms += [arm(label, method, name) for name in DYNAMICS for label, method in TABLE_METHODS.items()]
    return tuple(arms)


def aesthetic_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the arms of table 3: gradients alone and combined with searches."""
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
    """Return the arms of section 5: RBF with the VP-SDE's time grid, with its diffusion coefficient, and with both."""
    linear, vp = DYNAMICS["Linear-SDE"], DYNAMICS["VP-SDE"]
    return (
        PLAIN,
        Arm("RBF, Linear-SDE", "rbf", nfe, **linear),
        Arm("RBF, VP's grid only", "rbf", nfe, **linear, grid="matched"),
        Arm(
            "RBF, VP's diffusion only",
            "rbf",
            nfe,
            interpolant="linear",
            kernel="sde(diffusion=converted(latest=0.97))",
            steps=DEFAULT_STEPS,
        ),
        Arm("RBF, VP-SDE", "rbf", nfe, **vp),
    )


def scaling_arms(budgets: tuple[int, ...]) -> tuple[Arm, ...]:
    """Return arms at several budgets; small ones have fewer than the paper's 25 initial noises per chain."""
    arms = [PLAIN]
    for nfe in budgets:
        arms.append(Arm(f"BoN, Linear-ODE, {nfe}", "bon", nfe, **DYNAMICS["Linear-ODE"]))
        for name in ("Linear-SDE", "VP-SDE"):
            rbf = f"rbf(initial={max(1, min(25, nfe // 8))})"
            arms.append(Arm(f"SVDD, {name}, {nfe}", "svdd", nfe, **DYNAMICS[name]))
            arms.append(Arm(f"RBF, {name}, {nfe}", rbf, nfe, **DYNAMICS[name]))
    return tuple(arms)


def initial_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the arms with one and with several initial noises."""
    arms = [PLAIN]
    for name in ("Linear-SDE", "VP-SDE"):
        arms += [
            Arm(f"RBF, {name}, 25 noises", "rbf(initial=25)", nfe, **DYNAMICS[name]),
            Arm(f"RBF, {name}, one noise", "rbf(initial=1)", nfe, **DYNAMICS[name]),
            Arm(f"SVDD, {name}", "svdd", nfe, **DYNAMICS[name]),
        ]
    return tuple(arms)


def search_arms(nfe: int) -> tuple[Arm, ...]:
    """Return four arms for each dynamics: one trajectory, best of N, SVDD and RBF."""
    dynamics = DYNAMICS | {"Linear-DDIM(1)": DynamicsSettings(interpolant="linear", kernel="ddim", steps=DEFAULT_STEPS)}
    arms = []
    for name, of in dynamics.items():
        arms += [
            Arm(f"one trajectory, {name}", "bon", ONE, **of),
            Arm(f"BoN, {name}", "bon", nfe, **of),
            Arm(f"SVDD, {name}", "svdd", nfe, **of),
            Arm(f"RBF, {name}", "rbf", nfe, **of),
        ]
    return tuple(arms)

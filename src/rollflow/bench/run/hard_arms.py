"""Arms of the comparison of all searches at small budgets on hard prompts."""

from __future__ import annotations

from rollflow.bench.run.experiment import Arm
from rollflow.bench.run.preset_arms import DYNAMICS, PLAIN, DynamicsSettings
from rollflow.defaults import DEFAULT_STEPS

BUDGETS = (50, 100, 200)
"""Budgets in NFE at which searches are compared."""
SMALLEST = (40, 60)
"""Budgets at which the default search is run, too."""
SEARCHED = {
    "SVDD(1)": "svdd(streams=1)",
    "SVDD(2)": "svdd(streams=2)",
    "CoDe": "code",
    "SMC": "smc",
    "BFS": "bfs",
    "demon": "demon",
}
"""Searches whose settings do not depend on the budget."""
_DYNAMICS: dict[str, DynamicsSettings] = {
    "DDIM": {"interpolant": "linear", "kernel": "ddim", "steps": DEFAULT_STEPS},
    "VP": DYNAMICS["VP-SDE"],
}


def hard_arms(nfe: int) -> tuple[Arm, ...]:
    """Return all searches at the budgets up to ``nfe``, and best of N with ``nfe``.

    Along the linear interpolant with DDIM, and along VP with the reverse SDE, the dynamics of arXiv 2503.19385; best of
    N with the ODE. Along VP, RBF is also run as published, and with what helps beams. ``auto`` has its own noise levels
    and, along the linear interpolant, its own kernel. The name of an arm ends in its budget.
    """
    budgets = [one for one in BUDGETS if one <= nfe]
    arms = [
        PLAIN,
        *(Arm(f"BoN, {one}", "bon", one, **DYNAMICS["Linear-ODE"]) for one in dict.fromkeys((*budgets, nfe))),
    ]
    for name, dynamics in _DYNAMICS.items():
        for label, method in SEARCHED.items():
            arms += [Arm(f"{label}, {name}, {one}", method, one, **dynamics) for one in budgets]
        arms += [Arm(f"RBF, {name}, {one}", f"rbf({_initial(one)})", one, **dynamics) for one in budgets]
    arms += [_published(one) for one in budgets]
    better = "quota=gain, recombine=true"
    arms += [
        Arm(f"RBF improved, VP, {one}", f"rbf({_initial(one)}, {better})", one, **_DYNAMICS["VP"]) for one in budgets
    ]
    arms += [Arm(f"auto, {one}", "auto", one) for one in sorted({*budgets, *(one for one in SMALLEST if one <= nfe)})]
    arms += [Arm(f"auto, VP, {one}", "auto", one, interpolant="vp", kernel="sde") for one in budgets]
    return tuple(arms)


def _initial(nfe: int) -> str:
    """Return the setting of initial noises: 25 as in the paper from 200 NFE on, below that a quarter of the budget."""
    return f"initial={max(1, min(25, nfe // 8))}"


def _published(nfe: int) -> Arm:
    """Return RBF as in the release of arXiv 2503.19385, up to the initial noises of small budgets."""
    dynamics = _DYNAMICS["VP"]
    method = f"rbf({_initial(nfe)}, quota=published)"
    return Arm(f"RBF as published, VP, {nfe}", method, nfe, **dynamics, grid="arc", finish=False)


def _improved(nfe: int) -> Arm:
    """Return RBF with quotas in proportion to the sibling gain and with recombination."""
    method = f"rbf({_initial(nfe)}, quota=gain, recombine=true)"
    return Arm(f"RBF improved, VP, {nfe}", method, nfe, **_DYNAMICS["VP"])

"""The arms of the comparison on the compositional toy: every search that is registered."""

from __future__ import annotations

from rollflow.bench.probes.arms import ODE, SDE, ProbeArm, paths, rollover
from rollflow.bench.probes.composition import Composition
from rollflow.sampler import Sampler
from rollflow.search import SEARCHES

TEMPERATURE = 0.5
"""Temperature of searches that draw by weights, in units of what one group adds to the reward."""


def composition_arms(setting: Composition, *, smooth: bool) -> dict[str, ProbeArm]:
    """Return the arms by label: those below, and every other search of the library with its own settings.

    Args:
        setting: Toy that they are run on.
        smooth: Whether the reward is the smooth one, whose unit temperatures and thresholds follow.
    """
    group = setting.group_reward(smooth=smooth)
    warm = f"temperature={TEMPERATURE * group:.6g}"
    rising = f"thresholds={-(1 - setting.weight) * setting.groups * group:.6g};{-group / 2:.6g}"
    arms = {
        "best of N": _arm("bon"),
        "best of N, ODE": _arm("bon", ODE),
        "halving, ODE": _arm("halving", ODE),
        "halving, four brackets, ODE": _arm("halving(brackets=4)", ODE),
        "zero-order, ODE": _arm("zero-order", ODE),
        "search over paths, ODE": ProbeArm(ODE, paths),
        "SMC": _arm(f"smc({warm})"),
        "BFS": _arm(f"bfs({warm})"),
        "CoDe": _arm("code"),
        "SVDD, 1 stream": _arm("svdd(streams=1)"),
        "SVDD, 2 streams": _arm("svdd(streams=2)"),
        "SVDD, 2 streams, recombination": _arm("svdd(recombine=true)"),
        "RBF": ProbeArm(SDE, rollover),
        "demon": _arm("demon"),
        "demon, Boltzmann weights": _arm("demon(weights=boltzmann)"),
        "epsilon-greedy": _arm("epsilon-greedy"),
        "DFS": _arm(f"dfs({rising})"),
        "verifier threshold": _arm(f"threshold({rising})"),
        "beam, 1 parent": _arm("beam(parents=1, recombine=false)"),
        "beam, 1 parent, recombination": _arm("beam(parents=1)"),
        "beam, 2 parents": _arm("beam(recombine=false)"),
        "beam, 2 parents, recombination": _arm("beam"),
        "auto, its own levels and kernel": _arm("auto", None),
    }
    compared = {type(arm.search(1)) for arm in arms.values()}
    return arms | {name: _arm(name) for name, search in SEARCHES.items() if search not in compared}


def _arm(text: str, sampler: Sampler | None = SDE) -> ProbeArm:
    """Return an arm with a search, given as text, whose settings do not depend on the budget."""
    search = SEARCHES.make(text)
    return ProbeArm(sampler, lambda nfe: search)


COMPOSITION_SETTINGS = f"""\
Searches have their default settings, along the reverse SDE of the linear interpolant by Euler-Maruyama with 10 uniform
steps (ODE: by Euler's method) unless the row says more, and the same noise for equal seeds.

- A temperature is {TEMPERATURE:g} times what one more right group adds to the reward.
- DFS and verifier threshold: the threshold rises linearly from the mean of samples at noise level 1 to half a wrong
  group at 0. They may stop before the budget is spent.
- RBF: initial noises as in the [mixture](mixture.md)'s table; search over paths likewise.
- Beam: with recombination one child of every step that has at least four has a noise made of those of the others. With
  one parent and without recombination it is SVDD with one stream.
- auto has no profile of this model, so that it is a beam at the noise levels of the default curve, along DDIM.
- "needs n": the search cannot run within the budget with these settings; n is the smallest budget for which it can.
"""
"""Notes on the settings of the arms, printed with the table."""

"""Successive halving against trajectories that all run to the end, and how it divides a budget."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.loops import NOTHING, State, best, stepper

from rollflow.dynamics.grids import Arc
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import DDIM, Euler, EulerMaruyama, GaussianKernel
from rollflow.engine import Engine, Job, Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN, Cost, Halving
from rollflow.search.rungs import Rungs, fractions_of, widths_of

REWARD = ToyReward(torch.tensor([1.0, 1.5]))


def shares(search: Halving, times: list[float], finish_nfe: int) -> list[list[float]]:
    return fractions_of(Rungs(search.rungs, search.kept), times, finish_nfe, search.brackets)


def counts(search: Halving, times: list[float], finish_nfe: int, surplus: int) -> list[list[int]]:
    return widths_of(shares(search, times, finish_nfe), surplus)


def trajectories(model: ToyModel, kernel: GaussianKernel, steps: int, count: int) -> list[list[State]]:
    noise, step = Noise(6, 0, model.shape, model.dtype), stepper(model, "corners", REWARD, kernel, steps)
    found = []
    for i in range(count):
        states = [step(NOTHING, 0, noise.normal(0, i, 0)[None])]
        for k in range(1, steps):
            states.append(step(states[-1], k, noise.normal(k, i, 0)[None]))
        found.append(states)
    return found


@pytest.mark.parametrize("kernel", [Euler(), EulerMaruyama()], ids=str)
@pytest.mark.parametrize("brackets", [1, 2, 3])
def test_pruning_whole_trajectories_gives_the_same_bits(plane: ToyModel, kernel: GaussianKernel, brackets: int) -> None:
    """Rungs after the evaluations at 0.75 and 0.5 of four."""
    search, sampler = Halving((0.75, 0.5), (0.5, 0.25), brackets), Sampler(Linear(), kernel, steps=4)
    dynamics = sampler.bind(plane)
    surplus = next(n for n in range(99, 0, -1) if search.price(dynamics, n).nfe <= 60)
    widths = counts(search, [1, 0.75, 0.5, 0.25], 0, surplus)
    whole = trajectories(plane, kernel, 4, sum(of[0] for of in widths))
    ends, first = [], 0
    for of in widths:
        alive = whole[first : first + of[0]]
        first += of[0]
        for k in (1, 2):
            alive = sorted(alive, key=lambda one: -one[k].reward)[: of[k + 1]]
        ends += [one[-1] for one in alive]
    (result,) = Engine().run([Job(Task(plane, "corners", REWARD), search, 60, 6, sampler)])
    assert torch.equal(result.sample, best(ends).x0[0])
    assert result.spent.nfe == sum(map(sum, widths)) - sum(of[-1] for of in widths)
    assert len(ends) > 3 * brackets - 2


@pytest.mark.parametrize(
    "search", [Halving((), ()), Halving((0.6,), (1.0,)), Halving((0.6, 0.2), (0.5, 0.5), 3)], ids=repr
)
def test_without_rungs_it_is_best_of_n(plane: ToyModel, search: Halving) -> None:
    """The last of all brackets, too, though it has a third of the budget."""
    task, sampler = Task(plane, "corners", REWARD), Sampler(Linear(), DDIM(0.5), steps=5)
    dynamics = sampler.bind(plane)
    if search.brackets > 1:
        assert len(set(counts(search, [1, 0.8, 0.6, 0.4, 0.2], 0, 20)[-1])) == 1
        return
    ours, theirs = Engine().run([Job(task, one, 52, 4, sampler) for one in (search, BestOfN())])
    assert torch.equal(ours.sample, theirs.sample)
    assert search.cost(dynamics, 52).nfe == BestOfN().cost(dynamics, 52).nfe == 50


def test_how_a_budget_is_divided() -> None:
    """Ten uniform steps: rungs after evaluations 4, 6 and 9 of ten, at which half, a quarter and an eighth go on."""
    levels = [1 - k / 10 for k in range(10)]
    [of] = shares(Halving(), levels, 0)
    assert [round(share / of[0], 9) for share in of] == [1] * 4 + [0.5] * 2 + [0.25] * 3 + [0.125] * 2
    [widths] = counts(Halving(), levels, 0, 16 + 8 + 4 + 2 - 4)
    assert widths == [16] * 4 + [8] * 2 + [4] * 3 + [2] * 2


def test_brackets_cost_the_same() -> None:
    fractions = shares(Halving(brackets=4), [1 - k / 10 for k in range(10)], 3)
    assert [sum(of[:10]) + 3 * of[10] for of in fractions] == pytest.approx([1, 1, 1, 1])
    assert [len(set(of)) for of in fractions] == [4, 3, 2, 1]


def test_a_rung_at_the_last_evaluation_saves_finishing(plane: ToyModel) -> None:
    """Only if finishing costs anything; and those that are reached by no evaluation play no part."""
    search = Halving((0.3, 0.001), (0.5, 0.1))
    assert [len(set(of)) for of in shares(search, [1, 0.6, 0.3], 0)] == [1]
    assert [len(set(of)) for of in shares(search, [1, 0.6, 0.3], 2)] == [2]
    dynamics = Sampler(Linear(), Euler(), Arc(), 3).bind(plane)
    assert dynamics.finish_nfe > 0
    stages = Halving((dynamics.last_noise_level,), (0.5,)).schedule(dynamics, 4)
    assert [stage.rows for stage in stages.stages] == [4, 4, 4]
    assert [stage.score for stage in stages.stages] == [False, False, True]
    assert stages.finished == 2


def test_only_rungs_and_ends_are_scored(plane: ToyModel) -> None:
    dynamics = Sampler(Linear(), Euler(), steps=4).bind(plane)
    search = Halving((0.75,), (0.5,))
    assert search.schedule(dynamics, 4).finished == 2
    assert search.price(dynamics, 4) == Cost(4 + 4 + 2 + 2, 4 + 2, 4 + 2)


@given(
    st.lists(st.floats(0.01, 1), unique=True, max_size=4),
    st.lists(st.floats(0.02, 1), min_size=4, max_size=4),
    st.integers(1, 12),
    st.integers(0, 3),
    st.integers(0, 200),
    st.integers(1, 5),
)
def test_budgets(rungs: list[float], kept: list[float], steps: int, finish: int, surplus: int, brackets: int) -> None:
    """Trajectories never come back, every bracket keeps one, and one unit more costs no more than the longest run."""
    falling = tuple(sorted(rungs, reverse=True))
    search = Halving(falling, tuple(sorted(kept, reverse=True)[: len(rungs)]), min(brackets, len(rungs) + 1))
    fractions = shares(search, [1 - k / steps for k in range(steps)], finish)
    widths, more = (widths_of(fractions, n) for n in (surplus, surplus + 1))
    assert all(a >= b >= 1 for of in widths for a, b in pairwise(of))
    assert all(a <= b for of, then in zip(widths, more, strict=True) for a, b in zip(of, then, strict=True))
    changed = [b - a for of, then in zip(widths, more, strict=True) for a, b in zip(of, then, strict=True)]
    assert sum(len(list(run)) > 0 and one for one, run in groupby(changed)) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (((0.5, 0.5), (0.5, 0.2)), "rungs of halving must be noise levels that fall strictly"),
        (((1.2,), (0.5,)), "rungs of halving must be noise levels that fall strictly"),
        (((0.5, 0.0), (0.5, 0.2)), "rungs of halving must be noise levels that fall strictly"),
        (((0.5,), (0.5, 0.2)), "kept of halving must be 1 shares, one for each rung"),
        (((0.5, 0.2), (0.5, 0.6)), r"kept\[1\] of halving must be a finite number > 0 and <= 0.5, not 0.6"),
        (((0.5,), (0.0,)), r"kept\[0\] of halving must be a finite number > 0 and <= 1.0, not 0.0"),
        (((0.5,), (0.5,), 3), "brackets of halving with 1 rungs must be a whole number <= 2, not 3"),
    ],
)
def test_settings_out_of_range(settings: tuple[tuple[float, ...], ...], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        Halving(*settings)  # type: ignore[arg-type]

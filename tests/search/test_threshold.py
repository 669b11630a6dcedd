"""Verifier threshold against a plain loop, and that it never spends more than its budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loops import NOTHING, State, best, stepper
from torch import Tensor

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Linear
from rollflow.dynamics.kernels import GLASS, Euler, EulerMaruyama, Heun
from rollflow.dynamics.lookahead import ODELookahead, Tweedie
from rollflow.engine import Engine, Job, Task, estimate_cost
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import DFS, Search, VerifierThreshold
from rollflow.testing.jobs import JUDGE, MODEL
from rollflow.testing.reference import alone

REWARD = ToyReward(torch.tensor([1.0, 1.5]))
LEVELS = [1.0, 0.75, 0.5, 0.25]


def plain(model: ToyModel, thresholds: list[float], nfe: int, share: float) -> tuple[Tensor, list[int]]:
    """The sample, and the draws of each of four steps; ``thresholds`` are those of the steps."""
    noise, step = Noise(8, 0, model.shape, model.dtype), stepper(model, "corners", REWARD, EulerMaruyama(), 4)
    state, draws = NOTHING, list[int]()
    for k in range(4):
        drawn: list[State] = []
        most = 1 + math.floor((share if k < 3 else 1) * (nfe - sum(draws) - (4 - k)))
        while not drawn or (best(drawn).reward < thresholds[k] and len(drawn) < most):
            drawn.append(step(state, k, noise.normal(k, 0, len(drawn))[None]))
        state = best(drawn)
        draws.append(len(drawn))
    return state.x0[0], draws


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
@pytest.mark.parametrize(
    ("thresholds", "at_steps"),
    [
        ((0.0,), [0.0] * 4),
        ((-0.5,), [-0.5] * 4),
        ((-100.0,), [-100.0] * 4),
        ((-3.0, -0.2), [-3.0, -2.3, -1.6, -0.9]),
        ((-4.0, -2.0, -0.4), [-4.0, -3.0, -2.0, -1.2]),
    ],
    ids=str,
)
def test_the_plain_loop_gives_the_same_bits(
    plane: ToyModel, thresholds: tuple[float, ...], at_steps: list[float], share: float
) -> None:
    for nfe in (4, 5, 12, 40):
        job = Job(
            Task(plane, "corners", REWARD), VerifierThreshold(thresholds, share), nfe, 8, Sampler(Linear(), steps=4)
        )
        (result,) = Engine().run([job])
        sample, draws = plain(plane, at_steps, nfe, share)
        assert torch.equal(result.sample, sample)
        assert result.spent.nfe == result.spent.reward_calls == sum(draws) <= nfe


def test_a_threshold_that_is_never_reached_spends_everything(plane: ToyModel) -> None:
    """Half of the 36 NFE beyond one trajectory on the first step, half of the rest on the next, and so on."""
    for search, draws in ((VerifierThreshold(), [19, 10, 5, 6]), (VerifierThreshold(share=1.0), [37, 1, 1, 1])):
        assert plain(plane, [0.9] * 4, 40, search.share)[1] == draws
        (result,) = Engine().run([Job(Task(plane, "corners", REWARD), search, 40, 8, Sampler(Linear(), steps=4))])
        assert result.spent.nfe == 40


def test_one_that_is_always_reached_is_one_trajectory(plane: ToyModel) -> None:
    search = VerifierThreshold((-1e9,))
    (result,) = Engine().run([Job(Task(plane, "corners", REWARD), search, 40, 8, Sampler(Linear(), steps=4))])
    assert result.spent.nfe == 4
    cost = search.cost(Sampler(Linear(), steps=4).bind(plane), 40)
    assert (cost.nfe, cost.exact) == (40, False)


def test_thresholds_are_at_equal_distances_of_the_noise_level() -> None:
    search = VerifierThreshold((0.0, 1.0, 4.0))
    for level, threshold in ((1.0, 0.0), (0.75, 0.5), (0.5, 1.0), (0.25, 2.5), (0.0, 4.0)):
        assert search.passes(threshold + 1e-9, level)
        assert not search.passes(threshold - 1e-9, level)
    assert search.passes(1.0, 0.5)


class Whimsical(ToyReward):
    """Rewards without rhyme or reason, between 0 and 1."""

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return (samples.double().sum(1) * 1e4) % 1.0


@settings(max_examples=150)
@given(
    st.sampled_from([VerifierThreshold, DFS]),
    st.lists(st.floats(-0.2, 1.2), min_size=1, max_size=3),
    st.sampled_from([Linear(), VP()]),
    st.sampled_from([Euler(), Heun(), EulerMaruyama(), GLASS(2)]),
    st.integers(1, 5),
    st.sampled_from([Tweedie(), ODELookahead(2)]),
    st.sampled_from([None, DPS(0.1)]),
    st.sampled_from([None, True, False]),
    st.integers(0, 60),
    st.integers(0, 9),
)
@pytest.mark.slow
def test_no_budget_is_exceeded(
    kind: type[VerifierThreshold | DFS],
    thresholds: list[float],
    interpolant: Linear | VP,
    kernel: Euler | Heun | EulerMaruyama | GLASS,
    steps: int,
    lookahead: Tweedie | ODELookahead,
    guidance: DPS | None,
    finish: bool | None,
    spare: int,
    seed: int,
) -> None:
    """Not by one NFE, whatever passes; nor any other part of what is declared. Guidance follows a smooth reward."""
    sampler = Sampler(interpolant, kernel, None, steps, lookahead, finish, guidance)
    reward = JUDGE if guidance else Whimsical()
    search: Search = kind(tuple(9 * t - 9 if guidance else t for t in thresholds))
    if isinstance(search, DFS):
        search = DFS(search.thresholds, start=0.2 + seed / 12, depth=1 + seed % 4)
    nfe = search.smallest_nfe(sampler.bind(MODEL)) + spare
    job = Job(Task(MODEL, "left", reward), search, nfe, seed, sampler)
    spent, told = alone(job).spent, estimate_cost(MODEL, search, sampler, nfe)
    assert told.nfe == nfe
    assert all(getattr(spent, what) <= most for what, most in vars(told).items()), f"{spent} exceeds {told}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), r"thresholds of threshold must be one number or more, not \(\)"),
        (((0.5, float("inf")),), r"thresholds of threshold\[1\] must be a finite number, not inf"),
        (((0.5,), 1.1), "share of threshold must be a finite number >= 0 and <= 1, not 1.1"),
    ],
)
def test_settings_out_of_range(arguments: tuple[tuple[float, ...], float], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        VerifierThreshold(*arguments)

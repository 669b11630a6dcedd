"""Demon: weights by hand, a plain loop, and what combining gains."""

from __future__ import annotations

import math

import pytest
import torch
from support.loops import NOTHING, stepper
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama
from rollflow.engine import Engine, Job, Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import Cost, Demon
from rollflow.search.demon.weights import BoltzmannWeights, NoiseWeights, TanhWeights
from rollflow.search.recombination import combined
from rollflow.testing.searches import Fastidious

REWARD = ToyReward(torch.tensor([1.0, 1.5]))
LOW = -math.inf
RULES: list[NoiseWeights] = [TanhWeights(), TanhWeights(0.3), BoltzmannWeights(), BoltzmannWeights(2.0)]


def rewards(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_tanh_weights_by_hand() -> None:
    """Rewards 0, 1, 5: their mean is 2, and their standard deviation sqrt(7)."""
    away = [-2.0, -1.0, 3.0]
    for rule, a in ((TanhWeights(), math.sqrt(7)), (TanhWeights(0.5), 0.5)):
        torch.testing.assert_close(rule(rewards(0, 1, 5)), rewards(*(math.tanh(x / a) for x in away)))


def test_boltzmann_weights_by_hand() -> None:
    for rule, a in ((BoltzmannWeights(), math.sqrt(7)), (BoltzmannWeights(0.5), 0.5)):
        e = [math.exp(x / a) for x in (0, 1, 5)]
        torch.testing.assert_close(rule(rewards(0, 1, 5)), rewards(*(x / sum(e) for x in e)))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_weights_of_rewards_that_say_nothing(rule: NoiseWeights) -> None:
    """Equal rewards weigh alike, and a sample that must not be chosen has no part in anything."""
    assert rule(rewards(2, 2, 2)).tolist() == [1, 1, 1]
    assert rule(rewards(2)).tolist() == [1]
    assert rule(rewards(LOW, 2, LOW)).tolist() == [0, 1, 0]
    assert rule(rewards(LOW, LOW)).tolist() == [0, 0]
    some, all_of_them = rule(rewards(0, LOW, 1, 5)), rule(rewards(0, 1, 5))
    assert some.tolist() == [all_of_them[0], 0, *all_of_them[1:]]


def test_a_combination_has_the_length_of_a_noise() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    found = combined(z, rewards(3, -2))
    assert found is not None
    torch.testing.assert_close(found, math.sqrt(2) * torch.tensor([[3.0, -4.0]]) / 5)
    assert combined(z, rewards(0, 0)) is None


def plain(model: ToyModel, steps: int, k: int, rule: NoiseWeights) -> Tensor:
    noise, step = Noise(5, 0, model.shape, model.dtype), stepper(model, "pair", REWARD, EulerMaruyama(), steps)
    state = step(NOTHING, 0, noise.normal(0, 0, 0)[None])
    for s in range(1, steps):
        z = [noise.normal(s, 0, j)[None] for j in range(k)]
        weights = rule(rewards(*(step(state, s, one).reward for one in z)))
        w = sum(weight * one.double() for weight, one in zip(weights, z, strict=True))
        assert isinstance(w, Tensor)
        state = step(state, s, (math.sqrt(w.numel()) * w / w.norm()).to(z[0]))
    return state.x0[0]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("steps", "k"), [(4, 5), (3, 1), (1, 1)])
def test_the_plain_loop_gives_the_same_sample(plane: ToyModel, steps: int, k: int, rule: NoiseWeights) -> None:
    nfe = 1 + (steps - 1) * (k + 1)
    (result,) = Engine().run([Job(Task(plane, "pair", REWARD), Demon(rule), nfe, 5, Sampler(Linear(), steps=steps))])
    torch.testing.assert_close(result.sample, plain(plane, steps, k, rule), rtol=1e-5, atol=1e-5)
    assert result.spent.nfe == nfe


def test_a_combination_of_many_gains_more_than_the_best_of_them() -> None:
    """A linear reward of 400 coordinates, where the best of K gains about sqrt(2 ln K) slopes."""
    z = torch.randn(200, 16, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slopes = [combined(one, TanhWeights()(one[:, 0])) for one in z]
    gain = torch.stack([one[0, 0] for one in slopes if one is not None]).mean()
    assert gain > 1.8 * z[:, :, 0].amax(1).mean()
    assert gain < 4  # sqrt(K)


def test_what_it_costs(plane: ToyModel) -> None:
    """4 steps: one state, then K noises and one more at each of 3 transitions; what is left goes to the last ones."""
    dynamics = Sampler(Linear(), steps=4).bind(plane)
    assert Demon().smallest_nfe(dynamics) == 7
    assert Demon().cost(dynamics, 19) == Cost(19, 16, 16)
    assert Demon().cost(dynamics, 20) == Cost(20, 17, 17)
    assert Demon(noises=2).cost(dynamics, 20) == Cost(10, 7, 7)
    assert [stage.rows for stage in Demon().schedule(dynamics, 5).stages] == [1, 2, 1, 3, 1, 3, 1]


@pytest.mark.parametrize("seed", range(8))
def test_a_combination_that_must_not_be_chosen_gives_way_to_a_child(plane: ToyModel, seed: int) -> None:
    """A third of all samples are not numbers to the reward."""
    job = Job(Task(plane, "pair", Fastidious(REWARD.target)), Demon(), 40, seed, Sampler(Linear(), steps=4))
    with pytest.warns(match="could not be chosen"):
        (result,) = Engine().run([job])
    assert result.cause is None
    assert result.reward == float(REWARD.score(result.sample[None], ["pair"]))


def test_along_an_ode_nothing_is_there_to_combine(plane: ToyModel) -> None:
    (few, many) = Engine().run(
        [Job(Task(plane, "pair", REWARD), Demon(), nfe, 5, Sampler(Linear(), Euler(), steps=4)) for nfe in (7, 40)]
    )
    assert torch.equal(few.sample, many.sample)


@pytest.mark.parametrize("rule", [TanhWeights, BoltzmannWeights])
def test_settings_out_of_range(rule: type[NoiseWeights]) -> None:
    with pytest.raises(BadSetting, match=f"temperature of {rule.name} must be a finite number > 0, not 0.0"):
        rule(0.0)
    with pytest.raises(BadSetting, match="noises of demon must be a whole number >= 1, not 0"):
        Demon(rule(), 0)

"""Samplers bound to a model: grids, finishing and look-aheads."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.grids import Arc, Uniform
from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.dynamics.kernels import Euler
from rollflow.dynamics.lookahead import Lookahead, ODELookahead, Tweedie
from rollflow.engine import Engine, Job, Task
from rollflow.errors import BadSetting, RollflowError
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, Request, Velocity, drive
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler, even_shares, linear_shares, weighted_shares
from rollflow.search import SVDD, BestOfN, RolloverBudget, Search

SEARCHES = [BestOfN(), SVDD(2), RolloverBudget(2, 3)]


def euler(model: ToyModel, prompt: str, x: Tensor, steps: int) -> Tensor:
    """What a pipeline does: ``steps`` Euler steps on the uniform grid, down to t = 0."""
    times = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    for t, s in pairwise(times):
        x = x + (s - t).to(x.dtype) * model.velocity(x, t.expand(len(x)), [prompt] * len(x))
    return x


class Single(ToyModel):
    """The toy with float32 states, as every network has."""

    dtype = torch.float32


class Distilled(ToyModel):
    few_step = True


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 10])
def test_the_uniform_linear_grid_finishes_free_as_plain_euler(
    line: ToyModel, toy_reward: ToyReward, steps: int
) -> None:
    """T steps cost T NFE, and the sample is that of a T-step Euler sampler: to the last bit in the states' dtype."""
    model = Single(line.mixtures)
    sampler = Sampler(Linear(), Euler(), steps=steps)
    job = Job(Task(model, "right", toy_reward), BestOfN(), steps, seed=3, sampler=sampler)
    (result,) = Engine().run([job])
    start = Noise(3, 0, model.shape, model.dtype).normals(0, [0], [0])
    assert result.spent.nfe == steps
    assert result.noise_level == 0
    assert torch.equal(result.sample, euler(model, "right", start, steps)[0])


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_plain_euler_in_float64(line: ToyModel, toy_reward: ToyReward, steps: int) -> None:
    """As above in float64, with as many steps as make the grid's times exact."""
    sampler = Sampler(Linear(), Euler(), steps=steps)
    (result,) = Engine().run([Job(Task(line, "left", toy_reward), BestOfN(), steps, seed=1, sampler=sampler)])
    start = Noise(1, 0, line.shape, line.dtype).normals(0, [0], [0])
    assert torch.equal(result.sample, euler(line, "left", start, steps)[0])


def test_the_papers_vp_grid_ends_at_noise_level_0_71(line: ToyModel) -> None:
    """10 steps end at t' = sqrt(1 - 0.9^2), whose linear noise level follows from T(t') = 9.95 t'^2 + 0.1 t'."""
    dynamics = Sampler(VP(), steps=10).bind(line)
    last = math.sqrt(1 - 0.9**2)
    alpha = math.exp(-(19.9 / 2 * last**2 + 0.1 * last) / 2)
    level = math.sqrt(1 - alpha**2) / (alpha + math.sqrt(1 - alpha**2))
    assert dynamics.sampler.grid == Arc()
    assert dynamics.last_noise_level == pytest.approx(level, abs=1e-12)
    assert level == pytest.approx(0.709, abs=5e-4)
    assert dynamics.finishing_steps == math.ceil(10 * level)
    assert dynamics.finish_nfe == 7
    assert dynamics.noise_level(0) == pytest.approx(1 / (1 + math.exp(-10.05 / 2) / math.sqrt(1 - math.exp(-10.05))))


def test_finishing_is_the_ode_from_the_last_state(line: ToyModel, toy_reward: ToyReward) -> None:
    """The finished sample is what Euler steps of at most 1 / T make of the state that the estimate was read from."""
    steps, task = 4, Task(line, "right", toy_reward)
    samplers = [Sampler(VP(), Euler(), steps=steps, finish=finish) for finish in (True, False)]
    finished, estimate = Engine().run([Job(task, BestOfN(), 40, seed=5, sampler=sampler) for sampler in samplers])
    dynamics = Sampler(VP(), steps=steps).bind(line)
    assert finished.finished
    assert finished.noise_level == 0
    assert finished.spent.nfe == 40 // (steps + dynamics.finish_nfe) * (steps + dynamics.finish_nfe)
    assert not estimate.finished
    assert estimate.noise_level == dynamics.last_noise_level
    assert estimate.spent.nfe == 40 // steps * steps
    x, t = _last_state(line, Sampler(VP(), Euler(), steps=steps), seed=5, rows=40 // (steps + dynamics.finish_nfe))
    times, law = t * torch.linspace(1, 0, dynamics.finishing_steps + 1, dtype=torch.float64), line.mixtures["right"]
    for here, there in pairwise(times[:-1]):
        x = x + (there - here) * law.velocity(x, here)
    ends = denoised_from_velocity(Linear(), law.velocity(x, times[-2]), x, times[-2])
    assert torch.equal(finished.sample, ends[ends[:, 0].argmax()])


def _last_state(model: ToyModel, sampler: Sampler, seed: int, rows: int) -> tuple[Tensor, Tensor]:
    """States of ``rows`` ODE trajectories at the last evaluation, in the model's interpolant, and their time."""
    dynamics = sampler.bind(model)
    conversion, interpolant = dynamics.conversion, sampler.interpolant
    x = Noise(seed, 0, model.shape, model.dtype).normals(0, range(rows), [0] * rows)
    for t, s in pairwise(dynamics.times[:-1]):
        u = model.velocity(conversion.to_source(x, t), conversion.time(t).expand(rows), ["right"] * rows)
        x = Euler().moments(interpolant, x, conversion.velocity(u, x, t), t, s).mean
    last = dynamics.times[-2]
    return conversion.to_source(x, last), conversion.time(last)


def test_the_default_follows_the_model(line: ToyModel) -> None:
    """A step-distilled model returns its estimate, any other is finished; a choice overrules both."""
    assert not Sampler().bind(Distilled).finished
    assert Sampler().bind(Distilled).finish_nfe == 0
    assert Sampler(finish=True).bind(Distilled).finished
    assert Sampler(finish=True).bind(Distilled).finish_nfe == 7
    assert Sampler().bind(line).finished
    assert not Sampler(finish=False).bind(line).finished
    assert Sampler(Linear()).bind(Distilled).finished  # one step of the grid from the end: the same thing


def test_default_grids(line: ToyModel) -> None:
    assert Sampler(Linear()).bind(line).sampler.grid == Uniform()
    assert Sampler(Cosine()).bind(line).sampler.grid == Uniform()
    assert Sampler(VP()).bind(line).sampler.grid == Arc()
    assert Sampler(VP(), grid=Uniform()).bind(line).sampler.grid == Uniform()


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.name)
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(steps=3), Sampler(Cosine(), grid=Arc(), steps=4)], ids=str)
@pytest.mark.slow
def test_finishing_is_inside_the_budget(
    line: ToyModel, toy_reward: ToyReward, search: Search, sampler: Sampler
) -> None:
    """From the smallest budget on, what is spent with the finishing steps never passes what was given."""
    smallest = search.smallest_nfe(sampler.bind(line))
    assert sampler.bind(line).finish_nfe > 0
    jobs = [Job(Task(line, "left", toy_reward), search, smallest + k, sampler=sampler) for k in range(0, 24, 5)]
    for job, result in zip(jobs, Engine().run(jobs), strict=True):
        assert result.spent.nfe <= job.nfe
        assert result.finished


@pytest.mark.slow
def test_a_model_of_another_interpolant(toy_reward: ToyReward) -> None:
    """The toy is of its mixtures' interpolant, so that a single Gaussian trained along VP comes out as it is."""
    law = GaussianMixture(torch.tensor([1.0]), torch.tensor([[1.5]]), torch.tensor([0.5]), VP())
    model = ToyModel({"vp": law})
    assert model.interpolant == VP()
    jobs = [
        Job(Task(model, "vp", toy_reward), BestOfN(), 18, seed=seed, sampler=Sampler(VP(), Euler(), Uniform(), 16))
        for seed in range(300)
    ]
    samples = torch.stack([result.sample for result in Engine(256).run(jobs)])
    assert abs(float(samples.mean()) - 1.5) < 4 * 0.5 / 300**0.5 + 0.02
    assert abs(float(samples.std()) - 0.5) < 4 * 0.5 / 600**0.5 + 0.02


def test_no_steps_is_an_error() -> None:
    with pytest.raises(RollflowError, match="steps must be a whole number >= 1, not 0"):
        Sampler(steps=0)
    with pytest.raises(RollflowError, match="steps of the look-ahead must be a whole number >= 1, not 0"):
        ODELookahead(0)


@pytest.mark.parametrize(("total", "parts"), [(0, 3), (7, 3), (9, 3), (500, 2), (2, 5)])
def test_even_shares(total: int, parts: int) -> None:
    """Shares sum to the total, differ by at most 1, and the larger ones come last."""
    shares = even_shares(total, parts)
    assert (sum(shares), len(shares)) == (total, parts)
    assert shares == sorted(shares)
    assert shares[-1] - shares[0] <= 1


# Look-aheads


def look(
    lookahead: Lookahead, interpolant: Interpolant, velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor
) -> tuple[Tensor, int]:
    """What a look-ahead promises from (x, t), and the evaluations that it asked for."""
    nfe = 0

    def answer(request: Request) -> Tensor:
        nonlocal nfe
        assert isinstance(request, Velocity)
        nfe += len(request.x)
        return velocity(request.x, request.t)

    asking: Asking[Tensor] = lookahead.clean(interpolant, x, velocity(x, t), t)
    return drive(asking, answer), nfe


X, T = torch.tensor([[-1.3], [0.2], [0.9], [2.0]], dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)


@pytest.mark.parametrize("interpolant", [Linear(), VP(), Cosine(), Polynomial(2)], ids=str)
def test_one_step_of_look_ahead_is_the_posterior_mean(interpolant: Interpolant) -> None:
    """Tweedie is E[x0 | x_t] of the mixture, and a single ODE step is Tweedie, to the last bit."""
    means, stds = torch.tensor([[-1.0], [1.0]]), torch.tensor([0.3, 0.5])
    law = GaussianMixture(torch.tensor([0.4, 0.6]), means, stds, interpolant)
    tweedie, free = look(Tweedie(), interpolant, law.velocity, X, T)
    one, also_free = look(ODELookahead(1), interpolant, law.velocity, X, T)
    assert torch.equal(tweedie, one)
    assert (free, also_free) == (0, 0)
    torch.testing.assert_close(tweedie, law.denoised(X, T), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("interpolant", [Linear(), Cosine(), Polynomial(2)], ids=str)
def test_look_ahead_costs_what_it_declares_and_converges_to_the_end_of_the_flow(interpolant: Interpolant) -> None:
    """First order in 1 / m on a Gaussian, whose flow ends at mu + s (x - alpha mu) / sqrt(alpha^2 s^2 + sigma^2)."""
    mu, s = 0.7, 0.4
    law = GaussianMixture(torch.tensor([1.0]), torch.tensor([[mu]]), torch.tensor([s]), interpolant)
    alpha, sigma = interpolant.alpha(T), interpolant.sigma(T)
    end = mu + s * (X - alpha * mu) / torch.sqrt(alpha**2 * s**2 + sigma**2)
    errors = []
    for m in (1, 8, 32, 64, 128):
        lookahead = ODELookahead(m)
        x0, nfe = look(lookahead, interpolant, law.velocity, X, T)
        assert nfe == len(X) * (m - 1) == len(X) * lookahead.extra_nfe
        errors.append(float((x0 - end).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 < 0.2 < errors[0]
    assert errors[-2] / errors[-1] == pytest.approx(2, rel=0.1)


@given(st.integers(1, 12), st.integers(0, 300), st.floats(0.01, 1))
@pytest.mark.slow
def test_linear_shares(parts: int, spare: int, ratio: float) -> None:
    """Whole, never rising, none below 1, exact in all; a larger total takes from none, and lies along a line."""
    total = parts + spare
    shares, more = linear_shares(total, parts, ratio), linear_shares(total + 1, parts, ratio)
    assert sum(shares) == total
    assert min(shares) >= 1
    assert shares == sorted(shares, reverse=True)
    assert sum(more) == total + 1
    assert all(a <= b for a, b in zip(shares, more, strict=True))
    line = [1 - (1 - ratio) * i / max(parts - 1, 1) for i in range(parts)]
    scale = total / sum(line)
    if min(scale * weight for weight in line) >= 1:
        assert all(abs(share - scale * weight) <= 1 for share, weight in zip(shares, line, strict=True))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12), st.integers(0, 300))
def test_weighted_shares(weights: list[float], spare: int) -> None:
    """Whole, none below 1, exact in all; a larger total lowers none, and a larger weight never has a smaller share."""
    total = len(weights) + spare
    shares, more = weighted_shares(total, weights), weighted_shares(total + 1, weights)
    assert sum(shares) == total
    assert min(shares) >= 1
    assert all(a <= b for a, b in zip(shares, more, strict=True))
    ordered = [share for _, share in sorted(zip(weights, shares, strict=True))]
    assert ordered == sorted(shares)


def test_weighted_shares_by_hand() -> None:
    assert weighted_shares(60, [15, 20, 30, 30, 20, 12, 8, 5]) == [6, 9, 13, 13, 9, 5, 3, 2]
    assert weighted_shares(10, [1, 1, 1]) == [4, 3, 3]
    assert weighted_shares(3, [5, 1, 100]) == [1, 1, 1]
    for total, weights in ((2, [1.0, 1.0, 1.0]), (3, []), (3, [1.0, 0.0]), (3, [1.0, math.inf]), (3, [1.0, math.nan])):
        with pytest.raises(BadSetting, match="expected one weight > 0"):
            weighted_shares(total, weights)


def test_linear_shares_by_hand() -> None:
    assert linear_shares(50, 10, 0.2) == [8, 8, 7, 6, 5, 5, 4, 3, 2, 2]
    assert linear_shares(40, 4, 0.25) == [16, 12, 8, 4]
    assert linear_shares(11, 4, 1.0) == [3, 3, 3, 2]
    assert linear_shares(5, 4, 0.1) == [2, 1, 1, 1]
    assert linear_shares(7, 1, 0.5) == [7]
    for total, parts, ratio in ((3, 4, 0.5), (3, 0, 0.5), (9, 4, 0.0), (9, 4, 1.1)):
        with pytest.raises(RollflowError, match=f"got parts={parts}, total={total}, ratio={ratio}"):
            linear_shares(total, parts, ratio)

"""SearchOverPaths against a plain loop, its forward kernel, the law of its samples, and what it spends."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from rollflow.api import Plan
from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.guidance import DPS, Guidance
from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear
from rollflow.dynamics.kernels import DDIM, Euler, EulerMaruyama, GaussianKernel, Heun, Kernel
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.engine import Engine, Job, Observer, Result, Task, estimate_cost
from rollflow.errors import RollflowError, RollflowWarning
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.output.recorder import Recorder
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SEARCHES, BestOfN, Progress, SearchOverPaths
from rollflow.search.keeping import KEEPINGS, AllCopies, EachStream
from rollflow.search.paths import renoised

POINT = ToyReward(torch.tensor([2.0, -1.0]))
FEW_STEPS = pytest.mark.filterwarnings("ignore:paths has too few steps:rollflow.errors.RollflowWarning")
SHORT = SearchOverPaths(2, 3, start=0.3, forward=0.4, back=0.55)  # down to .3, from .7 to .15, from .55 to 0
PATHS = [Linear(), VP(), Cosine()]


def plane_along(interpolant: Interpolant) -> ToyModel:
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.5]])
    pair = GaussianMixture(torch.tensor([0.5, 0.5]), corners, torch.tensor([0.2, 0.8]), interpolant)
    return ToyModel({"pair": pair})


class Watch(Observer):
    def __init__(self) -> None:
        self.saves: list[Progress] = []

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.saves.append(progress)


def run(model: ToyModel, search: SearchOverPaths, nfe: int, sampler: Sampler, seed: int = 4) -> tuple[Result, Watch]:
    watch = Watch()
    (result,) = Engine(observers=[watch]).run([Job(Task(model, "pair", POINT), search, nfe, seed, sampler)])
    return result, watch


def plain(
    model: ToyModel,
    path: Interpolant,
    kernel: GaussianKernel,
    steps: list[int],
    lowest: float,
    jointly: bool = False,
) -> Tensor:
    """``SHORT``, one particle after another; ``lowest`` is the noise level of the last evaluation."""
    noise = Noise(4, 0, model.shape, model.dtype)

    def time(level: Tensor) -> Tensor:
        return path.time_at_log_snr(2 * torch.log((1 - level) / level))

    def level_of(level: float) -> Tensor:
        return torch.tensor(level, dtype=torch.float64)

    def down(x: Tensor, i: int, j: int, leg: int, upper: float, lower: float) -> tuple[float, Tensor, Tensor]:
        levels = torch.linspace(upper, lower, steps[leg] + 1, dtype=torch.float64)
        t = time(levels[0])
        v = model.velocity(x, t[None], ["pair"])
        for k, level in enumerate(levels[1:], number[leg] + 1):
            s = time(level)
            mean, std = kernel.moments(path, x, v, t, s)
            x = mean + std * noise.normal(k, i, j) if kernel.stochastic else mean
            t, v = s, model.velocity(x, s[None], ["pair"])
        x0 = denoised_from_velocity(path, v, x, t)
        return float(POINT.score(x0, ["pair"])), x, x0

    number = [0, steps[0] + 1, steps[0] + steps[1] + 2]  # of the first evaluation of each leg
    kept = [down(noise.normal(0, i, 0)[None], i, 0, 0, 1.0, 0.3) for i in range(2)]
    for leg, below, upper, lower in ((1, 0.3, 0.7, 0.7 - 0.55), (2, 0.7 - 0.55, 0.7 - 0.55 + 0.4, lowest)):
        t, s = time(level_of(below)), time(level_of(upper))
        a = path.alpha(s) / path.alpha(t)
        std = torch.sqrt(path.sigma(s) ** 2 - (a * path.sigma(t)) ** 2)
        reached = []
        for i in range(2):
            copies = [a * kept[i][1] + std * noise.normal(number[leg], i, j) for j in range(3)]
            of_stream = [down(x, i, j, leg, upper, lower) for j, x in enumerate(copies)]
            reached += of_stream if jointly else [max(of_stream, key=lambda one: one[0])]
        least = sorted((one[0] for one in reached), reverse=True)[1]
        kept = [one for one in reached if one[0] >= least]
    return max(kept, key=lambda one: one[0])[2][0]


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("kernel", [Euler(), EulerMaruyama(), DDIM(0.7)], ids=str)
@pytest.mark.parametrize(
    ("nfe", "steps", "left"),
    [
        pytest.param(28, [1, 1, 1], 0, marks=FEW_STEPS),
        pytest.param(42, [2, 2, 2], 0, marks=FEW_STEPS),
        # 11 more than 1 step costs: one more for the last leg, two for the first
        pytest.param(39, [3, 1, 2], 1, marks=FEW_STEPS),
        (70, [4, 4, 4], 0),
    ],
)
@pytest.mark.slow
def test_the_plain_loop_gives_the_same_bits(
    path: Interpolant, kernel: GaussianKernel, nfe: int, steps: list[int], left: int
) -> None:
    """2 noises, and 3 copies of each on two further legs."""
    model = plane_along(path)
    result, _ = run(model, SHORT, nfe, Sampler(path, kernel, steps=5))
    lowest = min((0.7 - 0.55 + 0.4) / (steps[-1] + 1), 0.2)
    assert torch.equal(result.sample, plain(model, path, kernel, steps, lowest))
    assert (result.spent.nfe, result.spent.reward_calls) == (nfe - left, 14)
    assert result.noise_level == 0


def test_the_best_of_all_copies_go_on() -> None:
    """As published: the plain loop, in which the best two of six go on, of whichever stream."""
    model, search = plane_along(Linear()), replace(SHORT, keep=AllCopies())
    sampler, joint = Sampler(Linear(), Euler(), steps=5), 0
    result, _ = run(model, search, 70, sampler)
    lowest = min((0.7 - 0.55 + 0.4) / 5, 0.2)
    assert torch.equal(result.sample, plain(model, Linear(), Euler(), [4, 4, 4], lowest, jointly=True))
    assert (result.spent.nfe, result.spent.reward_calls) == (70, 14)
    for seed in range(8):
        kept, each = (run(model, one, 70, sampler, seed)[1].saves[1].particles.reward for one in (search, SHORT))
        assert kept.max() == each.max()
        joint += bool(each.min() < kept.min())
    assert 0 < joint < 8


def test_what_is_kept() -> None:
    reward = torch.tensor([3.0, 5.0, 5.0, 4.0, 5.0, -math.inf], dtype=torch.float64)
    assert EachStream().rows(reward, 2).tolist() == [1, 4]
    assert AllCopies().rows(reward, 2).tolist() == [1, 2]
    assert AllCopies().rows(reward[[3, 0, 1, 5]], 2).tolist() == [0, 2]
    assert AllCopies().rows(reward, 3).tolist() == [1, 2, 4]
    assert AllCopies().rows(torch.full((4,), -math.inf).double(), 2).tolist() == [0, 1]
    assert {name: kind() for name, kind in KEEPINGS.items()} == {"each": EachStream(), "all": AllCopies()}
    assert SEARCHES.make("paths(keep=all)") == SearchOverPaths(keep=AllCopies())
    assert SearchOverPaths().keep == EachStream()


@pytest.mark.parametrize("path", [Linear(), VP()], ids=str)
@pytest.mark.parametrize(("here", "there"), [(0.12, 0.9), (0.3, 0.31), (0.5, 0.5), (0.2, 1.0)])
def test_renoising_takes_the_law_at_one_time_to_that_at_another(path: Interpolant, here: float, there: float) -> None:
    """Of N(0.2, 1.7^2) along the path: in closed form, and of draws within 4 standard errors."""
    t, s = (path.time_at_log_snr(2 * torch.tensor((1 - level) / level).double().log()) for level in (here, there))
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    kept, std = float(renoised(path, one, t, s, zero)), float(renoised(path, zero, t, s, one))
    assert kept * float(path.alpha(t)) == pytest.approx(float(path.alpha(s)), abs=1e-14)
    assert (kept * float(path.sigma(t))) ** 2 + std**2 == pytest.approx(float(path.sigma(s)) ** 2, abs=1e-14)

    n, generator = 20_000, torch.Generator().manual_seed(2)
    x0, eps, z = torch.randn(3, n, 1, dtype=torch.float64, generator=generator)
    x = renoised(path, path.alpha(t) * (0.2 + 1.7 * x0) + path.sigma(t) * eps, t, s, z)
    mean, variance = 0.2 * float(path.alpha(s)), float((1.7 * path.alpha(s)) ** 2 + path.sigma(s) ** 2)
    assert abs(float(x.mean()) - mean) <= 4 * (variance / n) ** 0.5
    assert abs(float(x.var()) - variance) <= 4 * variance * (2 / n) ** 0.5


def noised(data: GaussianMixture, alpha: float, sigma: float) -> GaussianMixture:
    """The law of alpha x0 + sigma eps."""
    return GaussianMixture(data.weights, alpha * data.means, ((alpha * data.stds) ** 2 + sigma**2).sqrt())


def p_value(x: Tensor, law: GaussianMixture) -> float:
    """Of a Kolmogorov-Smirnov test."""
    return float(stats.kstest(law.cdf(x[:, 0]).numpy(), "uniform").pvalue)


@pytest.mark.parametrize("path", [Linear(), VP()], ids=str)
def test_without_a_choice_it_samples_the_data(line: ToyModel, path: Interpolant) -> None:
    """400 streams of 1 copy go down, and up and down again four times; at the end of every leg they have its law."""
    search, watch, sampler = SearchOverPaths(400, 1), Watch(), Sampler(path, Heun(), steps=12)
    nfe = search.smallest_nfe(sampler.bind(line)) + 5 * 400 * 2 * 11
    Engine(512, [watch]).run([Job(Task(line, "right", ToyReward()), search, nfe, 1, sampler)])
    assert len(watch.saves) == 5
    for progress in watch.saves:
        level = progress.level(sampler.bind(line))
        t = path.time_at_log_snr(2 * math.log((1 - level) / level))
        truth = noised(line.mixtures["right"], float(path.alpha(t)), float(path.sigma(t)))
        assert p_value(progress.particles.x, truth) > 1e-3
    assert p_value(watch.saves[-1].particles.clean, line.mixtures["right"]) > 1e-3


def test_the_papers_setting(line: ToyModel) -> None:
    """Five legs, 0.12, 0.09, 0.06, 0.03 and 0; in 500 NFE 10 steps each, one more for three, 4 for the first."""
    recorder, watch = Recorder(), Watch()
    job = Job(Task(line, "left", ToyReward()), SearchOverPaths(), 500, sampler=Sampler(Linear(), Euler(), steps=10))
    (result,) = Engine(observers=[recorder, watch]).run([job])
    assert [progress.nfe_spent for progress in watch.saves] == [2 * 15, 10 * 11, 10 * 12, 10 * 12, 10 * 12]
    levels = [0.12, 0.09, 0.06, 0.03, 0.81 / 12]
    assert [progress.noise_level for progress in watch.saves] == pytest.approx(levels)
    assert sorted({point.noise_level for point in recorder.points}) == pytest.approx(sorted(levels))
    assert [frame.noise_level for frame in recorder.path(result)] == pytest.approx([*levels[:-1], 0])
    assert result.spent.nfe == 500


@FEW_STEPS
@pytest.mark.parametrize("finish", [True, False])
@pytest.mark.parametrize(("steps", "last"), [(1, 0.27), (3, 0.27), (10, 0.1)])
def test_the_sample_is_always_finished(line: ToyModel, finish: bool, steps: int, last: float) -> None:
    """Its last evaluation is one even step from 0, or 1 / steps if that is nearer."""
    watch, sampler = Watch(), Sampler(VP(), Euler(), steps=steps, finish=finish)
    (result,) = Engine(observers=[watch]).run(
        [Job(Task(line, "left", ToyReward()), SearchOverPaths(), 126, 0, sampler)]
    )
    assert watch.saves[-1].noise_level == pytest.approx(last)
    assert result.finished
    assert torch.equal(result.x0, watch.saves[-1].particles.best().clean[0])


@pytest.mark.parametrize("guidance", [None, DPS(0.1)])
@pytest.mark.parametrize("kernel", [Euler(), Heun(), EulerMaruyama()], ids=str)
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.slow
def test_declared_is_spent(plane: ToyModel, guidance: Guidance | None, kernel: Kernel, steps: int) -> None:
    """With guidance every evaluation that is not scored is differentiated."""
    sampler = Sampler(VP(), kernel, steps=steps, guidance=guidance)
    result, _ = run(plane, SHORT, 111, sampler)
    assert result.spent == estimate_cost(plane, SHORT, sampler, 111)
    assert (result.spent.backward_passes > 0) == (guidance is not None)


class Bound(ToyModel):
    """To bind a sampler to, which needs no mixtures."""

    interpolant = Linear()


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.floats(0.02, 0.5),
    st.floats(0.05, 0.5),
    st.floats(0.02, 0.3),
    st.integers(0, 300),
    st.sampled_from([Euler(), Heun()]),
    st.integers(1, 3),
)
def test_budgets(
    streams: int, copies: int, start: float, forward: float, net: float, spare: int, kernel: Kernel, look: int
) -> None:
    """Less than a child a stream is left, what is declared needs no more than itself, and every leg goes down."""
    search = SearchOverPaths(streams, copies, start, forward, forward + net)
    dynamics = Sampler(VP(), kernel, lookahead=ODELookahead(look)).bind(Bound)
    nfe = search.smallest_nfe(dynamics) + spare
    cost = search.cost(dynamics, nfe)
    assert 0 <= nfe - cost.nfe < streams * dynamics.child_nfe
    assert search.cost(dynamics, cost.nfe) == cost
    legs = search.legs(dynamics, nfe)
    assert all(1 >= leg.upper > leg.lower > 0 and leg.steps >= 1 for leg in legs)
    assert all(after.upper == pytest.approx(before.lower + forward) for before, after in pairwise(legs))
    assert all(leg.upper - leg.lower == pytest.approx(forward + net) for leg in legs[1:-1])
    assert legs[-1].upper <= forward + net + 1e-9
    assert legs[-1].lower <= 0.1


def test_its_kernel_is_the_ode_unless_told(line: ToyModel) -> None:
    def kernel(method: str | BestOfN, choice: str | None = None) -> Kernel:
        return Plan("left", model=line, reward=ToyReward(), method=method, kernel=choice).sampler.kernel

    assert kernel("paths") == Euler()
    assert kernel("paths", "sde") == kernel("bon") == kernel(BestOfN()) == EulerMaruyama()
    assert kernel("bon", "ode") == Euler()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0,), "streams of paths must be a whole number >= 1, not 0"),
        ((2, 0), "copies of paths must be a whole number >= 1, not 0"),
        ((2, 5, 0.0), "start=0.0, forward=0.78 and back=0.81"),
        ((2, 5, 0.3), "start=0.3, forward=0.78"),
        ((2, 5, 1.0, 1e-10), "start=1.0, forward=1e-10"),
        ((2, 5, 0.1, 0.0), "forward=0.0"),
        ((2, 5, 0.1, 0.8, 0.8), "forward=0.8 and back=0.8"),
    ],
)
def test_settings_out_of_range(settings: tuple[int, int, float, float, float], message: str) -> None:
    with pytest.raises(RollflowError, match=message):
        SearchOverPaths(*settings)


def test_a_step_of_the_longest_length_is_sensible() -> None:
    """A first leg of 0.6 in two steps of 0.3; the others are shorter. One stream of four particles."""
    search, dynamics = SearchOverPaths(1, 1, 0.4, 0.05, 0.2), Sampler(Linear(), Euler()).bind(Bound)
    told = search.doubt(dynamics, 8)
    assert told is not None
    assert "one spans 0.60 of noise level" in told
    assert "use 12 NFE or more" in told
    assert search.doubt(dynamics, 12) is None


def test_no_leg_begins_above_pure_noise() -> None:
    """Where rounding of the settings would have it so, by less than 1e-9."""
    search, dynamics = SearchOverPaths(1, 1, 0.2, 0.8 + 5e-10, 0.9), Sampler(Linear()).bind(Bound)
    assert [leg.upper for leg in search.legs(dynamics, 100)][:2] == [1.0, 1.0]


def test_a_start_from_a_picture_is_refused() -> None:
    """Its first leg begins at pure noise, whatever the model."""

    class Later(Bound):
        def start(self, steps: int) -> float:
            return 0.5

    model = Later(plane_along(Linear()).mixtures)
    with pytest.raises(RollflowError, match="paths starts from pure noise, not from a picture"):
        SearchOverPaths().smallest_nfe(Sampler(Linear()).bind(model))


@pytest.mark.parametrize(
    ("search", "nfe", "longest", "sensible"),
    [
        (SearchOverPaths(), 84, 0.88, 168),  # one step a leg: only its noisy end and its estimate there
        (SearchOverPaths(), 167, 0.44, 168),
        (SearchOverPaths(), 168, None, 0),  # 3 steps of 0.88 / 3
        (SearchOverPaths(), 500, None, 0),  # the paper's
        (SHORT, 28, 0.7, 56),
        (SHORT, 55, 0.35, 56),
        (SHORT, 56, None, 0),
    ],
)
def test_a_budget_of_too_few_steps_is_warned_of(
    line: ToyModel, search: SearchOverPaths, nfe: int, longest: float | None, sensible: int
) -> None:
    """By the plan, which is the dry run, and by the job; of the sensible budget that it names there is no warning."""
    sampler = Sampler(Linear(), Euler(), steps=10)
    told = search.doubt(sampler.bind(line), nfe)
    if longest is None:
        assert told is None
        estimate_cost(line, search, sampler, nfe)
        Job(Task(line, "left", ToyReward()), search, nfe, 0, sampler)
        return
    assert told == (
        f"paths has too few steps in {nfe} NFE: one spans {longest:.2f} of noise level, more than 0.3, and so "
        f"hardly denoises; use {sensible} NFE or more, or fewer streams or copies"
    )
    assert search.doubt(sampler.bind(line), sensible) is None
    with pytest.warns(RollflowWarning, match=re.escape(told)):
        estimate_cost(line, search, sampler, nfe)
    with pytest.warns(RollflowWarning, match=re.escape(told)):
        Job(Task(line, "left", ToyReward()), search, nfe, 0, sampler)


def test_kernels_of_two_evaluations_a_step_need_twice_the_budget(line: ToyModel) -> None:
    """Heun's step is 2 NFE: 42 evaluations that are scored, and 3 steps each."""
    told = SearchOverPaths().doubt(Sampler(Linear(), Heun(), steps=10).bind(line), 200)
    assert told is not None
    assert f"use {42 * (1 + 3 * 2)} NFE" in told

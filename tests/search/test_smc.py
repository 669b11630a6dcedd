"""SMC: exact normalising constants, weights by hand, and the law that the weighted samples stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from rollflow.dynamics.grids import Arc
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import DDIM, Euler, EulerMaruyama, Heun, Kernel, Memoryless
from rollflow.dynamics.lookahead import Lookahead, ODELookahead, Tweedie
from rollflow.engine import Engine, Job, Observer, Task, estimate_cost
from rollflow.errors import BudgetTooSmall, RollflowError
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.resampling import SSP, Multinomial, Resampling, Residual, Stratified, Systematic
from rollflow.particles.rng import Noise
from rollflow.requests import Grad, Request, Reward, Save, Slope, Velocity, drive
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SMC, BestOfN, Finished, Progress, Propagator
from rollflow.search.smc.potentials import DifferencePotential, MaxPotential, Potential, SumPotential
from rollflow.search.smc.tempering import AdaptiveTempering, GeometricTempering, LinearTempering, NoTempering

MEAN, STD = 0.3, 1.1
NORMAL = GaussianMixture(torch.tensor([1.0]), torch.tensor([[MEAN]]), torch.tensor([STD]))
FREE, FINISHED = Sampler(Linear(), steps=3), Sampler(Linear(), grid=Arc(), steps=3)
POTENTIALS: list[Potential] = [DifferencePotential(), MaxPotential(), SumPotential()]
SCHEMES: list[Resampling] = [Multinomial(), Stratified(), Systematic(), Residual(), SSP()]


@dataclass(frozen=True)
class Quick(Noise):
    """The same interface over one sequential generator: cheap enough for hundreds of thousands of particles."""

    generator: torch.Generator = field(default_factory=torch.Generator)

    def normals(self, step: int, rows: Sequence[int], draws: Sequence[int]) -> Tensor:
        return torch.randn(len(rows), *self.shape, dtype=self.dtype, generator=self.generator)

    def uniform(self, step: int, count: int) -> Tensor:
        return torch.rand(count, dtype=torch.float64, generator=self.generator)


def quick(seed: int) -> Quick:
    return Quick(seed, 0, (1,), torch.float64, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Affine:
    """x -> a x + b."""

    a: float
    b: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.a * x + self.b


def clean(t: float) -> Affine:
    """E[x0 | x_t] of a normal on the linear interpolant."""
    gain = (1 - t) * STD**2 / ((1 - t) ** 2 * STD**2 + t**2)
    return Affine(gain, MEAN - gain * (1 - t) * MEAN)


def velocity(t: float) -> Affine:
    """(x - E[x0 | x_t]) / t."""
    return Affine((1 - clean(t).a) / t, -clean(t).b / t)


def exact_log_z(sampler: Sampler, temperature: float) -> float:
    """log E[exp(x0 / temperature)] over the chain as it is discretised: moments through every affine step of it."""
    dynamics = sampler.bind(ToyModel({"normal": NORMAL}))
    mean, variance = 0.0, 1.0

    def through(step: Affine, noise: float = 0.0) -> None:
        nonlocal mean, variance
        mean, variance = step.a * mean + step.b, step.a**2 * variance + noise

    times = dynamics.times.tolist()[:-1]
    for t, s in pairwise(times):
        v, x0, g = velocity(t), clean(t), 3 * t**2
        score = Affine(-(1 - (1 - t) * x0.a) / t**2, (1 - t) * x0.b / t**2)
        drift = Affine(v.a - g**2 / 2 * score.a, v.b - g**2 / 2 * score.b)
        through(Affine(1 + drift.a * (s - t), drift.b * (s - t)), g**2 * (t - s))
    finishing = [times[-1] * (1 - i / dynamics.finishing_steps) for i in range(dynamics.finishing_steps)]
    for t, s in pairwise(finishing):
        through(Affine(1 + velocity(t).a * (s - t), velocity(t).b * (s - t)))
    through(clean(finishing[-1]))
    return mean / temperature + variance / (2 * temperature**2)


def answer(request: Request) -> Any:
    """Velocities, rewards x0 and their gradients, exact and fast; every request of one time."""
    match request:
        case Velocity(x, t):
            return velocity(float(t[0]))(x)
        case Grad(x, t):
            x0 = clean(float(t[0]))
            return Slope(velocity(float(t[0]))(x), x0(x), x0(x)[:, 0], torch.full_like(x, x0.a))
        case Reward(x0):
            return x0[:, 0]
    return None


def test_the_fast_answers_are_the_models() -> None:
    x, t = torch.tensor([[-1.0], [0.4], [2.0]], dtype=torch.float64), torch.tensor(0.35, dtype=torch.float64)
    torch.testing.assert_close(velocity(0.35)(x), NORMAL.velocity(x, t))
    torch.testing.assert_close(clean(0.35)(x), NORMAL.denoised(x, t))


def log_z(search: SMC, sampler: Sampler, particles: int, seeds: int) -> Tensor:
    """Estimates of as many runs, (seeds,); ``particles`` on average where they fall."""
    dynamics = sampler.bind(ToyModel({"normal": NORMAL}))
    steps, last = sampler.steps, dynamics.finish_nfe
    nfe = particles * steps + (search._counts(dynamics, particles * steps)[-1] * last)
    runs = [search.population(Propagator(dynamics, quick(seed), nfe)) for seed in range(seeds)]
    estimates = [(drive(run, answer).diagnostics or {})["log_z"] for run in runs]
    return torch.tensor(estimates, dtype=torch.float64)


T = 1.5
CROSSED = [
    (
        (2, 5, 20)[(i + i // 6) % 3],
        FINISHED if i % 4 == 3 else FREE,
        SMC(potential, T, scheme, threshold, LinearTempering() if i // 2 % 2 else NoTempering()),
    )
    for i, (potential, scheme, threshold) in enumerate(product(POTENTIALS, SCHEMES, (1.0, 0.5)))
]
BESIDE = [
    (5, FREE, SMC(temperature=T, threshold=0.9, tempering=GeometricTempering(0.3))),
    (5, FREE, SMC(MaxPotential(), T, SSP(), 1.0, AdaptiveTempering(0.8))),
    (2, FREE, SMC(SumPotential(), T, Multinomial(), 1.0, AdaptiveTempering(0.9))),
    (5, FREE, SMC(temperature=T, threshold=0.5, ratio=0.4)),
    (5, FINISHED, SMC(MaxPotential(), T, Multinomial(), 1.0, LinearTempering(), ratio=0.2)),
]


@pytest.mark.parametrize(("particles", "sampler", "search"), [*CROSSED, *BESIDE], ids=repr)
@pytest.mark.slow
def test_z_is_unbiased(particles: int, sampler: Sampler, search: SMC) -> None:
    """Over the discretised chain, finishing included: within 4 standard errors, which are a few percent."""
    seeds = {2: 250, 5: 120, 20: 70}[particles]
    ratios = (log_z(search, sampler, particles, seeds) - exact_log_z(sampler, T)).exp()
    error = float(ratios.std()) / math.sqrt(seeds)
    assert error < 0.06
    assert abs(float(ratios.mean()) - 1) < 4 * error


@pytest.mark.parametrize(("kernel", "threshold"), [(EulerMaruyama(), 1.0), (DDIM(), 0.5)], ids=repr)
@pytest.mark.slow
def test_guided_proposals_are_paid_for_in_the_weights(kernel: Kernel, threshold: float) -> None:
    """The same constant as without guidance, which moves every child by up to half a standard deviation."""
    search, plain = SMC(temperature=T, threshold=threshold), replace(FREE, kernel=kernel)
    without = log_z(search, plain, 20, 150).exp()
    leaning = log_z(search, replace(plain, guidance=DPS(0.3, "constant")), 20, 150).exp()
    error = math.hypot(float(without.std()), float(leaning.std())) / math.sqrt(150)
    assert error < 0.03 * float(without.mean())
    assert abs(float(without.mean() - leaning.mean())) < 4 * error


def scripted(search: SMC, rewards: list[list[float]], seed: int = 0) -> tuple[Finished, list[Progress]]:
    """A run whose rewards are those of a list, a row a step, whatever the samples."""
    waiting, saved = list(rewards), list[Progress]()

    def reply(request: Request) -> Any:
        match request:
            case Velocity(x, t):
                return velocity(float(t[0]))(x)
            case Reward(x0):
                assert len(x0) == len(waiting[0])
                return torch.tensor(waiting.pop(0), dtype=torch.float64)
            case Save(state):
                saved.append(state)
        return None

    dynamics = Sampler(Linear(), steps=len(rewards)).bind(ToyModel({"normal": NORMAL}))
    propagator = Propagator(dynamics, Noise(seed, 0, (1,), torch.float64), sum(map(len, rewards)))
    return drive(search.population(propagator), reply), saved


def size(log_w: Sequence[float]) -> float:
    """(sum w)^2 / sum w^2, term by term."""
    w = [math.exp(value) for value in log_w]
    return sum(w) ** 2 / sum(value * value for value in w)


MILD = [[0.2, -0.1, 0.4], [0.5, 0.1, -0.3], [0.3, 0.9, -0.2]]
VALUES = {  # phi_0, phi_1 of the three paths, and in the end the reward
    "difference": [[0.2, -0.1, 0.4], [0.5, 0.1, -0.3], [0.3, 0.9, -0.2]],
    "max": [[0.2, -0.1, 0.4], [0.7, 0.0, 0.8], [0.3, 0.9, -0.2]],
    "sum": [[0.2, -0.1, 0.4], [0.9, -0.1, 0.5], [0.3, 0.9, -0.2]],
}


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_weights_are_carried_where_nothing_is_resampled(potential: Potential, threshold: float) -> None:
    """The sample size stays above half at every step; the weights are exp(phi_k / temperature), not its increments."""
    best, saved = scripted(SMC(potential, 0.5, threshold=threshold), MILD)
    log_w = [[2 * value for value in values] for values in VALUES[potential.name]]
    for progress, expected in zip(saved, log_w, strict=True):
        assert progress.ancestors is None
        assert progress.extra.log_w.tolist() == pytest.approx(expected, abs=1e-12)
    assert best.diagnostics is not None
    assert best.diagnostics["log_z"] == pytest.approx(math.log(sum(map(math.exp, log_w[-1])) / 3))
    assert best.diagnostics["ess"] == pytest.approx([size(values) for values in log_w])
    assert min(best.diagnostics["ess"]) > 1.5
    assert (best.diagnostics["resamplings"], best.diagnostics["ancestors"]) == (0, 3)
    assert best.reward == 0.9


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
def test_a_resampling_at_the_second_step_by_hand(potential: Potential) -> None:
    """Mild at first, then uneven: the ancestors come of both steps' weights, and the last are what is left of phi."""
    rewards = [MILD[0], [0.5, 0.1, 1.2], [0.3, 0.9, -0.2]]
    second = {"difference": [0.5, 0.1, 1.2], "max": [0.7, 0.0, 1.6], "sum": [0.9, -0.1, 2.0]}[potential.name]
    best, saved = scripted(SMC(potential, 0.5, Multinomial(), threshold=0.7), rewards, seed=10)
    assert [progress.ancestors is None for progress in saved] == [True, True, False]
    w = torch.tensor([math.exp(2 * value) for value in second], dtype=torch.float64)
    points = Noise(10, 0, (1,), torch.float64).uniform(1, 3) * w.sum()
    ancestors = torch.tensor([0 if u < w[0] else 1 if u < w[0] + w[1] else 2 for u in points])
    assert saved[2].ancestors is not None
    assert saved[2].ancestors.tolist() == ancestors.tolist()
    last = [2 * (reward - second[a]) for reward, a in zip(rewards[2], ancestors.tolist(), strict=True)]
    assert saved[2].extra.log_w.tolist() == pytest.approx(last, abs=1e-12)
    assert best.diagnostics is not None
    assert best.diagnostics["log_z"] == pytest.approx(math.log(w.mean()) + math.log(sum(map(math.exp, last)) / 3))
    assert best.diagnostics["ess"] == pytest.approx(
        [size([2 * value for value in MILD[0]]), size([2 * value for value in second]), size(last)]
    )
    assert (best.diagnostics["resamplings"], best.diagnostics["ancestors"]) == (1, len(set(ancestors.tolist())))
    assert best.diagnostics["ancestors"] < 3


def test_gamma_flattens_what_comes_before_the_last() -> None:
    best, saved = scripted(SMC(temperature=0.5, threshold=0, tempering=LinearTempering()), MILD)
    for progress, gamma, rewards in zip(saved, (1 / 3, 2 / 3, 1), MILD, strict=True):
        assert progress.extra.log_w.tolist() == pytest.approx([2 * gamma * reward for reward in rewards])
    assert best.diagnostics is not None
    assert best.diagnostics["gamma"] == pytest.approx([1 / 3, 2 / 3, 1])


def test_adaptive_tempering_counts_what_is_carried() -> None:
    """Without a resampling the sample size is held at c K, until the last gamma is 1 whatever it costs."""
    rewards = [[0.0, 1, 2, 0], [0.0, 2, 5, 0], [0.0, 2, 9, 0]]
    best, _ = scripted(SMC(temperature=0.1, threshold=0, tempering=AdaptiveTempering(0.6)), rewards)
    assert best.diagnostics is not None
    gamma, sizes = best.diagnostics["gamma"], best.diagnostics["ess"]
    assert sizes[0] == pytest.approx(2.4)
    assert gamma[1] == gamma[0] < gamma[2] == 1  # the second rewards alone would need less than there is already
    assert sizes[2] == pytest.approx(1)


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_particles_of_equal_rewards_are_left_alone(potential: Potential, threshold: float) -> None:
    """Resampled at every step or never, they are the trajectories of best of N, to the last bit."""
    rewards = [[0.7] * 4, [-0.3] * 4, [0.2] * 4]
    best, saved = scripted(SMC(potential, 0.5, threshold=threshold), rewards)
    assert best.diagnostics is not None
    assert best.diagnostics["ess"] == (4, 4, 4)
    assert best.diagnostics["resamplings"] == (2 if threshold == 1 else 0)
    assert best.diagnostics["ancestors"] == 4
    assert best.diagnostics["log_z"] == pytest.approx(0.4)
    propagator = Propagator(FREE.bind(ToyModel({"normal": NORMAL})), Noise(0, 0, (1,), torch.float64), 12)
    alone: list[Progress] = []

    def reply(request: Request) -> Any:
        if isinstance(request, Save):
            alone.append(request.state)
        return answer(request)

    drive(BestOfN().population(propagator), reply)
    for mine, theirs in zip(saved, alone, strict=True):
        assert torch.equal(mine.particles.x, theirs.particles.x)


def test_every_step_resamples_at_threshold_1() -> None:
    """Also where the sample size is all K; independent draws then show it."""
    _, saved = scripted(SMC(resampling=Multinomial(), temperature=0.5), [[0.0] * 8] * 3)
    assert all(progress.ancestors is not None for progress in saved[1:])
    assert saved[1].ancestors is not None
    assert sorted(saved[1].ancestors.tolist()) != list(range(8))


def test_particles_decline_linearly_and_the_change_resamples() -> None:
    """Sixteen particles over four steps, to a quarter of the first: a sample size of all K does not matter."""
    best, saved = scripted(SMC(threshold=0, ratio=0.25), [[0.0] * 6, [0.0] * 5, [0.0] * 3, [0.0] * 2])
    assert [progress.nfe_spent for progress in saved] == [6, 5, 3, 2]
    assert best.diagnostics is not None
    assert best.diagnostics["resamplings"] == 3
    assert best.diagnostics["log_z"] == pytest.approx(0, abs=1e-12)


def test_the_returned_sample_is_the_best_or_one_drawn_by_the_weights() -> None:
    """Drawn by the uniform of the last step, at which nothing is resampled."""
    counts = [0, 0, 0]
    for seed in range(30):
        drawn, saved = scripted(SMC(temperature=0.5, threshold=0, draw=True), MILD, seed)
        w = [math.exp(2 * reward) for reward in MILD[-1]]
        u = float(Noise(seed, 0, (1,), torch.float64).uniform(2, 1)) * sum(w)
        row = 0 if u < w[0] else 1 if u < w[0] + w[1] else 2
        counts[row] += 1
        assert drawn.reward == MILD[-1][row]
        assert torch.equal(drawn.x0, saved[-1].particles.clean[row])
        best, _ = scripted(SMC(temperature=0.5, threshold=0), MILD, seed)
        assert best.reward == 0.9
    assert min(counts) > 0


class Ancestors(Observer):
    """The ancestors of every step, by prompt."""

    def __init__(self) -> None:
        self.of: dict[str, list[Tensor | None]] = {}

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.of.setdefault(job.task.prompt, []).append(progress.ancestors)


def test_prompts_in_one_engine_never_mix() -> None:
    """Two mixtures far apart: each run has the bits that it has alone, and all its ancestors are its own."""
    far = {
        prompt: GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[m], [m + 1]]), torch.tensor([0.3, 0.2]))
        for prompt, m in (("west", -40.0), ("east", 40.0))
    }
    model, reward, search = ToyModel(far), ToyReward(), SMC(temperature=0.2, resampling=SSP())
    jobs = [Job(Task(model, prompt, reward), search, n, 3, FREE) for prompt, n in (("west", 60), ("east", 42))]
    watch = Ancestors()
    together = Engine(max_rows=13, observers=[watch]).run(jobs)
    for job, result in zip(jobs, together, strict=True):
        (alone,) = Engine().run([job])
        assert torch.equal(result.sample, alone.sample)
        assert result.diagnostics == alone.diagnostics
        assert abs(float(result.sample) - float(far[job.task.prompt].means.mean())) < 4
        first, *later = watch.of[job.task.prompt]
        assert first is None
        assert all(a is not None and len(a) == job.nfe // 3 and int(a.max()) < job.nfe // 3 for a in later)


@pytest.mark.parametrize(
    "search", [SMC(temperature=1), SMC(temperature=1, resampling=SSP(), threshold=0.5, tempering=AdaptiveTempering())]
)
@pytest.mark.slow
def test_the_weighted_samples_are_those_of_the_tilted_law(search: SMC) -> None:
    """W1 to the exact tilted mixture falls as 1 / sqrt(K); the mode that had 0.2 of the mass has 0.64."""
    law = GaussianMixture(torch.tensor([0.8, 0.2]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.4, 0.3]))
    dynamics = Sampler(Linear(), EulerMaruyama(Memoryless()), steps=40).bind(ToyModel({"two": law}))
    bounds = torch.linspace(-4, 4, 2001, dtype=torch.float64)
    exact, middle = law.tilted(torch.tensor([1.0])).cdf(bounds).diff(), (bounds[1:] + bounds[:-1]) / 2

    def distance(particles: int, seed: int) -> float:
        last: list[Progress] = []

        def reply(request: Request) -> Any:
            match request:
                case Velocity(x, t):
                    return law.velocity(x, t)
                case Reward(x0):
                    return x0[:, 0]
                case Save(state):
                    last[:] = [state]
            return None

        drive(search.population(Propagator(dynamics, quick(seed), particles * 40)), reply)
        samples, weights = last[0].particles.clean[:, 0], torch.softmax(last[0].extra.log_w, 0)
        return float(stats.wasserstein_distance(samples, middle, weights, exact))

    for particles, runs in ((30, 6), (300, 3), (3000, 2)):
        mean = sum(distance(particles, seed) for seed in range(runs)) / runs
        assert mean < 2.2 / math.sqrt(particles)


@pytest.mark.parametrize("kernel", [Euler(), Heun(), DDIM(0.0)], ids=repr)
def test_guidance_without_a_density_is_refused_before_anything_runs(line: ToyModel, kernel: Kernel) -> None:
    sampler = Sampler(Linear(), kernel, steps=4, guidance=DPS())
    with pytest.raises(RollflowError, match=r"smc with guidance weighs children by their density.*Gaussian kernel"):
        Job(Task(line, "wide", ToyReward()), SMC(), 40, sampler=sampler)
    Job(Task(line, "wide", ToyReward()), SMC(), 40, sampler=replace(sampler, guidance=None))


@pytest.mark.parametrize("lookahead", [Tweedie(), ODELookahead(2)], ids=repr)
@pytest.mark.parametrize("grid", [None, Arc()], ids=repr)
def test_declared_is_spent_with_guidance(line: ToyModel, lookahead: Lookahead, grid: Arc | None) -> None:
    """A backward pass a parent; where the estimate that is differentiated is the one shown, no reward call on top."""
    sampler = Sampler(Linear(), grid=grid, steps=4, lookahead=lookahead, guidance=DPS())
    for search in (SMC(), SMC(ratio=0.5)):
        (result,) = Engine().run([Job(Task(line, "wide", ToyReward()), search, 83, 1, sampler)])
        assert result.spent == estimate_cost(line, search, sampler, 83)
        assert result.spent.backward_passes > 0
        extra = result.spent.reward_calls - search.cost(replace(sampler, guidance=None).bind(line), 83).reward_calls
        assert extra == (0 if lookahead == Tweedie() else result.spent.backward_passes)


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_a_given_number_of_particles_is_what_is_spent(line: ToyModel, ratio: float) -> None:
    sampler, search = Sampler(Linear(), steps=4), SMC(particles=6, ratio=ratio)
    task = Task(line, "wide", ToyReward())
    with pytest.raises(BudgetTooSmall, match="the smallest budget is 24 NFE"):
        Job(task, search, 23, sampler=sampler)
    many, few = (Engine().run([Job(task, search, nfe, 1, sampler)])[0] for nfe in (100, 24))
    assert many.spent.nfe == few.spent.nfe == 24
    assert torch.equal(many.x0, few.x0)
    assert len(many.diagnostics[0]["ess"]) == 4
    bought = Engine().run([Job(task, SMC(ratio=ratio), 24, 1, sampler)])[0]
    assert torch.equal(bought.x0, few.x0)


def test_with_an_ode_the_copies_of_a_particle_stay_one(line: ToyModel) -> None:
    watch = Ancestors()
    job = Job(Task(line, "wide", ToyReward()), SMC(temperature=0.02), 60, 1, Sampler(Linear(), Euler(), steps=4))
    (result,) = Engine(observers=[watch]).run([job])
    (baseline,) = Engine().run([replace(job, search=BestOfN())])
    assert torch.equal(result.sample, baseline.sample)  # the largest estimate at the start is the largest at the end
    assert result.diagnostics[0]["ancestors"] < 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"particles": 1}, "particles of smc must be a whole number >= 2, not 1"),
        ({"temperature": 0.0}, "temperature of smc must be a finite number > 0, not 0.0"),
        ({"threshold": 1.5}, "threshold of smc, from 0 .* not 1.5"),
        ({"ratio": 0.0}, "ratio of smc must be a finite number > 0 and <= 1, not 0.0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(RollflowError, match=message):
        SMC(**settings)  # type: ignore[arg-type]

"""Guidance: how far children lean, whose they are, and what law comes of it, bias included."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollflow.api import Plan, generate
from rollflow.dynamics.grids import Uniform
from rollflow.dynamics.guidance import DPS, GUIDANCE, STEP_SIZES
from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear
from rollflow.dynamics.kernels import Constant, EulerMaruyama, Memoryless, Power
from rollflow.engine import Engine, Job, Observer, Result, Spending, Task, estimate_cost
from rollflow.engine.execution.executor import Executor, Query
from rollflow.errors import NotDifferentiable, RollflowError, UnknownName
from rollflow.models import FlowModel
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.models.scenes import ScenesBase
from rollflow.particles.rng import Noise
from rollflow.requests import Grad, Request, Reward, Slope, drive
from rollflow.rewards import RewardModel
from rollflow.rewards.scenes.scenes import CaptionReward
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SVDD, BestOfN, Particles, Propagator, RolloverBudget, Search

NAN = float("nan")
every_rule = pytest.mark.parametrize("rule", STEP_SIZES)


def slope(task: Task, request: Grad) -> Slope:
    """The engine's answer to one gradient request."""
    [(answer, _)] = Executor(64, 64).answer(Grad, [Query(request, task, task.model.encode(task.prompt))])
    assert isinstance(answer, Slope)
    return answer


# How far.


@settings(max_examples=50)
@given(st.floats(0, 1e3), st.floats(-100, 100), st.floats(-100, 100), st.sampled_from([torch.float32, torch.float64]))
@pytest.mark.slow
def test_the_length_of_a_shift(scale: float, exponent: float, power: float, dtype: torch.dtype) -> None:
    """Constant: scale |gradient|; "reward": scale |gradient| / |r|; "gradient": scale; always along the gradient."""
    unit = torch.tensor([[0.6, -0.8], [-0.8, 0.6]], dtype=torch.float64)
    exponent = exponent * 0.3 if dtype == torch.float32 else exponent
    gradient = (torch.tensor([[10.0**exponent], [3.0]], dtype=torch.float64) * unit).to(dtype)
    reward = torch.tensor([-(10.0**power), 2.0], dtype=torch.float64)
    for rule, length in {
        "constant": gradient.double().norm(dim=1),
        "reward": gradient.double().norm(dim=1) / reward.abs(),
        "gradient": torch.ones(2, dtype=torch.float64),
    }.items():
        shift = DPS(scale, rule).shift(gradient, reward)
        expected = (scale * length[:, None] * unit).to(dtype)
        torch.testing.assert_close(shift, expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-44)


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_follow_is_no_shift(rule: str, dtype: torch.dtype) -> None:
    """A gradient of 0, also where the reward is as small as a scene's can be, and under "reward" a reward of 0."""
    flat = torch.zeros(4, 2, 3, dtype=dtype)
    rewards = torch.tensor([0.0, 1e-100, -1e-310, 5.0], dtype=torch.float64)
    assert DPS(3.0, rule).shift(flat, rewards).eq(0).all()
    steep = DPS(3.0, "reward").shift(flat + 1, rewards)[0]
    assert steep.eq(0).all()


def test_the_smallest_float32_gradient_is_not_too_small_to_follow() -> None:
    least = torch.full((1, 4), 1e-44)
    assert least.gt(0).all()
    torch.testing.assert_close(DPS(2.0, "gradient").shift(least, torch.ones(1).double()), torch.ones(1, 4))


@pytest.mark.parametrize("scale", [-0.1, NAN, math.inf])
def test_a_scale_out_of_range(scale: float) -> None:
    with pytest.raises(RollflowError, match=f"scale of dps must be a finite number.*, not {scale}"):
        DPS(scale)


def test_names() -> None:
    assert GUIDANCE.make("dps(scale=0.5, step_size=reward)") == DPS(0.5, "reward")
    assert GUIDANCE.make("dps") == DPS(1.0, "gradient")
    with pytest.raises(UnknownName, match="unknown step size 'gradeint'; did you mean 'gradient'"):
        DPS(1.0, "gradeint")
    with pytest.raises(UnknownName, match="unknown guidance 'dsp'; did you mean 'dps'"):
        Plan("three cats", guidance="dsp")
    with pytest.raises(UnknownName, match="unknown setting of guidance dps 'scales'; did you mean 'scale'"):
        GUIDANCE.make("dps(scales=2)")


# Which way: the chain rule of a conversion.


def plane(interpolant: Interpolant) -> GaussianMixture:
    means = torch.tensor([[-1.0, -1.0], [1.0, 1.5], [2.0, -1.0]])
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), means, torch.tensor([0.3, 0.5, 0.4]), interpolant)


class Quiet(ToyReward):
    """Not tried before a search, so that all calls are the search's own."""

    probed = False


TARGET = Quiet(torch.tensor([0.5, 0.2]))


@pytest.mark.parametrize("interpolant", [Linear(), VP(), Cosine()], ids=str)
def test_children_lean_by_the_gradient_in_the_samplers_state(interpolant: Interpolant) -> None:
    """A linear model converted: autograd through x_bar / c, and through the same law's own posterior mean there."""
    model = ToyModel({"": plane(Linear())})
    sampler = Sampler(interpolant, steps=6, guidance=DPS(1.0, "constant"))
    propagator = Propagator(sampler.bind(model), Noise(0, 0, model.shape, model.dtype), 99)
    x = torch.linspace(-2, 2, 10, dtype=torch.float64).reshape(5, 2)
    parents = Particles(x, torch.zeros_like(x), torch.zeros_like(x), torch.zeros(5, dtype=torch.float64))
    task, conversion = Task(model, "", TARGET), propagator.dynamics.conversion
    cleans: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        lambda x_bar, s: model.mixtures[""].denoised(x_bar / conversion.scale(s), conversion.time(s)),
        lambda x_bar, s: plane(interpolant).denoised(x_bar, s),
    )

    def answered(request: Request) -> Any:
        assert isinstance(request, Grad)
        return slope(task, request)

    for step in range(propagator.dynamics.transitions):
        leaning = drive(propagator.guided(parents, step), answered)
        s = propagator.time(step)
        for clean in cleans:
            leaf = x.clone().requires_grad_()
            [gradient] = torch.autograd.grad(TARGET.score(clean(leaf, s), [""] * 5).sum(), leaf)
            torch.testing.assert_close(leaning.guidance_shift, gradient, rtol=1e-8, atol=1e-10)
        assert float(gradient.abs().max()) > 0.01 or step == 0  # pure noise promises the same of every state
    assert drive(propagator.guided(parents, propagator.dynamics.transitions), print) is parents
    assert drive(propagator.guided(leaning, 0), print) is leaning


@every_rule
@pytest.mark.parametrize("search", [BestOfN(), SVDD(2), RolloverBudget(2, 3)], ids=lambda search: search.name)
@pytest.mark.slow
def test_a_converted_model_is_guided_as_one_of_the_target_is(search: Search, rule: str) -> None:
    """Whole jobs up to the last evaluation: a linear model sampled along VP, and the same law as a model of VP."""

    def result(source: Interpolant, guidance: DPS | None) -> Result:
        sampler = Sampler(VP(), steps=5, finish=False, guidance=guidance)
        return Engine().run([Job(Task(ToyModel({"": plane(source)}), "", TARGET), search, 70, 3, sampler)])[0]

    native, converted = (result(source, DPS(0.3, rule)) for source in (VP(), Linear()))
    torch.testing.assert_close(converted.x0, native.x0, rtol=1e-7, atol=1e-7)
    assert converted.spent == native.spent
    assert float((native.x0 - result(VP(), None).x0).norm()) > 0.01


# Whose: one gradient a parent.


class Steps(ToyModel):
    """A toy that remembers its parents, one call that is differentiated a step, and the children that follow."""

    def __init__(self, mixtures: dict[str, GaussianMixture]) -> None:
        super().__init__(mixtures)
        self.parents: list[Tensor] = []
        self.children: list[list[Tensor]] = []

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        if x.requires_grad:
            self.parents.append(x.detach())
            self.children.append([])
        elif self.parents:
            self.children[-1].append(x)
        return super().velocity(x, t, conditions)


@pytest.mark.parametrize("search", [SVDD(3), RolloverBudget(1, 20)], ids=lambda search: search.name)
def test_all_children_of_a_parent_share_its_shift(search: Search) -> None:
    """What is left of a child without its kernel's mean and noise is the parent's gradient, brought to length 0.7."""
    model, seed, times = Steps({"": plane(Linear())}), 5, Uniform()(5)
    sampler = Sampler(Linear(), steps=5, guidance=DPS(0.7))
    Engine().run([Job(Task(model, "", TARGET), search, 99, seed, sampler)])
    assert len(model.parents) == len(model.children) == 4
    noise = Noise(seed, 0, model.shape, model.dtype)
    for step, (x, born) in enumerate(zip(model.parents, model.children, strict=True), 1):
        t, children = times[step - 1].expand(len(x)), torch.cat(born)
        each = len(children) // len(x)
        mean, std = EulerMaruyama().moments(Linear(), x, model.mixtures[""].velocity(x, t), t, times[step])
        drawn = noise.normals(step, [row for row in range(len(x)) for _ in range(each)], list(range(each)) * len(x))
        left = children.view(len(x), each, 2) - mean[:, None] - std[0] * drawn.view(len(x), each, 2)
        torch.testing.assert_close(left, left[:, :1].expand_as(left), rtol=0, atol=1e-12)
        if step > 1:  # at t = 1 there is nothing to follow but rounding
            leaf = x.clone().requires_grad_()
            [gradient] = torch.autograd.grad(TARGET.score(model.mixtures[""].denoised(leaf, t), []).sum(), leaf)
            torch.testing.assert_close(left[:, 0], 0.7 * gradient / gradient.norm(dim=1, keepdim=True))
    assert max(sum(map(len, born)) for born in model.children) >= 5 * len(model.parents[0])


@pytest.mark.parametrize("nfe", [60, 200])
@pytest.mark.parametrize("populations", [1, 3])
@pytest.mark.slow
def test_one_backward_pass_a_parent(populations: int, nfe: int) -> None:
    """Streams or chains times transitions, however many children; the rest of the budget is theirs."""
    model, sampler = Steps({"": plane(Linear())}), Sampler(Linear(), steps=4, guidance=DPS())
    for search in (SVDD(populations), RolloverBudget(populations, 2)):
        model.parents.clear()
        [result] = Engine().run([Job(Task(model, "", TARGET), search, nfe, 1, sampler)])
        assert result.spent.backward_passes == sum(map(len, model.parents)) == 3 * populations
        assert result.spent.reward_calls == result.spent.nfe
        assert nfe - populations < result.spent.nfe <= nfe


# What law comes of it: prior N(1, 1/2) along A and across it, r = -2 (A.x0 - 3)^2, so that the tilt is Gaussian.


A, ACROSS = torch.tensor([0.6, 0.8], dtype=torch.float64), torch.tensor([-0.8, 0.6], dtype=torch.float64)
PRIOR, SPREAD, ASKED, TOLERANCE = 1.0, 0.5, 3.0, 0.25
BAYES = ((PRIOR / SPREAD + ASKED / TOLERANCE) / (1 / SPREAD + 1 / TOLERANCE), 1 / (1 / SPREAD + 1 / TOLERANCE))
POINT = GaussianMixture(torch.ones(1), (PRIOR * (A + ACROSS))[None], torch.tensor([SPREAD], dtype=torch.float64).sqrt())


class Measured(RewardModel):
    """log N(3; A.x0, 1/4) up to a constant."""

    name = "measured"
    description = "how near A.x0 is to what was measured"
    differentiable = True

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return -(samples @ A - ASKED).square() / (2 * TOLERANCE)


class Law(NamedTuple):
    mean: float
    variance: float


Rho = Callable[[float, float], float]


def tilting(t: float, h: float) -> float:
    """The step size that gives the drift of the tilted law, were r(x0(x_t)) its log E[exp(r(x0)) | x_t]; g = 3 t^2."""
    return h * (9 * t**4 / 2 + t / (1 - t)) if t < 1 else 0.0


def share_of(t: float) -> float:
    """What the likelihood of x_t leaves of DPS's gradient when it counts the spread of A.x0 given x_t."""
    return TOLERANCE / (TOLERANCE + SPREAD * t**2 / ((1 - t) ** 2 * SPREAD + t**2))


def constant_share(scale: float) -> Rho:
    """A step size of scale / steps."""
    return lambda t, h: scale * h


def dps_law(steps: int, rho: Rho) -> Law:
    """Exact law of A.x0 under DPS: linear interpolant, uniform grid, Euler-Maruyama with g = 3 t^2.

    With V = (1 - t)^2 / 2 + t^2 and x0 = 1 + k (x - (1 - t)), k = (1 - t) / (2 V), a step is affine in x:
    x - h (v - g^2 / 2 score) + g sqrt(h) z - rho k (x0 - 3) 4. The last clean estimate is what is returned.
    """
    mean, variance, h = 0.0, 1.0, 1 / steps
    for i in range(steps - 1):
        t = 1 - i * h
        alpha, g2 = 1 - t, 9 * t**4
        marginal = alpha**2 * SPREAD + t**2
        k, q = alpha * SPREAD / marginal, (t - alpha * SPREAD) / marginal
        factor = 1 - h * (q + g2 / (2 * marginal)) - rho(t, h) * k**2 / TOLERANCE
        drift = (-1 - q * alpha - g2 * alpha / (2 * marginal)) * PRIOR
        offset = -h * drift - rho(t, h) * k * (PRIOR * (1 - k * alpha) - ASKED) / TOLERANCE
        mean, variance = factor * mean + offset, factor**2 * variance + g2 * h
    alpha = 1 - h
    k = alpha * SPREAD / (alpha**2 * SPREAD + h**2)
    return Law(PRIOR + k * (mean - alpha * PRIOR), k**2 * variance)


class Last(Observer):
    """The samples that were scored last."""

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.samples = request.x0


@pytest.mark.slow
def test_two_thousand_chains_have_the_mean_and_variance_of_the_recursion() -> None:
    """Within four standard errors; along A, and across it, where nothing leans."""
    n, steps, scale, last = 2000, 16, 0.025, Last()
    sampler = Sampler(Linear(), steps=steps, guidance=DPS(scale, "constant"))
    job = Job(Task(ToyModel({"": POINT}), "", Measured()), BestOfN(), n * steps, 11, sampler)
    Engine(n, [last], max_grad_rows=n).run([job])
    for direction, law in ((A, dps_law(steps, lambda t, h: scale)), (ACROSS, dps_law(steps, lambda t, h: 0.0))):
        drawn = last.samples @ direction
        assert abs(float(drawn.mean()) - law.mean) < 4 * math.sqrt(law.variance / n)
        assert abs(float(drawn.var()) - law.variance) < 4 * law.variance * math.sqrt(2 / (n - 1))


def test_what_a_constant_step_size_gives_in_place_of_the_posterior() -> None:
    """Asked for N(7/3, 1/6). The bias of DPS, for rho = scale / steps and steps towards infinity:

    a scale of 0.25 moves the mean from the prior's 1 by 3/4 of the way, that of 0.387 all the way, one of 1 too far;
    where the mean is right the variance is 0.098, not 0.167, and no scale gets both right.
    """
    assert pytest.approx((7 / 3, 1 / 6)) == BAYES
    laws = {scale: dps_law(4000, constant_share(scale)) for scale in (0.0, 0.25, 0.387, 1.0)}
    way = {scale: (law.mean - PRIOR) / (BAYES[0] - PRIOR) for scale, law in laws.items()}
    assert way == pytest.approx({0.0: 0, 0.25: 0.75, 0.387: 1, 1.0: 1.46}, abs=0.005)
    spread = {scale: law.variance / BAYES[1] for scale, law in laws.items()}
    assert spread == pytest.approx({0.0: 3, 0.25: 1.042, 0.387: 0.587, 1.0: 0.048}, abs=0.005)
    # The bias is not that of steps too long: these are a quarter as long.
    assert tuple(dps_law(16_000, lambda t, h: 0.387 * h)) == pytest.approx(tuple(laws[0.387]), rel=0.001)
    # A rho that does not shrink as steps grow sends the mean past the posterior's, to what was measured.
    assert [dps_law(steps, lambda t, h: 0.025).mean for steps in (16, 160)] == pytest.approx([2.250, 3.017], abs=0.001)


def test_the_step_size_of_the_tilted_law_and_what_is_neglected() -> None:
    """Right for a likelihood that counts the spread of x0 given x_t: the posterior, to first order in 1 / steps.

    DPS does not count it, and overshoots with that step size: mean 3.06, variance 0.077, in place of 2.33 and 0.167.
    """
    errors = []
    for steps in (200, 400, 800):
        law = dps_law(steps, lambda t, h: tilting(t, h) * share_of(t))
        errors.append(abs(law.mean - BAYES[0]) + abs(law.variance - BAYES[1]))
    assert errors[-1] < 1e-3
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([2, 2], rel=0.05)
    assert dps_law(4000, tilting) == pytest.approx((3.057, 0.0775), rel=1e-3)


@pytest.mark.parametrize("diffusion", [Power(), Constant(0.0), Constant(1.3)], ids=str)
@pytest.mark.parametrize("interpolant", [Linear(), VP(), Cosine()], ids=str)
def test_the_step_size_of_the_tilted_law_for_any_interpolant(interpolant: Interpolant, diffusion: Any) -> None:
    """rho = (g^2 + m^2) / 2 (t - s), m of ``Memoryless``: exact for a linear reward and one Gaussian."""
    prior = GaussianMixture(POINT.weights, POINT.means, POINT.stds, interpolant)
    tilted, kernel = prior.tilted(torch.tensor([1.0, 0.0])), EulerMaruyama(diffusion)
    for at, to in ((0.95, 0.9), (0.6, 0.3), (0.2, 0.1)):
        t, s = torch.tensor([at], dtype=torch.float64), torch.tensor([to], dtype=torch.float64)
        x = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
        gradient = slope(Task(ToyModel({"": prior}), "", ToyReward()), Grad(x, t, at)).gradient
        plain, wanted = (kernel.moments(interpolant, x, law.velocity(x, t), t, s) for law in (prior, tilted))
        rho = (diffusion.g(interpolant, t) ** 2 + Memoryless(latest=0.99).g(interpolant, t) ** 2) / 2 * (t - s)
        torch.testing.assert_close(plain.mean + rho * gradient, wanted.mean, rtol=1e-9, atol=1e-12)
        assert float((rho * gradient).abs().max()) > 1e-3


# Scenes.


PROMPTS = ("three apples on snow background", "two stars", "one car above two dogs", "four houses on sky background")


@pytest.mark.slow
def test_gradients_through_the_embedded_networks() -> None:
    """Finite differences, up the gradient and along random directions, agree on the whole to a tenth.

    The detector's peaks and the pictures' clipping have kinks, which is what the tenth is for.
    """
    model, reward, n, h = ScenesBase(), CaptionReward(), len(PROMPTS), 3e-3
    conditions, rng = [model.encode(prompt) for prompt in PROMPTS], torch.Generator().manual_seed(0)
    x, t = torch.randn(n, *model.shape, generator=rng), torch.full((n,), 0.8, dtype=torch.float64)
    with torch.no_grad():
        x = x - 0.2 * model.velocity(x, torch.ones(n), conditions)
    group = [
        Query(Grad(x[i : i + 1], t[i : i + 1], 0.8), Task(model, prompt, reward), conditions[i])
        for i, prompt in enumerate(PROMPTS)
    ]
    executor = Executor(64, 16)
    gradient = torch.cat([each.gradient for each, _ in executor.answer(Grad, group)])
    assert gradient.dtype == torch.float32
    assert float(gradient.norm()) > 1e-3
    ways = torch.cat([gradient[None], torch.randn(6, *x.shape, generator=rng)])
    ways = ways / ways.flatten(2).norm(dim=2).clamp(min=1e-30)[..., None, None, None]

    def rewards(states: Tensor) -> Tensor:
        rows = states.flatten(0, 1)
        with torch.no_grad():
            v = model.velocity(rows, t.repeat(len(ways)), conditions * len(ways))
            return reward.score(model.decode(rows - 0.8 * v), PROMPTS * len(ways)).view(len(ways), n)

    differences = (rewards(x + h * ways) - rewards(x - h * ways)) / (2 * h)
    slopes = (ways * gradient).flatten(2).sum(2)
    assert float((differences - slopes).norm()) < 0.1 * float(slopes.norm())


@pytest.mark.slow
def test_scenes_are_guided_end_to_end() -> None:
    plan = Plan(PROMPTS[0], nfe=20, method=RolloverBudget(2, 3), steps=3, guidance="dps(scale=0.5)", seed=3)
    [guided], [plain] = (
        Engine().run([one.job()]) for one in (plan, Plan(PROMPTS[0], nfe=20, method=plan.method, steps=3, seed=3))
    )
    assert guided.spent == plan.cost() == estimate_cost(ScenesBase, RolloverBudget(2, 3), plan.sampler, 20)
    assert guided.spent == Spending(nfe=20, network_rows=40, reward_calls=20, decodes=21, backward_passes=4)
    assert plain.spent.backward_passes == 0
    assert guided.reward == pytest.approx(float(CaptionReward().score(guided.sample[None], [PROMPTS[0]])), rel=1e-3)
    assert float((guided.x0 - plain.x0).norm()) > 0.01
    assert not guided.sample.requires_grad


# What cannot be guided.


def test_a_reward_without_a_gradient_is_refused_before_anything_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, by object, in one call and in a plan; the error names a reward that has one."""

    def load(*_: Any, **settings: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("rollflow.models.scenes.model.load_weights", load)
    monkeypatch.setattr("rollflow.rewards.scenes.base.load_weights", load)
    told = "guidance needs a differentiable reward, which 'count' is not; known: .*caption"
    for guidance in ("dps", "dps(scale=2)", DPS()):
        with pytest.raises(NotDifferentiable, match=told):
            Plan("three cats", reward="count", guidance=guidance, surrogate=False)
        with pytest.raises(NotDifferentiable, match=told):
            generate("three cats", reward="count", guidance=guidance, surrogate=False)
    assert Plan("three cats", reward="caption", guidance="dps", method="svdd", steps=5, nfe=60).cost() == Spending(
        nfe=60, network_rows=120, reward_calls=60, decodes=61, backward_passes=8
    )
    with pytest.raises(RollflowError, match="weights were loaded"):
        generate("three cats", reward="caption", guidance="dps")


def test_a_job_refuses_it_as_well() -> None:
    class Blind(ToyReward):
        name = "blind"
        differentiable = False

    model: FlowModel = ToyModel({"": POINT})
    for task in (Task(model, "", Blind()), Task(model, "nowhere", Blind())):
        with pytest.raises(NotDifferentiable, match=r"which 'blind' is not; known: .*caption"):
            Job(task, SVDD(1), 40, sampler=Sampler(Linear(), guidance=DPS()))
        assert Job(task, SVDD(1), 40, sampler=Sampler(Linear())).nfe == 40

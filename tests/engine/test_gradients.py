"""Gradients through the engine: those of autograd and of closed forms, whatever shares a call with what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollflow.dynamics.guidance import DPS, STEP_SIZES
from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear
from rollflow.dynamics.kernels import DDIM, Euler, EulerMaruyama, Heun
from rollflow.dynamics.lookahead import ODELookahead, Tweedie
from rollflow.engine import Caps, Checkpoint, Engine, Job, JobsFailed, Observer, Result, Spending, Task, estimate_cost
from rollflow.engine.execution.executor import Executor, Query
from rollflow.errors import BadReward, BudgetExceeded, RollflowWarning
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Grad, Reward, Slope
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SVDD, BestOfN, RolloverBudget, Search
from rollflow.testing import reference

SEARCHES: list[Search] = [BestOfN(), SVDD(2), RolloverBudget(2, 3)]
LEAN = DPS(0.2)
GUIDED = Sampler(Linear(), steps=4, guidance=LEAN)
every_search = pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.name)
every_interpolant = pytest.mark.parametrize("interpolant", [Linear(), VP(), Cosine()], ids=str)


class Tracked(ToyModel):
    """A toy that remembers how many rows each call had, and whether it was differentiated."""

    def __init__(self, mixtures: dict[str, GaussianMixture]) -> None:
        super().__init__(mixtures)
        self.plain: list[int] = []
        self.differentiated: list[int] = []

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        (self.differentiated if x.requires_grad else self.plain).append(len(x))
        return super().velocity(x, t, conditions)


class Quiet(ToyReward):
    """Not tried before a search, so that all calls are the search's own."""

    probed = False


class Prompted(Quiet):
    """Another target for every prompt; judges two samples at once."""

    batch_size = 2

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        target = torch.tensor([(ord(prompt[0]) - ord("l")) / 5 for prompt in prompts], dtype=samples.dtype)
        return -(samples - target[:, None]).square().sum(-1)


def times(*t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def slopes(executor: Executor, reward: ToyReward, *asked: tuple[ToyModel, str, Tensor, Tensor]) -> list[Slope]:
    """Answers to gradient requests (model, prompt, x, t) that share their calls."""
    group = [Query(Grad(x, t, 0.5), Task(model, prompt, reward), prompt) for model, prompt, x, t in asked]
    return [slope for slope, _ in executor.answer(Grad, group)]


@every_interpolant
def test_the_slope_is_that_of_the_posterior_mean(interpolant: Interpolant) -> None:
    """Autograd through the mixture's own E[x0 | x_t], which knows nothing of velocities; both ends of time included."""
    mixture = GaussianMixture(
        torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.0], [1.0, 0.8]]), torch.tensor([0.3, 0.7]), interpolant
    )
    reward, t = ToyReward(torch.tensor([0.3, -1.0])), times(1.0, 0.8, 0.5, 0.1, 0.001)
    x = torch.linspace(-2, 2, 10, dtype=torch.float64).reshape(5, 2)
    [slope] = slopes(Executor(64, 64), reward, (ToyModel({"": mixture}), "", x, t))
    leaf = x.clone().requires_grad_()
    clean = mixture.denoised(leaf, t)
    rewards = reward.score(clean, [""] * 5)
    [gradient] = torch.autograd.grad(rewards.sum(), leaf)
    torch.testing.assert_close(slope, Slope(mixture.velocity(x, t), clean, rewards, gradient), rtol=1e-9, atol=1e-12)
    assert not any(part.requires_grad for part in slope)


@every_interpolant
def test_the_slope_of_one_gaussian_is_affine(interpolant: Interpolant) -> None:
    """x0 = mu + k (x - alpha mu), k = alpha s^2 / (alpha^2 s^2 + sigma^2): gradient -2 k (x0 - target)."""
    mu, s, target = torch.tensor([0.4, -0.2]).double(), 0.6, torch.tensor([1.0, 2.0]).double()
    one = GaussianMixture(torch.ones(1), mu[None], torch.tensor([s], dtype=torch.float64), interpolant)
    x, t = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2), times(0.9, 0.5, 0.2)
    [slope] = slopes(Executor(64, 64), ToyReward(target), (ToyModel({"": one}), "", x, t))
    alpha, sigma = interpolant.alpha(t)[:, None], interpolant.sigma(t)[:, None]
    k = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
    clean = mu + k * (x - alpha * mu)
    torch.testing.assert_close(slope.clean, clean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope.gradient, -2 * k * (clean - target), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 64])
def test_rows_of_different_prompts_and_times_do_not_mix(line: ToyModel, most: int) -> None:
    """The gradient of the sum of all rewards holds each row's own, to the last bit; no call is above the limit."""
    model, reward = Tracked(line.mixtures), Prompted()
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    t = times(1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.02)
    prompts = {"left": slice(0, 3), "wide": slice(3, 4), "right": slice(4, 7)}
    together = slopes(Executor(64, most), reward, *((model, p, x[rows], t[rows]) for p, rows in prompts.items()))
    assert max(model.differentiated) <= most
    assert len(model.differentiated) == -(-7 // most)
    assert model.plain == []
    for (prompt, rows), slope in zip(prompts.items(), together, strict=True):
        for i, row in enumerate(range(rows.start, rows.stop)):
            [alone] = slopes(Executor(1, 1), reward, (line, prompt, x[row : row + 1], t[row : row + 1]))
            for mine, theirs in zip(slope, alone, strict=True):
                assert torch.equal(mine[i : i + 1], theirs)


JUDGES = [Prompted(), Quiet(torch.tensor([0.5]))]
searches: st.SearchStrategy[Search] = st.one_of(
    st.just(BestOfN()),
    st.builds(SVDD, st.integers(1, 3)),
    st.builds(RolloverBudget, st.integers(1, 3), st.integers(1, 4)),
)
samplers = st.builds(
    Sampler,
    interpolant=st.sampled_from([Linear(), VP(), Cosine()]),
    kernel=st.sampled_from([Euler(), Heun(), EulerMaruyama(), DDIM()]),
    steps=st.integers(1, 5),
    lookahead=st.one_of(st.just(Tweedie()), st.builds(ODELookahead, st.integers(1, 3))),
    finish=st.sampled_from([None, True, False]),
    guidance=st.none() | st.builds(DPS, st.sampled_from([0.0, 0.05, 0.4]), st.sampled_from(list(STEP_SIZES))),
)
recipes = st.tuples(searches, samplers, st.integers(0, 20), st.integers(0, 2**63 - 1), st.integers(0, 4))


@settings(max_examples=60)
@given(st.lists(recipes, min_size=1, max_size=5), st.integers(1, 40), st.integers(1, 20))
@pytest.mark.slow
def test_the_engine_equals_drive_with_guidance(
    line: ToyModel,
    plane: ToyModel,
    recipes: list[tuple[Search, Sampler, int, int, int]],
    max_rows: int,
    max_grad_rows: int,
) -> None:
    """Jobs with and without guidance together: sample, reward and account, backward passes included, as declared."""
    jobs = []
    for search, sampler, spare, seed, at in recipes:
        model, prompt = [(model, prompt) for model in (line, plane) for prompt in model.mixtures][at]
        nfe = search.smallest_nfe(sampler.bind(model)) + spare
        jobs.append(Job(Task(model, prompt, JUDGES[seed % 2]), search, nfe, seed, sampler))
    for job, result in zip(jobs, Engine(max_rows, max_grad_rows=max_grad_rows).run(jobs), strict=True):
        expected = reference.alone(job)
        assert torch.equal(result.x0, expected.best.x0)
        assert (result.reward, result.noise_level) == (expected.best.reward, expected.best.noise_level)
        assert result.spent == expected.spent == estimate_cost(job.task.model, job.search, job.sampler, job.nfe)
        parents = job.sampler.guidance is not None and job.sampler.steps > 1
        assert (result.spent.backward_passes > 0) == parents
        assert result.spent.nfe <= job.nfe
        assert not result.interrupted


@pytest.mark.parametrize(("most", "largest"), [(1, 1), (3, 3), (16, 10), (64, 19)])
@pytest.mark.slow
def test_no_differentiated_call_is_above_its_own_limit(line: ToyModel, most: int, largest: int) -> None:
    """``max_grad_rows`` bounds those calls alone, 19 rows of all jobs at first in equal parts, and changes no bit."""
    model, wide = Tracked(line.mixtures), Engine(64, max_grad_rows=64)

    def jobs(model: ToyModel) -> list[Job]:
        return [Job(Task(model, "left", JUDGES[1]), search, 60, i, GUIDED) for i, search in enumerate(SEARCHES)]

    results = Engine(64, max_grad_rows=most).run(jobs(model))
    assert max(model.differentiated) == largest <= most
    assert sum(model.differentiated) == sum(result.spent.backward_passes for result in results)
    assert max(model.plain) > 16
    for result, other in zip(results, wide.run(jobs(line)), strict=True):
        assert torch.equal(result.x0, other.x0)
        assert (result.reward, result.spent, result.trace) == (other.reward, other.spent, other.trace)


def test_gradients_do_not_hold_up_velocities(line: ToyModel) -> None:
    """Chains that are at different transitions share every call: as many as a chain draws, no more for its parents."""
    model = Tracked(line.mixtures)
    job = Job(Task(model, "left", JUDGES[1]), RolloverBudget(2, 3), 60, 4, GUIDED)
    Engine().run([job])
    children = 60 // 2 - 3 - 3  # of a chain: its share less the initial draws and three parents
    assert model.plain == [6, *[2] * children]
    assert sum(model.differentiated) == 6


class Watch(Observer):
    """The best reward seen, and every place from which the job can go on."""

    def __init__(self) -> None:
        self.best = -torch.inf
        self.checkpoints: list[Checkpoint] = []

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        assert len(rewards) == len(request.x0)
        self.best = max(self.best, float(rewards.max()))

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint)


@every_search
@pytest.mark.parametrize("share", [0.0, 0.4, 0.7, 1.0])
def test_a_cap_on_backward_passes_stops_with_the_best_so_far(line: ToyModel, search: Search, share: float) -> None:
    """What was seen by then, the clean estimates of gradients included; the full amount changes nothing."""
    model, watch, task = Tracked(line.mixtures), Watch(), Task(line, "wide", JUDGES[1])
    full = estimate_cost(line, search, GUIDED, 30).backward_passes
    cap = int(share * full)
    job = Job(Task(model, "wide", JUDGES[1]), search, 30, 1, GUIDED, Caps(backward_passes=cap))
    if share == 0 and search == BestOfN():
        with pytest.raises(JobsFailed, match="backward_passes: 7 would exceed the cap of 0") as failed:
            Engine(observers=[watch]).run([job])
        assert isinstance(failed.value.failures[0], BudgetExceeded)
        assert model.plain == model.differentiated == []
        assert watch.checkpoints == []
        return
    [result], [free] = Engine(observers=[watch]).run([job]), Engine().run([Job(task, search, 30, 1, GUIDED)])
    assert result.interrupted == (share < 1)
    assert result.spent.backward_passes == sum(model.differentiated) <= cap
    if share == 1:
        assert torch.equal(result.x0, free.x0)
        assert result.spent == free.spent
    else:
        assert result.reward == watch.best == float(JUDGES[1].score(result.sample[None], ["wide"]))
        assert result.spent.backward_passes > cap - 7  # the largest single request
        assert result.spent.nfe < free.spent.nfe


class Kinked(ToyReward):
    """Has no slope for one prompt where its value is finite: the root of a square at 0."""

    def __init__(self, target: Tensor) -> None:
        super().__init__(target)
        self.bounds = None

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        rows = torch.tensor([[prompt == "wide"] for prompt in prompts])
        return super().score(samples, prompts) + torch.where(rows, samples * 0, 1).square().sum(-1).sqrt()


class NotANumber(ToyReward):
    """Its third sample of one prompt."""

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        rewards, of_prompt = super().score(samples, prompts), [i for i, p in enumerate(prompts) if p == "wide"]
        return rewards.index_fill(0, torch.tensor(of_prompt[2:3], dtype=torch.int64), torch.nan)


@pytest.mark.parametrize(
    ("judge", "counted", "told"),
    [
        (Kinked(torch.tensor([0.5])), {"gradient of the reward": 9}, "no finite gradient to follow 9 times"),
        (
            NotANumber(torch.tensor([0.5])),
            {"reward": 4},
            r"4 samples could not be chosen \(reward 4\); first, reward 'toy' gave nan for row 2 of 3 of the prompt",
        ),
    ],
    ids=["gradient", "reward"],
)
def test_a_gradient_that_is_not_finite_is_not_followed(
    line: ToyModel, judge: ToyReward, counted: dict[str, int], told: str
) -> None:
    """Even within one call: that is counted and told, and all jobs end as the specification says."""
    prompts = ("left", "wide", "right")
    jobs = [Job(Task(line, prompt, judge), BestOfN(), 12, i, GUIDED) for i, prompt in enumerate(prompts)]
    with pytest.warns(RollflowWarning, match=told):
        results = Engine().run(jobs)
    assert [result.ineligible for result in results] == [{}, counted, {}]
    for job, result in zip(jobs, results, strict=True):
        assert torch.equal(result.x0, reference.alone(job).best.x0)
    if "reward" not in counted:  # it went where it goes without guidance
        free = Job(Task(line, "wide", judge), BestOfN(), 12, 1, replace(GUIDED, guidance=None))
        assert torch.equal(results[1].x0, reference.alone(free).best.x0)


class Weighted(ToyReward):
    """Has weights that would learn, so that its answer has a gradient whatever becomes of the samples."""

    def __init__(self, seen: Callable[[Tensor], Tensor]) -> None:
        super().__init__(torch.zeros(1))
        self.weight, self.seen = torch.ones((), requires_grad=True), seen

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.weight * super().score(self.seen(samples), prompts)


class Asleep(ToyReward):
    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return super().score(samples, prompts)


class Painter(ToyModel):
    """A toy with weights that would learn, in its reading of prompts, its network and its decoder."""

    def __init__(self, mixtures: dict[str, GaussianMixture], *, velocity: bool = True, decode: bool = True) -> None:
        super().__init__(mixtures)
        self.gain, self.through_velocity, self.through_decode = torch.ones((), requires_grad=True), velocity, decode
        self.conditions: list[Tensor] = []

    def encode(self, prompt: str) -> Any:
        self.conditions.append(self.gain * 1)
        return super().encode(prompt)

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        return self.gain * super().velocity(x if self.through_velocity else x.detach(), t, conditions)

    def decode(self, x0: Tensor) -> Tensor:
        return self.gain * (x0 if self.through_decode else x0.detach())


def outcome(model: ToyModel, judge: ToyReward) -> Result:
    [result] = Engine().run([Job(Task(model, "left", judge), SVDD(1), 12, 0, GUIDED)])
    return result


DECODER_OR_REWARD = "decode of model 'toy' and the reward's score must not detach or run under torch.no_grad"


@pytest.mark.parametrize(
    ("judge", "cut", "told"),
    [
        (Asleep(), {}, DECODER_OR_REWARD),
        (Weighted(Tensor.detach), {}, DECODER_OR_REWARD),
        (ToyReward(), {"decode": False}, DECODER_OR_REWARD),
        (ToyReward(), {"velocity": False}, "velocity of model 'toy' must not detach or run under torch.no_grad"),
    ],
    ids=["no_grad", "detached", "decoder", "network"],
)
def test_a_gradient_that_is_cut_off_is_told(line: ToyModel, judge: ToyReward, cut: dict[str, bool], told: str) -> None:
    """Also where weights that would learn, or the short cut x0 = x - t v past the network, make it look like one."""
    with pytest.raises(JobsFailed, match="no gradient of reward 'toy' reaches the state") as failed:
        outcome(Painter(line.mixtures, **cut), judge)
    assert isinstance(failed.value.failures[0], BadReward)
    assert told in str(failed.value)


def test_weights_that_would_learn_leave_no_graph_behind(line: ToyModel) -> None:
    """The result can be turned into an array, and the encoded prompt holds nothing to differentiate."""
    model = Painter(line.mixtures)
    result, plain = outcome(model, Weighted(lambda samples: samples)), outcome(line, ToyReward(torch.zeros(1)))
    assert torch.equal(result.sample, plain.sample)
    assert not result.sample.requires_grad
    assert not result.x0.requires_grad
    assert [condition.requires_grad for condition in model.conditions] == [False]

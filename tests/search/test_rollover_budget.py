"""RolloverBudget against its pseudocode, and the rollover itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.grids import Arc
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama
from rollflow.engine import Engine, Job, Observer, Task
from rollflow.errors import RollflowError, RollflowWarning
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.base import RewardModel
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SEARCHES, Cost, Progress, RolloverBudget
from rollflow.search.rbf.acceptance import Acceptance, AtLeast, BestSoFar, OverParent, OverQuantile
from rollflow.search.rbf.quota import PublishedQuota, QuotaSchedule, UniformQuota, WeightedQuota
from rollflow.search.recombination import recombined


class Chain(NamedTuple):
    x0: Tensor
    reward: float
    nfe: int


Rule = Callable[[list[float], float, float], bool]
"""Whether to stop, given the rewards of this step's children, of their parent, and the best so far."""


def first_over_best(rewards: list[float], r: float, r_star: float) -> bool:
    return rewards[-1] > r_star


def pseudocode(
    model: ToyModel,
    prompt: str,
    reward: ToyReward,
    noise: Noise,
    budget: int,
    n0: int,
    T: int,
    stop: Rule = first_over_best,
    weights: Sequence[float] = (),
    recombine: bool = False,
) -> Chain:
    """One chain, line by line, a row at a time: linear interpolant, uniform grid, Euler-Maruyama."""
    times = torch.arange(T, 0, -1, dtype=torch.float64) / T
    nfe = 0

    def evaluate(x: Tensor, i: int) -> tuple[Tensor, Tensor, Tensor, float]:
        nonlocal nfe
        nfe += 1
        v = model.velocity(x, times[i][None], [prompt])
        x0 = denoised_from_velocity(Linear(), v, x, times[i])
        return x, v, x0, float(reward.score(x0, [prompt]))

    drawn = [evaluate(noise.normal(0, 0, k)[None], 0) for k in range(n0)]
    x, v, x0, r_star = max(drawn, key=lambda one: one[3])
    r = r_star
    left = budget - n0  # on this grid finishing is free
    Q = [left // (T - 1)] * (T - 1)
    if weights:
        Q = [1 + int((left - (T - 1)) * w / sum(weights)) for w in weights]
    carry = 0
    for i in range(1, T):
        last = i == T - 1
        quota = left if last else Q[i - 1] + carry
        mean, std = EulerMaruyama().moments(Linear(), x, v, times[i - 1], times[i])
        best = None
        rewards: list[float] = []
        noises: list[Tensor] = []
        while True:
            z = noise.normal(i, 0, len(rewards))
            if recombine and len(rewards) in (3, 7, 15, 31):
                made = recombined(torch.stack(noises), torch.tensor(rewards, dtype=torch.float64))
                z = z if made is None else made[0]
            noises.append(z)
            child = evaluate(mean + std * z, i)
            rewards.append(child[3])
            if best is None or child[3] > best[3]:
                best = child
            if not last and stop(rewards, r, r_star):
                carry = quota - len(rewards)
                break
            if len(rewards) == quota:
                carry = 0
                break
        left -= len(rewards)
        x, v, x0, r = best
        r_star = max(r_star, r)
    return Chain(x0[0], r, nfe)


@pytest.mark.parametrize(("T", "n0", "chains", "nfe"), [(2, 1, 1, 2), (4, 3, 1, 30), (6, 5, 2, 73), (10, 25, 2, 120)])
@pytest.mark.parametrize("seed", [0, 9])
@pytest.mark.slow
def test_the_pseudocode_gives_the_same_bits(plane: ToyModel, T: int, n0: int, chains: int, nfe: int, seed: int) -> None:
    """The best chain's sample, its reward and the NFE, where the larger shares of an uneven budget come last."""
    reward = ToyReward(torch.tensor([1.0, 1.5]))
    job = Job(Task(plane, "corners", reward), RolloverBudget(chains, n0), nfe, seed, Sampler(Linear(), steps=T))
    (result,) = Engine().run([job])
    budgets = [(nfe + c) // chains for c in range(chains)]
    expected = [
        pseudocode(plane, "corners", reward, Noise(seed, c, plane.shape, plane.dtype), budgets[c], n0, T)
        for c in range(chains)
    ]
    best = max(expected, key=lambda chain: chain.reward)
    assert torch.equal(result.sample, best.x0)
    assert result.reward == best.reward
    assert result.spent.nfe == result.spent.reward_calls == sum(chain.nfe for chain in expected) == nfe


@pytest.mark.parametrize(("T", "n0", "nfe"), [(4, 3, 30), (2, 1, 40), (3, 1, 7)])
def test_every_power_of_two_recombines_its_siblings(plane: ToyModel, T: int, n0: int, nfe: int) -> None:
    reward = ToyReward(torch.tensor([1.0, 1.5]))
    search = RolloverBudget(1, n0, recombine=True)
    [result] = Engine().run([Job(Task(plane, "corners", reward), search, nfe, 9, Sampler(Linear(), steps=T))])
    noise = Noise(9, 0, plane.shape, plane.dtype)
    expected = pseudocode(plane, "corners", reward, noise, nfe, n0, T, recombine=True)
    assert torch.equal(result.sample, expected.x0)
    assert result.spent.nfe == expected.nfe == nfe


def over_parent(rewards: list[float], r: float, r_star: float) -> bool:
    return rewards[-1] > r


def third_over_best(rewards: list[float], r: float, r_star: float) -> bool:
    return len(rewards) >= 3 and any(one > r_star for one in rewards)


def better_half(rewards: list[float], r: float, r_star: float) -> bool:
    return 2 * sum(one < rewards[-1] for one in rewards) >= len(rewards)


@pytest.mark.parametrize(
    ("acceptance", "stop"),
    [
        (BestSoFar(), first_over_best),
        (OverParent(), over_parent),
        (AtLeast(3), third_over_best),
        (OverQuantile(0.5), better_half),
    ],
    ids=lambda given: getattr(given, "__name__", repr(given)),
)
@pytest.mark.parametrize("weights", [(), (5.0, 3.0, 1.0, 2.0, 4.0)])
@pytest.mark.slow
def test_other_decisions_give_the_same_bits(
    plane: ToyModel, acceptance: Acceptance, stop: Rule, weights: tuple[float, ...]
) -> None:
    """And the rules differ: under another than the paper's, some seeds end elsewhere."""
    reward, differ = ToyReward(torch.tensor([1.0, 1.5])), 0
    search = RolloverBudget(1, 8, acceptance, WeightedQuota(weights) if weights else UniformQuota())
    for seed in range(4):
        job = Job(Task(plane, "corners", reward), search, 58, seed, Sampler(Linear(), steps=6))
        (result,) = Engine().run([job])
        noise = Noise(seed, 0, plane.shape, plane.dtype)
        chain = pseudocode(plane, "corners", reward, noise, 58, 8, 6, stop, weights)
        assert torch.equal(result.sample, chain.x0)
        assert result.spent.nfe == chain.nfe == 58
        differ += not torch.equal(chain.x0, pseudocode(plane, "corners", reward, noise, 58, 8, 6).x0)
    assert differ > 0 or stop is first_over_best


class Script(RewardModel):
    """Gives the listed rewards one after another, whatever the samples; then the last of them for ever."""

    name = "script"
    description = "a list"
    probed = False

    def __init__(self, *rewards: float) -> None:
        self.rewards = list(rewards)
        self.samples: list[Tensor] = []

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        at = len(self.samples)
        self.samples += list(samples)
        known = self.rewards + [self.rewards[-1]] * (at + len(samples))
        return torch.tensor(known[at : at + len(samples)])


class Steps(Observer):
    """NFE and carried rewards of every step."""

    def __init__(self) -> None:
        self.nfe: list[int] = []
        self.best: list[float] = []

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.nfe.append(progress.nfe_spent)
        self.best.append(progress.extra.best)


def scripted(
    model: ToyModel,
    *rewards: float,
    nfe: int,
    steps: int = 5,
    initial: int = 2,
    acceptance: Acceptance = BestSoFar(),  # noqa: B008
    quota: QuotaSchedule = UniformQuota(),  # noqa: B008
) -> tuple[Steps, Any, Script]:
    watch, script, search = Steps(), Script(*rewards), RolloverBudget(1, initial, acceptance, quota)
    job = Job(Task(model, "wide", script), search, nfe, sampler=Sampler(Linear(), steps=steps))
    (result,) = Engine(observers=[watch]).run([job])
    return watch, result, script


def test_what_an_early_find_saves_rolls_over(line: ToyModel) -> None:
    """Q = 5: found at once, the 4 saved roll over; 9 in vain, so that nothing does; found at the third; all the rest.

    In vain the best child goes on (reward 1), yet what must be beaten stays 2, and a reward equal to it does not.
    """
    script = [0, 1, *[2], *[0, 1, 0, 0, 0, 0, 0, 0, 0], *[2, 1.5, 3], *[9, 4, 4, 10, 4, 4, 4]]
    watch, result, asked = scripted(line, *script, nfe=22)
    assert watch.nfe == [2, 1, 9, 3, 7]
    assert watch.best == [1, 2, 2, 3, 10]
    assert result.reward == 10
    assert torch.equal(result.sample, asked.samples[-4])
    assert result.spent.nfe == 22


def test_always_found_leaves_everything_to_the_last_transition(line: ToyModel) -> None:
    watch, _, _ = scripted(line, *range(1000), nfe=22)
    assert watch.nfe == [2, 1, 1, 1, 17]


def test_equal_is_not_better(line: ToyModel) -> None:
    """A constant reward never beats the best so far: every transition spends its share, the last the remainder too."""
    watch, result, _ = scripted(line, 1.0, nfe=25)
    assert watch.nfe == [2, 5, 5, 5, 8]
    assert result.spent.nfe == 25


def test_quotas_are_what_is_spent_where_nothing_is_found(line: ToyModel) -> None:
    """A constant reward: one child each and 20 in proportion 4 to 3 to 2 to 1."""
    watch, _, _ = scripted(line, 1.0, nfe=26, quota=WeightedQuota((4.0, 1.0)))
    assert watch.nfe == [2, 9, 7, 5, 3]


def test_the_published_quota_leaves_one_nfe_of_a_chain(line: ToyModel) -> None:
    """A constant reward, 26 NFE, 5 steps: one is left, and 23 children are divided by 5, not by 4; found at once, all
    roll over.
    """
    watch, result, _ = scripted(line, 1.0, nfe=26, quota=PublishedQuota())
    assert watch.nfe == [2, 4, 4, 4, 11]
    assert result.spent.nfe == 25
    watch, result, _ = scripted(line, *range(1000), nfe=26, quota=PublishedQuota())
    assert watch.nfe == [2, 1, 1, 1, 20]
    assert result.spent.nfe == 25


def test_the_release_uses_498_of_500(line: ToyModel) -> None:
    search, dynamics = RolloverBudget(quota=PublishedQuota()), Sampler(Linear(), finish=False).bind(line)
    assert (search.cost(dynamics, 500).nfe, RolloverBudget().cost(dynamics, 500).nfe) == (498, 500)
    assert search.shares(dynamics, 500) == [250, 250]
    assert [stage.rows for stage in search.schedule(dynamics, 224 - 9).stages] == [25, *[22] * 8, 48]
    assert (search.smallest_nfe(dynamics), RolloverBudget().smallest_nfe(dynamics)) == (70, 68)


def test_the_best_drawn_goes_on_whichever_was_accepted(line: ToyModel) -> None:
    """The fourth beats half of the four and ends the step, but the first is the best of them: reward 5, not 3."""
    script = [0, *[5, 1, 2, 3], *[4]]
    watch, _, _ = scripted(line, *script, nfe=12, steps=3, initial=1, acceptance=OverQuantile(0.5))
    assert watch.nfe == [1, 4, 7]
    watch, _, _ = scripted(line, *[0, 1, 5, 3], nfe=12, steps=3, initial=1, acceptance=AtLeast(3))
    assert watch.nfe == [1, 3, 8]
    assert watch.best == [0, 5, 5]


@pytest.mark.slow
def test_the_best_of_a_failed_transition_goes_on(line: ToyModel) -> None:
    """Not its last child: the next transition's children are those of the second of three."""
    watch, _, asked = scripted(line, 5, *[1, 3, 2], *[6], nfe=7, steps=3, initial=1)
    assert watch.nfe == [1, 3, 3]
    times = torch.arange(3, 0, -1, dtype=torch.float64) / 3
    noise = Noise(0, 0, line.shape, line.dtype)
    x = noise.normal(0, 0, 0)[None]
    for step, draw in ((1, 1), (2, 0)):
        v = line.velocity(x, times[step - 1][None], ["wide"])
        mean, std = EulerMaruyama().moments(Linear(), x, v, times[step - 1], times[step])
        x = mean + std * noise.normal(step, 0, draw)
    shown = line.mixtures["wide"].denoised(x, times[2])
    torch.testing.assert_close(asked.samples[4][None], shown, rtol=1e-12, atol=1e-12)


def test_the_first_of_equal_children_goes_on(line: ToyModel) -> None:
    _, result, asked = scripted(line, 5, *[3, 3, 2], nfe=4, steps=2, initial=1)
    assert result.reward == 3
    assert torch.equal(result.sample, asked.samples[1])


def test_a_child_that_must_not_be_chosen_is_not_accepted(line: ToyModel) -> None:
    """By a rule that takes the first of all others."""
    script = [0, *[-math.inf, 4], *[5] * 9]
    with pytest.warns(RollflowWarning, match="1 sample could not be chosen"):
        watch, _, _ = scripted(line, *script, nfe=12, steps=3, initial=1, acceptance=OverQuantile(0.0))
    assert watch.nfe == [1, 2, 9]


def test_chains_share_nothing(line: ToyModel, toy_reward: ToyReward, alone: Callable[[Job], Any]) -> None:
    """Two chains are two single chains with half the budget each, told apart by their noise alone."""
    task, sampler = Task(line, "right", toy_reward), Sampler(Linear(), steps=5)
    both = alone(Job(task, RolloverBudget(2, 3), 40, 8, sampler)).populations
    single = alone(Job(task, RolloverBudget(1, 3), 20, 8, sampler)).populations
    assert torch.equal(both[0].x0, single[0].x0)
    assert both[0].reward == single[0].reward
    second = pseudocode(line, "right", toy_reward, Noise(8, 1, line.shape, line.dtype), 20, 3, 5)
    assert torch.equal(both[1].x0, second.x0)
    assert not torch.equal(both[0].x0, both[1].x0)


def test_the_better_chain_is_returned(line: ToyModel, toy_reward: ToyReward, alone: Callable[[Job], Any]) -> None:
    """Whichever it is: over some seeds each of the two chains wins."""
    task, sampler = Task(line, "wide", toy_reward), Sampler(Linear(), steps=3)
    jobs = [Job(task, RolloverBudget(2, 2), 16, seed, sampler) for seed in range(8)]
    winners = set()
    for job, result in zip(jobs, Engine().run(jobs), strict=True):
        rewards = [one.reward for one in alone(job).populations]
        assert result.reward == max(rewards)
        winners.add(rewards.index(result.reward))
    assert winners == {0, 1}


def test_without_transitions_every_child_is_a_noise(line: ToyModel) -> None:
    watch, result, _ = scripted(line, 1, 3, 2, 0, 7, nfe=5, steps=1, initial=3)
    assert watch.nfe == [5]
    assert result.reward == 7
    assert RolloverBudget(1, 3).smallest_nfe(Sampler(Linear(), steps=1).bind(line)) == 3


def test_the_end_of_a_chain_is_finished_within_the_budget(line: ToyModel) -> None:
    """3 noises, a child for each of 2 transitions, and 2 NFE and a reward call to finish it."""
    search, dynamics = RolloverBudget(1, 3), Sampler(Linear(), Euler(), Arc(), 3).bind(line)
    assert search.cost(dynamics, 9) == Cost(9, 8, 8)
    assert search.smallest_nfe(dynamics) == 7


def test_decisions_can_be_given_as_text() -> None:
    text = "rbf(chains=1, acceptance=at-least(draws=3, rule=quantile(q=0.9)), quota=weighted(weights=2;1))"
    expected = RolloverBudget(1, 25, AtLeast(3, OverQuantile(0.9)), WeightedQuota((2.0, 1.0)))
    assert SEARCHES.make(text) == expected
    for name, rule in {"best": BestSoFar(), "parent": OverParent()}.items():
        assert SEARCHES.make(f"rbf(acceptance={name}, quota=uniform)") == RolloverBudget(acceptance=rule)


@pytest.mark.parametrize(("chains", "initial"), [(0, 25), (2, 0)])
def test_settings_out_of_range(chains: int, initial: int) -> None:
    with pytest.raises(
        RollflowError, match=f"{'initial' if chains else 'chains'} of rbf must be a whole number >= 1, not 0"
    ):
        RolloverBudget(chains, initial)

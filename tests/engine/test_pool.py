"""Pools: what a round gets follows from the rounds before, and the whole budget is spent where it can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Interrupted, Job, JobRecord, JobsFailed, Member, Observer, Pool, Result, Round, Task
from rollflow.engine.rounds import round_seed
from rollflow.errors import BadSetting
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards import RewardModel
from rollflow.rewards.mixing import RankAverage
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SVDD, BestOfN, RolloverBudget, Search
from rollflow.testing.jobs import assert_same

UNTIL = -0.1


def members(count: int, nfe: int = 100, smallest: int = 10) -> list[Member]:
    return [Member(f"prompt {i}", nfe, smallest, 1.0) for i in range(count)]


def played(
    pool: Pool, jobs: Sequence[Member], reward: Callable[[Member, int], float], unit: int = 1
) -> tuple[list[Member], list[dict[str, int]]]:
    """Play a pool to its end: a round earns ``reward`` and spends whole units. Returns also the budgets by name."""
    jobs, told = list(jobs), []
    while budgets := pool.next_round(jobs):
        told.append({jobs[i].name: budget for i, budget in budgets.items()})
        for i, budget in budgets.items():
            done = Round(0, budget, budget - budget % unit, reward(jobs[i], len(jobs[i].rounds)))
            jobs[i] = jobs[i]._replace(rounds=(*jobs[i].rounds, done))
    return jobs, told


def test_budgets_of_four_prompts() -> None:
    """Two prompts succeed at once and one at its second round; the last two rounds are what is left."""
    at = {"prompt 0": 0, "prompt 1": 0, "prompt 2": 1, "prompt 3": 9}
    low = {"prompt 2": 0.5, "prompt 3": 0.2}
    _, told = played(Pool(), members(4), lambda m, k: 1.0 if k >= at[m.name] else low[m.name])
    assert told == [
        {"prompt 0": 60, "prompt 1": 60, "prompt 2": 60, "prompt 3": 60},
        {"prompt 3": 100, "prompt 2": 60},  # 160 are left: the lower reward has its whole size, the other the rest
    ]
    at["prompt 2"] = 0
    _, told = played(Pool(), members(4), lambda m, k: 1.0 if k >= at[m.name] else low[m.name])
    assert told[1:] == [{"prompt 3": 100}, {"prompt 3": 60}]


def test_sizes_grow_and_the_last_is_repeated() -> None:
    _, told = played(Pool(nfe=2000, rounds=(0.1, 0.5)), members(4), lambda m, k: float(m.name != "prompt 1"))
    assert told == [dict.fromkeys([f"prompt {i}" for i in range(4)], 50), *[{"prompt 1": 250}] * 7, {"prompt 1": 50}]


def test_shares_are_in_proportion_to_the_jobs_budgets() -> None:
    jobs = [Member("a", 10, 1, 0.0), Member("b", 30, 1, 0.0)]
    assert Pool().next_round(jobs) == {0: 6, 1: 18}
    assert Pool(nfe=400).next_round(jobs) == {0: 60, 1: 180}


def test_a_remainder_that_no_round_can_use_is_spent_now() -> None:
    """240 NFE in rounds of 50 would leave 40, less than the smallest search."""
    jobs = members(4, nfe=60, smallest=45)
    pool = Pool(rounds=(5 / 6,))
    assert pool.next_round(jobs) == {0: 60, 1: 60, 2: 60, 3: 60}
    assert pool.next_round(members(4, nfe=60, smallest=40)) == {0: 50, 1: 50, 2: 50, 3: 50}
    done = [Round(0, 50, 50, 0.0)]
    assert pool.next_round([m._replace(rounds=done) for m in members(4, nfe=60, smallest=40)]) == {0: 40}
    uneven = members(4, nfe=61, smallest=50)
    assert sorted(Pool(rounds=(0.8,)).next_round(uneven).values()) == [61, 61, 61, 61]


def test_every_job_has_a_first_round() -> None:
    """Where sizes are below the smallest budgets, no job takes what another one needs."""
    jobs = [Member("a", 20, 15, 0.0), Member("b", 20, 5, 0.0), Member("c", 20, 40, 0.0)]
    assert Pool().next_round(jobs) == {0: 15, 1: 5, 2: 40}
    with pytest.raises(BadSetting, match="need 60 NFE for one search each; it has 59"):
        Pool(nfe=59).check(jobs)


def test_what_has_failed_or_is_not_a_number() -> None:
    """A failed job gets no further round; a reward that is not a number is the lowest."""
    jobs = [
        Member("a", 100, 10, 1.0, (Round(0, 60, 60, math.nan),)),
        Member("b", 100, 10, 1.0, (Round(0, 60, 60, 0.9),)),
        Member("c", 100, 10, 1.0, (Round(0, 60, 60, 0.1),), failed=True),
    ]
    assert Pool().next_round(jobs) == {0: 100, 1: 20}


cases = st.tuples(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(1, 1000)),
    st.lists(st.floats(0.4, 4), min_size=1, max_size=5),
    st.integers(0, 2**32),
)


@settings(max_examples=40)
@given(cases, st.integers(1, 7), st.booleans())
def test_the_whole_pool_is_spent(
    case: tuple[list[tuple[int, int]], int | None, list[float], int], unit: int, alike: bool
) -> None:
    """It is spent to the last NFE if a job is left that can use it; nothing depends on the order of the jobs."""
    sizes, nfe, rounds, seed = case
    random = torch.Generator().manual_seed(seed)
    jobs = [
        Member(f"{i:02}", budget, unit * (sizes[0][1] if alike else smallest), 0.8)
        for i, (budget, smallest) in enumerate(sizes)
    ]
    rewards = {m.name: torch.rand(400, generator=random).tolist() for m in jobs}
    pool = Pool(nfe, rounds=(min(rounds[0], 1.0), *rounds[1:]))
    if pool.total(jobs) < sum(m.smallest for m in jobs):
        with pytest.raises(BadSetting):
            pool.check(jobs)
        return
    pool.check(jobs)
    ended, told = played(pool, jobs, lambda m, k: rewards[m.name][k % 400], unit)
    left = pool.left(ended)
    still = [m for m in ended if m.open]
    assert left >= 0
    assert set(told[0]) == set(rewards), "all have a first round"
    assert all(one.budget >= m.smallest for m in ended for one in m.rounds)
    assert all(m.open or max(one.reward for one in m.rounds[:-1]) < 0.8 for m in ended if m.rounds[1:]), "none goes on"
    assert all(left < m.smallest for m in still)
    if unit == 1 and alike and still:
        assert left == 0
    backwards, told_backwards = played(pool, jobs[::-1], lambda m, k: rewards[m.name][k % 400], unit)
    assert backwards[::-1] == ended
    assert told_backwards == told


def mixture(weight: float) -> GaussianMixture:
    """A mode that is wanted, at (2, 2), and one that is not."""
    return GaussianMixture(
        torch.tensor([weight, 1 - weight]), torch.tensor([[2.0, 2.0], [-2.0, -2.0]]), torch.tensor([0.2, 0.2])
    )


WEIGHTS = {"easy": 0.5, "fair": 0.25, "hard": 0.06, "never": 1e-12}
MODEL = ToyModel({prompt: mixture(weight) for prompt, weight in WEIGHTS.items()})
TARGET = ToyReward(torch.tensor([2.0, 2.0], dtype=torch.float64))


BON = BestOfN()


def jobs(
    search: Search = BON, nfe: int = 40, seed: int = 0, reward: RewardModel = TARGET, model: ToyModel = MODEL
) -> list[Job]:
    sampler = Sampler(Linear(), steps=4)
    return [
        Job(
            Task(model, prompt, reward), search, nfe, 100 * seed + i, sampler, plan={"nfe": nfe, "seed": 100 * seed + i}
        )
        for i, prompt in enumerate(WEIGHTS)
    ]


def test_one_round_is_the_job_itself() -> None:
    """With rounds of one even share, and a reward that stops it at once, every result is that of the plain job."""
    plain = Engine().run(jobs(SVDD(1)))
    for pooled, alone in zip(Engine().run(jobs(SVDD(1)), pool=Pool(until=-1e9, rounds=(1,))), plain, strict=True):
        assert_same(pooled, alone)
        assert pooled.rounds == (Round(alone.job.seed, 40, alone.spent.nfe, alone.reward),)


@pytest.mark.parametrize("search", [BestOfN(), SVDD(1), RolloverBudget(1, 4)], ids=lambda search: search.name)
def test_a_pooled_job_is_the_best_of_its_rounds(search: Search) -> None:
    """Each round is a plain job with a seed of its own, the first with the job's; the account is that of them all."""
    plain, results = jobs(search), Engine().run(jobs(search), pool=Pool(until=UNTIL))
    assert sum(one.spent.nfe for one in results) == 160
    assert len({len(one.rounds) for one in results}) > 1, "some stopped before others"
    for job, pooled in zip(plain, results, strict=True):
        assert pooled.rounds[0].seed == job.seed
        assert len({one.seed for one in pooled.rounds}) == len(pooled.rounds)
        rounds = Engine().run([replace(job, nfe=one.budget, seed=one.seed) for one in pooled.rounds])
        assert [(one.spent.nfe, one.reward) for one in rounds] == [(one.nfe, one.reward) for one in pooled.rounds]
        best = max(rounds, key=lambda one: one.reward)
        assert torch.equal(pooled.sample, best.sample)
        assert (pooled.reward, pooled.origin, pooled.shares) == (best.reward, best.origin, best.shares)
        assert (pooled.job.seed, pooled.job.nfe) == (best.job.seed, best.job.nfe)
        assert pooled.spent.decodes == sum(one.spent.decodes for one in rounds)
        assert pooled.budget == sum(one.job.nfe for one in rounds)
        seen = [point.reward for one in rounds for point in one.trace]
        assert pooled.trace[-1] == (pooled.spent.nfe, max(seen))
        assert [point.reward for point in pooled.trace[:-1]] == sorted({point.reward for point in pooled.trace})
        first = next(one for one in rounds if max(point.reward for point in one.trace) == max(seen))
        before = sum(one.spent.nfe for one in rounds[: rounds.index(first)])
        assert pooled.trace[-2].nfe == before + first.trace[-2].nfe


def test_seeds_of_rounds_are_unlike() -> None:
    seeds = {round_seed(seed, number) for seed in range(100) for number in range(20)}
    assert len(seeds) == 2000
    assert {round_seed(seed, 0) for seed in range(100)} == set(range(100))
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_nothing_depends_on_the_order_or_the_batch() -> None:
    forwards = Engine().run(jobs(), pool=Pool(until=UNTIL))
    for engine in (Engine(1), Engine(5, padded=True)):
        backwards = engine.run(jobs()[::-1], pool=Pool(until=UNTIL))
        for one, other in zip(forwards, backwards[::-1], strict=True):
            assert_same(one, other)
            assert one.rounds == other.rounds


def test_a_number_is_the_total() -> None:
    """The reward of the toy has the ceiling 0, which no sample reaches, so that all of it is spent."""
    results = Engine().run(jobs(), pool=400)
    assert sum(one.spent.nfe for one in results) == 400
    assert [one.rounds[0].budget for one in results] == [60] * 4


def test_its_record() -> None:
    result = Engine().run(jobs(), pool=Pool(until=UNTIL))[-1]
    record = JobRecord.from_json(result.record().to_json())
    best = max(result.rounds, key=lambda one: one.reward)
    assert record == result.record()
    assert record.rounds == result.rounds
    assert len(record.rounds) > 1
    assert (record.seed, record.noise) == (result.rounds[0].seed, best.seed)
    assert (record.plan["seed"], record.plan["nfe"]) == (best.seed, best.budget)
    assert record.nfe == sum(one.nfe for one in result.rounds)
    content = result.content()
    assert (content["nfe_budget"], content["nfe_used"]) == (result.budget, result.spent.nfe)
    assert f"nfe={result.spent.nfe} of {result.budget}," in repr(result)
    plain = Engine().run(jobs())[0]
    assert "rounds" not in plain.record().to_json()


class Failing(ToyReward):
    """A reward that fails at its call number ``at`` for one prompt, and from then on."""

    def __init__(self, prompt: str, at: int) -> None:
        super().__init__(TARGET.target)
        self.prompt, self.left = prompt, at
        self.stop: BaseException = LookupError("no more")

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if self.prompt in prompts:
            self.left -= 1
            if self.left < 0:
                raise self.stop
        return super().score(samples, prompts)


def test_a_job_that_fails_leaves_the_pool() -> None:
    """A failure without any sample is raised at the end, a later one ends the job with its best sample so far."""
    with pytest.raises(JobsFailed) as failed:
        Engine().run(jobs(reward=Failing("fair", 0)), pool=Pool(until=UNTIL))
    assert list(failed.value.failures) == [1]
    others = [one for one in failed.value.results if one is not None]
    assert sum(one.spent.nfe for one in others) == 160 - 24, "what it may have spent is not spent again"

    plain = Engine().run(jobs(), pool=Pool(until=UNTIL))
    assert len(plain[3].rounds) == 2
    reward = Failing("never", 10**9)
    ended = Engine(observers=[After(reward)]).run(jobs(reward=reward), pool=Pool(until=UNTIL))
    assert ended[3].interrupted
    assert "no more" in str(ended[3].cause)
    assert ended[3].rounds == plain[3].rounds[:1]
    assert torch.equal(ended[3].sample, Engine().run([replace(jobs()[3], nfe=24)])[0].sample)
    assert not any(one.interrupted for one in ended[:3])


class After(Observer):
    """Makes a reward fail as soon as one search of its prompt has ended."""

    def __init__(self, reward: Failing) -> None:
        self.reward = reward

    def completed(self, job: Job, result: Result) -> None:
        if job.task.prompt == self.reward.prompt:
            self.reward.left = 0


def test_stopped_it_keeps_what_it_has() -> None:
    reward = Failing("never", 10**9)
    reward.stop = KeyboardInterrupt()
    with pytest.raises(Interrupted) as stopped:
        Engine(observers=[After(reward)]).run(jobs(reward=reward), pool=Pool(until=UNTIL))
    plain = Engine().run(jobs(), pool=Pool(until=UNTIL))
    for one, whole in zip(stopped.value.results, plain, strict=True):
        assert one is not None
        assert one.rounds[0] == whole.rounds[0]
        assert one.reward == max(each.reward for each in one.rounds)


class Other(ToyReward):
    name = "other"


def test_pools_that_cannot_be() -> None:
    endless, relative = ToyReward(), RankAverage((TARGET, Other()))
    for pool, some, expected in (
        (Pool(), jobs(reward=endless), "reward 'toy' has no highest value .* give until"),
        (Pool(until=0.0), jobs(reward=relative), "compares the samples of one search with each other"),
        (Pool(nfe=15), jobs(), "the 4 jobs of the pool need 16 NFE for one search each; it has 15"),
        (0, jobs(), "pool must be"),
        ("even", jobs(), "pool must be"),
    ):
        with pytest.raises(BadSetting, match=expected):
            Engine().run(some, pool=pool)  # type: ignore[arg-type]
    for settings_, expected in (
        ({"rounds": (1.5, 2)}, "of which the first is at most 1"),
        ({"rounds": ()}, "of which the first is at most 1"),
        ({"rounds": (0.5, 0)}, r"rounds of a pool\[1\] must be a finite number > 0"),
        ({"until": math.inf}, "until of a pool must be a finite number"),
        ({"nfe": 0}, "nfe of a pool must be"),
    ):
        with pytest.raises(BadSetting, match=expected):
            Pool(**settings_)


@pytest.mark.slow
def test_it_beats_the_even_split() -> None:
    """Of 500 prompts of which 400 are easy, more of the hard ones end in the wanted mode at the same total NFE."""
    model, sampler = ToyModel({"easy": mixture(0.5), "hard": mixture(0.03)}), Sampler(Linear(), steps=3)
    mixed = [Job(Task(model, "easy" if i % 5 else "hard", TARGET), BestOfN(), 30, i, sampler) for i in range(500)]
    shares, easy = [], []
    for pool in (None, Pool(until=-1.0)):
        results = Engine().run(mixed, pool=pool)
        assert sum(one.spent.nfe for one in results) <= 15_000
        shares.append(sum(one.reward > -1 for one in results[::5]) / 100)
        easy.append(sum(one.reward > -1 for i, one in enumerate(results) if i % 5) / 400)
    even, pooled = shares
    error = math.sqrt((even * (1 - even) + pooled * (1 - pooled)) / 100)
    assert pooled - even > 3 * error, f"{even} to {pooled}, standard error {error:.3f}"
    assert min(easy) > 0.98

"""What is answered next, and with what: the scheduler alone, and the chains of a capped job through the engine."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Caps, Engine, Job, Task
from rollflow.engine.scheduler import Batch, Scheduler, batch_groups, cohorts, fill_batches, overlap_half
from rollflow.requests import Decode, Grad, Reward, Save, Velocity
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SVDD, RolloverBudget


def population(
    id: int, rows: int = 1, job: int = 0, *, capped: bool = False, model: int = 0, reward: int = 0, remote: bool = False
) -> Any:
    """What the scheduler looks at of a population."""
    task = SimpleNamespace(overlaps=remote)
    running = SimpleNamespace(id=job, job=SimpleNamespace(capped=capped, task=task), model_id=model, reward_id=reward)
    return SimpleNamespace(id=id, rows=rows, job=running, query=lambda some: (id, some))


def ids(populations: Sequence[Any]) -> list[int]:
    return [one.id for one in populations]


def filled(group: Sequence[Any], most: int) -> list[tuple[int, int]]:
    slices = fill_batches(group, most)
    assert [(one.population.id, one.rows) for one in slices] == [tuple(one.query) for one in slices]
    return [(one.population.id, one.rows) for one in slices]


def test_cohorts_are_the_populations_of_a_capped_job() -> None:
    """A job's id may be that of a population, which makes them no cohort."""
    waiting = [population(1, job=7), population(2, job=1, capped=True), population(3, job=7)]
    waiting += [population(4, job=1, capped=True), population(5, job=2, capped=True)]
    assert [ids(cohort) for cohort in cohorts([], waiting)] == [[1], [2, 4], [3], [5]]


def test_no_chain_of_a_capped_job_runs_ahead_of_a_sibling_that_waits_for_its_reward() -> None:
    waiting = [population(1, job=1, capped=True), population(2, job=2), population(3, job=3, capped=True)]
    assert [ids(cohort) for cohort in cohorts([population(4, job=1, capped=True)], waiting)] == [[2], [3]]
    assert [ids(cohort) for cohort in cohorts([population(4, job=2)], waiting)] == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("pending", "waiting", "chosen"),
    [
        ([], [1, 1, 1, 1], 2),
        ([], [1, 1, 1], 2),
        ([], [3, 1, 1, 1], 1),
        ([2], [2, 2, 2, 2], 3),
        ([4], [1, 1, 1, 1], 4),
        ([9], [1, 1], 2),
        ([], [5], 1),
        ([], [], 0),
    ],
)
def test_half_of_all_rows_have_their_turn(pending: list[int], waiting: list[int], chosen: int) -> None:
    populations = [population(i, rows) for i, rows in enumerate(waiting)]
    assert ids(overlap_half([population(9, rows) for rows in pending], populations)) == list(range(chosen))


def test_half_takes_cohorts_whole() -> None:
    waiting = [population(i, 1, job=1, capped=True) for i in range(3)] + [population(3, 1, job=2)]
    assert ids(overlap_half([], waiting)) == [0, 1, 2]
    assert ids(overlap_half([population(8, 2, job=1, capped=True)], waiting)) == [3]


@pytest.mark.parametrize(
    ("rows", "most", "slices"),
    [
        ([3, 3, 3], 4, [(0, 3), (1, 3), (2, 2)]),
        ([2, 2], 4, [(0, 2), (1, 2)]),
        ([2, 1], 4, []),
        ([9], 4, [(0, 8)]),
        ([4, 4, 1], 4, [(0, 4), (1, 4)]),
        ([0, 4], 4, [(1, 4)]),
    ],
)
def test_calls_are_full(rows: list[int], most: int, slices: list[tuple[int, int]]) -> None:
    assert filled([population(i, count, job=i) for i, count in enumerate(rows)], most) == slices


@pytest.mark.parametrize(
    ("capped", "others", "most", "slices"),
    [
        ([3], [], 4, [(0, 3)]),
        ([3], [5], 4, [(0, 3), (10, 5)]),
        ([3], [4], 4, [(0, 3), (10, 1)]),
        ([5], [], 4, [(0, 5)]),
        ([5], [1], 4, [(0, 5), (10, 1)]),
        ([2, 2, 1], [1, 1], 4, [(0, 2), (1, 2), (2, 1), (10, 1), (11, 1)]),
        ([2, 2], [3], 4, [(0, 2), (1, 2)]),
    ],
)
def test_capped_jobs_come_first_and_whole(
    capped: list[int], others: list[int], most: int, slices: list[tuple[int, int]]
) -> None:
    """What is left of their last call goes to others, as far as they fill it or there are no more."""
    group = [population(10 + i, count, job=i + 1) for i, count in enumerate(others)]
    group += [population(i, count, capped=True) for i, count in enumerate(capped)]
    assert filled(group, most) == slices


def test_groups_share_a_model_and_a_reward_where_it_is_asked() -> None:
    waiting = [population(1, model=1, reward=1), population(2, model=1, reward=2), population(3, model=2, reward=1)]
    waiting += [population(4, model=1, reward=1)]
    assert [ids(group) for group in batch_groups(Velocity, waiting)] == [[1, 2, 4], [3]]
    assert [ids(group) for group in batch_groups(Decode, waiting)] == [[1, 2, 4], [3]]
    for kind in (Reward, Grad):
        assert [ids(group) for group in batch_groups(kind, waiting)] == [[1, 4], [2], [3]]


def scheduled(kind: Any, padded: bool, *, overlap: bool = True, whole: bool = False) -> list[tuple[list[Any], bool]]:
    """(queries, whether dispatched) of each batch, of 3 local rows and 3 remote ones in calls of 2."""
    executor: Any = SimpleNamespace(padded=padded, most_rows=lambda kind: 2)
    waiting = [population(1, 3, job=1, reward=1), population(2, 3, job=2, reward=2, remote=True)]
    batches = Scheduler(executor, overlap).batches(kind, waiting, whole=whole)
    assert all(batch.kind is kind for batch in batches)
    return [([one.query for one in batch.slices], batch.dispatched) for batch in batches]


def test_batches() -> None:
    """Padded calls are full, but for those that are dispatched, and for saved states, which take no call."""
    assert scheduled(Velocity, False) == [([(1, 3), (2, 3)], False)]
    assert scheduled(Velocity, True) == [([(1, 3), (2, 3)], False)]
    assert scheduled(Reward, True) == [([(1, 2)], False), ([(2, 3)], True)]
    assert scheduled(Reward, True, overlap=False) == [([(1, 2)], False), ([(2, 2)], False)]
    assert scheduled(Reward, True, whole=True) == [([(1, 3)], False), ([(2, 3)], True)]
    assert scheduled(Reward, False) == [([(1, 3)], False), ([(2, 3)], True)]
    assert scheduled(Grad, True) == [([(1, 2)], False), ([(2, 2)], False)]
    assert scheduled(Save, True) == [([(1, 3), (2, 3)], False)]


def test_a_batch_is_computed_here_and_leaves_no_call_unfilled_unless_said_otherwise() -> None:
    assert not Batch(Velocity, []).dispatched
    executor: Any = SimpleNamespace(padded=True, most_rows=lambda kind: 2)
    [batch] = Scheduler(executor, True).batches(Velocity, [population(1, 3)])
    assert [tuple(one.query) for one in batch.slices] == [(1, 2)]


def test_all_that_is_local_is_due_and_half_of_what_is_remote() -> None:
    waiting = [population(i, remote=i > 1, job=i) for i in range(6)]
    executor: Any = None
    assert ids(Scheduler(executor, True).due(waiting, [])) == [0, 1, 2, 3]
    assert ids(Scheduler(executor, True).due(waiting, [population(9, 4)])) == [0, 1, 2, 3, 4, 5]
    assert ids(Scheduler(executor, False).due(waiting, [])) == [0, 1, 2, 3, 4, 5]


class Remote(ToyReward):
    """Said to be computed in another process."""

    remote = True

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().score(samples, prompts)


@pytest.mark.parametrize("company", [0, 1, 3])
def test_chains_of_a_capped_job_are_in_lockstep(spy: Any, company: int) -> None:
    """Each chain asks for one row at a time: every call of the network that has one of the job's has all three."""
    reward, sampler = Remote(), Sampler(Linear(), steps=4)
    others = [Job(Task(spy, "right", reward), SVDD(2), 24, seed, sampler) for seed in range(company)]
    capped = Job(Task(spy, "left", reward), RolloverBudget(3, 1), 36, 9, sampler, Caps(reward_calls=1000))
    Engine(64).run([*others[:1], capped, *others[1:]])
    rows = [call.prompts.count("left") for call in spy.calls if "left" in call.prompts]
    assert rows == [3] * 12


def test_chains_of_a_job_without_caps_need_not_be(spy: Any) -> None:
    """Half of them wait for rewards while the others move: what the test above would see of chains that run ahead."""
    free = Job(Task(spy, "left", Remote()), RolloverBudget(3, 1), 36, 9, Sampler(Linear(), steps=4))
    Engine(64).run([free])
    assert max(call.prompts.count("left") for call in spy.calls) < 3

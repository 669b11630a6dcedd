"""Pools of an experiment: the jobs of one arm and seed, whose rounds are decided by the journals alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rollflow.bench.run.experiment import Experiment, Trial
from rollflow.bench.run.plans import plan_of
from rollflow.engine import JobRecord, Member, Point, Pool, Round
from rollflow.engine.rounds import round_seed
from rollflow.errors import BudgetTooSmall
from rollflow.models import FlowModel, Source
from rollflow.rewards import RewardModel


@dataclass(frozen=True)
class RoundTrial(Trial):
    """A round of a pooled job: a trial with a budget, which its arm has, and a seed of its own.

    Args:
        of: The pooled job.
        number: Number of the round, counted from 0.
    """

    of: Trial
    number: int

    @property
    def noise(self) -> int:
        return round_seed(self.of.noise, self.number)

    @property
    def id(self) -> str:
        """Id in files; with another budget, it is another round."""
        return f"{self.of.id}-{self.number}-{self.arm.nfe}"


def round_trial(trial: Trial, number: int, budget: int) -> RoundTrial:
    """Return a round of a pooled job."""
    return RoundTrial(replace(trial.arm, nfe=budget), trial.place, trial.item, trial.seed, trial, number)


class Standing(NamedTuple):
    """What is left to do for a pool.

    Args:
        due: Rounds that have not ended; the next ones are decided when they have.
        over: Ids of the jobs that get no further round, with the ids of those of their rounds that have a sample.
    """

    due: list[RoundTrial]
    over: dict[str, list[str]]


class TrialPool:
    """The jobs of one arm and seed, which share a pool.

    Args:
        pool: The pool.
        trials: The jobs.
        smallest: Smallest budget of a round.
        until: Reward at which a job stops.

    Raises:
        BadSetting: If the budget does not buy a search for every job.
    """

    def __init__(self, pool: Pool, trials: Sequence[Trial], smallest: int, until: float) -> None:
        self.pool, self.trials = pool, trials
        self._members = [Member(trial.id, trial.arm.nfe or 0, smallest, until) for trial in trials]
        pool.check(self._members)

    @property
    def total(self) -> int:
        """The whole budget."""
        return self.pool.total(self._members)

    def standing(self, rounds: Mapping[str, Mapping[str, Any]], given_up: Callable[[str], bool]) -> Standing:
        """Return what is left to do.

        Args:
            rounds: Records of the finished rounds, by id.
            given_up: Function that tells whether a round has failed too often to be tried again.
        """
        members, ids = list(self._members), [list[str]() for _ in self.trials]
        while budgets := self.pool.next_round(members):
            of_round = {i: round_trial(self.trials[i], len(members[i].rounds), budgets[i]) for i in sorted(budgets)}
            due = [one for one in of_round.values() if one.id not in rounds and not given_up(one.id)]
            if due:
                over = [i for i, one in enumerate(members) if not one.open]
                return Standing(due, {self.trials[i].id: ids[i] for i in over})
            for i, one in of_round.items():
                record = rounds.get(one.id)
                nfe, reward = (budgets[i], math.nan) if record is None else (record["nfe"], record["reward"])
                done = Round(one.noise, budgets[i], nfe, reward)
                members[i] = members[i]._replace(rounds=(*members[i].rounds, done), failed=record is None)
                ids[i] += [one.id] * (record is not None)
        return Standing([], dict(zip((trial.id for trial in self.trials), ids, strict=True)))


def pools_of(
    experiment: Experiment,
    trials: Sequence[Trial],
    model: FlowModel | Source | str,
    reward: RewardModel,
) -> list[TrialPool]:
    """Return the pools of an experiment: one for each arm whose jobs share a pool and each seed."""
    groups: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        if experiment.pool_of(trial.arm) is not None:
            groups.setdefault((trial.arm.name, trial.seed), []).append(trial)
    smallest: dict[str, int] = {}
    pools = []
    for (arm, _), some in groups.items():
        pool = experiment.pool_of(some[0].arm)
        assert pool is not None
        if arm not in smallest:
            smallest[arm] = _smallest(some[0], model, reward, experiment.max_rows)
        pools.append(TrialPool(pool, some, smallest[arm], pool.threshold(reward)))
    return pools


def _smallest(trial: Trial, model: FlowModel | Source | str, reward: RewardModel | str, max_rows: int) -> int:
    """Return the smallest budget of an arm's rounds, whose search may depend on its budget."""
    plan = plan_of(trial, model, reward, [], max_rows=max_rows)
    smallest = plan.search.smallest_nfe(plan.dynamics)
    while True:
        try:
            plan_of(round_trial(trial, 0, smallest), model, reward, [], max_rows=max_rows)
        except BudgetTooSmall as error:
            if error.smallest <= smallest:
                raise
            smallest = error.smallest
        else:
            return smallest


def pooled_record(trial: Trial, records: Sequence[JobRecord]) -> JobRecord:
    """Return the record of a pooled job: the best of its rounds, the first of equals, with the account of them all.

    Args:
        trial: The pooled job.
        records: Records of its rounds, in their order, at least one.
    """
    best = max(records, key=lambda one: one.reward)
    trace, nfe = list[Point](), 0
    for one in records:
        for point in one.trace:
            if not trace or point.reward > trace[-1].reward:
                trace.append(Point(nfe + point.nfe, point.reward))
        nfe += one.nfe
    ineligible = dict.fromkeys(where for one in records for where in one.ineligible)
    sums = ("nfe", "network_rows", "reward_calls", "decodes", "backward_passes")
    return replace(
        best,
        **{name: sum(getattr(one, name) for one in records) for name in sums},
        id=trial.id,
        seconds=round(sum(one.seconds for one in records), 4),
        trace=(*trace, Point(nfe, trace[-1].reward)),
        ineligible={where: sum(one.ineligible.get(where, 0) for one in records) for where in ineligible},
        warnings=tuple(dict.fromkeys(text for one in records for text in one.warnings)),
        rounds=tuple(Round(one.noise or 0, int(one.plan.get("nfe", one.nfe)), one.nfe, one.reward) for one in records),
    )

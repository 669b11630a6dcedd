"""The rounds of pooled jobs: the jobs that run them, and the results that they make together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rollflow.engine.job import Job
from rollflow.engine.meter import Spending
from rollflow.engine.outcome import Ended
from rollflow.engine.pool import Member, Pool, Round
from rollflow.engine.result import Result
from rollflow.engine.state import Point
from rollflow.errors import BadSetting


def round_seed(seed: int, number: int) -> int:
    """Return the seed of a job's round: the job's own for the first, independent ones for the others."""
    if number == 0:
        return seed
    content = f"round {number} of seed {seed}"
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") >> 1


def round_of(job: Job, number: int, budget: int) -> Job:
    """Return the job of a round, with the search and sampler of the pooled job."""
    seed = round_seed(job.seed, number)
    plan = {**job.plan, "nfe": budget, "seed": seed} if job.plan else {}
    return replace(job, nfe=budget, seed=seed, plan=plan)


def best_of_rounds(results: Sequence[Result]) -> Result:
    """Return the result of a pooled job: the best sample of its rounds, the first of equals, and their whole account.

    Args:
        results: Results of its rounds in their order, at least one.
    """
    best = max(results, key=lambda one: one.reward)
    spent, trace = Spending(), list[Point]()
    for one in results:
        for point in one.trace:
            if not trace or point.reward > trace[-1].reward:
                trace.append(Point(spent.nfe + point.nfe, point.reward))
        spent += one.spent
    ineligible = {where: 0 for one in results for where in one.ineligible}
    return replace(
        best,
        spent=spent,
        trace=(*trace, Point(spent.nfe, trace[-1].reward)),
        seconds=sum(one.seconds for one in results),
        ineligible={where: sum(one.ineligible.get(where, 0) for one in results) for where in ineligible},
        warnings=tuple(dict.fromkeys(text for one in results for text in one.warnings)),
        interrupted=any(one.interrupted for one in results),
        cause=next((one.cause for one in results if one.cause is not None), None),
        rounds=tuple(Round(one.job.seed, one.job.nfe, one.spent.nfe, one.reward) for one in results),
    )


class PooledJobs:
    """The jobs of a pool, and what their rounds have reached.

    Args:
        pool: The pool.
        jobs: The jobs.

    Raises:
        BadSetting: If a reward has no value at which its jobs could stop, the budget does not buy a search for every
            job, or a job is to be resumed.
    """

    def __init__(self, pool: Pool, jobs: Sequence[Job]) -> None:
        self.pool, self.jobs = pool, jobs
        self._results: list[list[Result]] = [[] for _ in jobs]
        self._errors: dict[int, Exception] = {}
        self.members = [
            Member(
                f"{job.task.prompt} {job.seed}",
                job.nfe,
                job.search.smallest_nfe(job.dynamics),
                pool.threshold(job.task.reward),
            )
            for job in jobs
        ]
        for place, job in enumerate(jobs):
            if job.resume is not None:
                raise BadSetting(f"job {place} of the pool has a checkpoint, but only whole pools can be run")
        pool.check(self.members)

    def next_round(self) -> dict[int, Job]:
        """Return the jobs of the next round by the index of the pooled job; nothing if there is no further round."""
        budgets = self.pool.next_round(self.members)
        return {i: round_of(self.jobs[i], len(self.members[i].rounds), budgets[i]) for i in sorted(budgets)}

    def take(self, round_: Mapping[int, Job], ended: Mapping[int, Ended]) -> None:
        """Take what became of a round's jobs; a job that has failed or ended early gets no further round."""
        for (i, job), place in zip(round_.items(), range(len(round_)), strict=True):
            member = self.members[i]
            result, error = (ended[place].result, ended[place].error) if place in ended else (None, None)
            if result is not None:
                self._results[i].append(result)
                told = Round(job.seed, job.nfe, result.spent.nfe, result.reward)
            else:
                told = Round(job.seed, job.nfe, job.nfe, math.nan)  # at most; how much it was is unknown
                if error is not None:
                    self._errors[i] = error
            failed = result is None or result.interrupted
            self.members[i] = member._replace(rounds=(*member.rounds, told), failed=failed)

    def results(self) -> tuple[list[Result | None], dict[int, Exception]]:
        """Return the results of all jobs, and the errors of those that have none; a later error is a ``cause``."""
        results: list[Result | None] = []
        for i, of_rounds in enumerate(self._results):
            result = best_of_rounds(of_rounds) if of_rounds else None
            if result is not None and i in self._errors:
                result = replace(result, interrupted=True, cause=self._errors[i])
            results.append(result)
        return results, {i: error for i, error in sorted(self._errors.items()) if results[i] is None}

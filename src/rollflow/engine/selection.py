"""Selection of the samples that a job may return, the best first."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch

from rollflow.engine.background import Background
from rollflow.engine.execution.executor import Executor, Query
from rollflow.engine.execution.faults import Verdict, sound_rows
from rollflow.engine.meter import Spending
from rollflow.engine.population import Population
from rollflow.engine.rescue import Rescue
from rollflow.engine.running_job import RunningJob
from rollflow.engine.scores import combined
from rollflow.engine.state import Candidate, bests_of
from rollflow.errors import BudgetExceeded
from rollflow.requests import Reward
from rollflow.search.propagator import Finished, Progress


class Selection:
    """Selects the samples that jobs return.

    Args:
        executor: Executor that scores samples.
        background: Threads in which rewards are called.
        rescue: State of an interruption, which limits the rewards that may still be called.
    """

    def __init__(self, executor: Executor, background: Background, rescue: Rescue) -> None:
        self.executor, self.background, self.rescue = executor, background, rescue

    def of_done(self, job: RunningJob) -> list[Candidate]:
        """List the samples of a job whose populations have all returned.

        Raises:
            BudgetExceeded: If the final choice would exceed a cap.
        """
        candidates = sorted(self._comparable(job), key=lambda one: -one.sample.reward)  # stable: the first of equals
        return [*self._chosen(job), *(one for one in candidates if one.sample.reward > -math.inf)]

    def _chosen(self, job: RunningJob) -> list[Candidate]:
        """List the candidates in the order of the final choice; none if there is none, or only one candidate."""
        task = job.job.task
        if task.choice is None:
            return []
        dynamics = job.job.dynamics

        def level(of: float) -> float:
            return 0.0 if dynamics.finished and of <= dynamics.last_noise_level else of

        shortlists = [(i, state.shortlist) for i, state in enumerate(job.states) if state.shortlist is not None]
        candidates = [
            Candidate(i, Finished(x0, float(reward), level(one.noise_level)))
            for i, one in shortlists
            for x0, reward in zip(one.x0, one.reward, strict=True)
        ]
        candidates = sorted(candidates, key=lambda one: -one.sample.reward)[: task.choice.shortlist]
        if len(candidates) < 2:
            return []
        job.meter.debit(Spending(reward_calls=len(candidates), decodes=len(candidates)))
        second = replace(task, reward=task.choice.reward, held_out=(), surrogate=None, choice=None)
        x0 = torch.stack([one.sample.x0 for one in candidates])
        verdict = self._verdict(job, Query(Reward(x0, candidates[0].sample.noise_level), second, job.condition))
        sound = sound_rows(verdict.faults)
        if not sound:
            return []
        scores = combined(second.reward, verdict.scores[sound], verdict.scores[sound]).tolist()
        chosen = [candidates[i]._replace(chosen=score) for i, score in zip(sound, scores, strict=True)]
        return sorted((one for one in chosen if math.isfinite(one.chosen or 0.0)), key=lambda one: -(one.chosen or 0.0))

    def so_far(self, job: RunningJob, cause: Exception | None) -> list[Candidate]:
        """List the samples of a job that ends early, or whose populations have all returned none that can be chosen.

        If nothing was scored yet and nothing has failed, the latest clean estimates are scored now.

        Args:
            job: The job.
            cause: Error that ends it; None if the user does.
        """
        reward = job.job.task.objective
        if job.done and not reward.relative:
            returned = [one for one in job.returned if one.sample.reward > -math.inf]
            if returned and cause is None:
                return sorted(returned, key=lambda one: -one.sample.reward)
        bests, broken = bests_of(job.states), cause is not None and not isinstance(cause, BudgetExceeded)
        if bests or broken or self.rescue.skips(reward):
            return bests
        with self.rescue.limit():
            return self._score_progress(job)

    def _comparable(self, job: RunningJob) -> list[Candidate]:
        """Return the samples of the populations with rewards that can be compared.

        Those of a relative reward cannot, since each population compares with its own samples only. Their samples are
        scored again, against all samples of all populations; like held-out rewards, this is outside the budget.
        """
        task = job.job.task
        returned = [one for one in job.returned if one.sample.reward > -math.inf]
        if not task.objective.relative or len(returned) <= 1:
            return returned
        seen = [state.seen for state in job.states if state.seen is not None]
        x0 = torch.stack([one.sample.x0 for one in returned])
        verdict = self._verdict(job, Query(Reward(x0, 0.0), task, job.condition))
        sound = sound_rows(verdict.faults)
        scores = verdict.scores[sound]
        rewards = combined(task.objective, scores, torch.cat([*seen, scores]))
        return [
            returned[i]._replace(sample=returned[i].sample._replace(reward=float(reward)))
            for i, reward in zip(sound, rewards, strict=True)
        ]

    def _score_progress(self, job: RunningJob) -> list[Candidate]:
        """Score the latest clean estimates of a search that scores only at its end."""
        for index, state in enumerate(job.states):
            if not isinstance(state.state, Progress):
                continue
            clean, level = state.state.particles.clean, state.state.level(job.job.dynamics)
            reward = job.job.task.objective
            rows = reward.batch_size if self.rescue.begun and not reward.relative else len(clean)
            for first in range(0, len(clean), rows):  # after Ctrl-C in parts: each counts if the next takes too long
                request = Reward(clean[first : first + rows], level)
                population = Population(-1, job, index, iter(()), request)  # type: ignore[arg-type]  # sent no answer
                population.debit()
                rewards = population.read(self._verdict(job, population.query(population.rows)))
                population.state = population.state.scored(request, rewards, first)
        return bests_of(job.states)

    def _verdict(self, job: RunningJob, query: Query) -> Verdict:
        score = partial(self.executor.answer, Reward, [query])
        [verdict] = self.background.call(query.task.objective, score)
        assert isinstance(verdict, Verdict)
        return verdict

"""Reward signal: how early a reward can tell good trajectories from bad ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from rollflow.bench.intervals import Interval, interval, rank_correlation
from rollflow.engine import Engine, Job, Observer, Spending, Task, completed
from rollflow.errors import BadSetting
from rollflow.models.base import FlowModel
from rollflow.requests import Asking, Reward
from rollflow.rewards.base import RewardModel
from rollflow.sampler import Sampler
from rollflow.search.base import Search
from rollflow.search.propagator import Finished, Progress, Propagator


@dataclass(frozen=True)
class Watched(Search):
    """Independent trajectories whose clean estimates are scored at every step; nothing is selected.

    Args:
        trajectories: Number of trajectories.
    """

    trajectories: int
    name = "watched"

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        rows, zeros = range(self.trajectories), [0] * self.trajectories
        particles = yield from propagator.start(rows, zeros)
        for step in range(1, propagator.dynamics.transitions + 1):
            particles = yield from propagator.advance(particles, step, rows, zeros)
        return (yield from propagator.finish(particles))


class SignalPoint(NamedTuple):
    """Rank correlation within a prompt of the clean estimate's reward with the finished sample's, at one noise level.

    Args:
        noise_level: Noise level of the state that the clean estimate was made from.
        correlation: Mean over prompts with its interval.
        prompts: Number of prompts that have a correlation, since neither reward is constant.
    """

    noise_level: float
    correlation: Interval
    prompts: int


class _Scores(Observer):
    """Records the rewards of every job by noise level, in the order of the trajectories."""

    def __init__(self) -> None:
        self.of: dict[str, dict[float, list[float]]] = defaultdict(dict)

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.of[job.task.prompt][request.noise_level] = rewards.tolist()


def signal_curve(
    model: FlowModel,
    reward: RewardModel,
    prompts: Sequence[str],
    sampler: Sampler,
    *,
    trajectories: int = 24,
    seed: int = 0,
    max_rows: int = 96,
) -> list[SignalPoint]:
    """Measure the signal of a reward on a model, from the first noise level to the last.

    Args:
        model: Flow model to sample from.
        reward: Reward to measure.
        prompts: Prompts to average over.
        sampler: Dynamics of the trajectories; it should finish, so that the last score of a trajectory is a sample's.
        trajectories: Number of trajectories per prompt, at least 3.
        seed: Seed of all random draws.
        max_rows: Largest number of rows in a call of the model.

    Raises:
        BadSetting: If there are fewer than 3 trajectories or no prompts.
    """
    if trajectories < 3 or not prompts:
        raise BadSetting(
            f"a rank correlation needs at least 3 trajectories and 1 prompt, got {trajectories} and {len(prompts)}"
        )
    search, scores = Watched(trajectories), _Scores()
    dynamics = sampler.bind(model)
    nfe = search.smallest_nfe(dynamics)
    jobs = [Job(Task(model, prompt, reward), search, nfe, seed, sampler) for prompt in prompts]
    completed(Engine(max_rows, [scores]).run(jobs))
    last = min(next(iter(scores.of.values())))
    points = []
    for level in sorted(next(iter(scores.of.values())), reverse=True):
        if level > last:
            correlations = [rank_correlation(by_level[level], by_level[last]) for by_level in scores.of.values()]
            known = [value for value in correlations if value is not None]
            if known:
                points.append(SignalPoint(level, interval(known, seed=seed), len(known)))
    return points

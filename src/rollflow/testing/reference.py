"""The specification of the engine: a job whose requests are answered one after another, each on its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.engine import Job, Spending, Task
from rollflow.models import FlowModel
from rollflow.requests import Decode, Grad, Request, Reward, Save, Slope, Velocity, drive
from rollflow.rewards import RewardModel
from rollflow.search import Finished, Progress


class Answering:
    """Answers and records the requests of a task.

    Args:
        task: Model, prompt and reward.

    Attributes:
        requests: All requests in order.
        spent: Cost of the answers.
        seen: (n, k) scores of the current population.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.seen: Tensor | None = None
        self.requests: list[Request] = []
        self.spent = Spending()

    @property
    def saved(self) -> list[Progress]:
        """The saved states."""
        return [request.state for request in self.requests if isinstance(request, Save)]

    def __call__(self, request: Request) -> Any:
        self.requests.append(request)
        model, reward, prompt = self.task.model, self.task.objective, self.task.prompt
        match request:
            case Velocity(x, t):
                n = len(x)
                self.spent += Spending(n, n * model.rows_per_nfe)
                return model.velocity(x, t, [model.encode(prompt)] * n)
            case Reward(x0):
                n = len(x0)
                self.spent += Spending(reward_calls=n, decodes=n)
                samples, ok = eligible(model, x0)
                rewards = torch.full((n,), -torch.inf, dtype=torch.float64)
                if ok.any():
                    scores = part_scores(reward, samples[ok], prompt)
                    ok[ok.clone()] = scores.isfinite().all(1)
                    scores = scores[scores.isfinite().all(1)]
                    self.seen = scores if self.seen is None else torch.cat([self.seen, scores])
                    if len(scores):
                        rewards[ok] = reward.combine(scores, self.seen)
                return rewards.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
            case Grad(x, t):
                n = len(x)
                self.spent += Spending(n, n * model.rows_per_nfe, n, n, n)
                x = x.clone().requires_grad_()
                v = model.velocity(x, t, [model.encode(prompt)] * n)
                clean = denoised_from_velocity(model.interpolant, v, x, t)
                samples, ok = eligible(model, clean)
                rewards, gradient = torch.full((n,), -torch.inf, dtype=torch.float64), torch.zeros_like(x)
                if ok.any():
                    given = reward.score(samples[ok], [prompt] * int(ok.sum())).double()
                    [gradient] = torch.autograd.grad(given.sum(), x)
                    rewards[ok] = given.detach()
                rewards.nan_to_num_(-torch.inf, -torch.inf, -torch.inf)
                followed = (rewards > -torch.inf) & gradient.flatten(1).isfinite().all(1)
                gradient[~followed] = 0.0
                return Slope(v.detach(), clean.detach(), rewards, gradient)
            case Decode(x0):
                self.spent += Spending(decodes=len(x0))
                return model.decode(x0)
        return None


def eligible(model: FlowModel, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Return decoded samples, and which of them (B,) are finite and not rejected."""
    samples, rejected = model.screened(x0)
    finite = x0.detach().flatten(1).isfinite().all(1) & samples.detach().flatten(1).isfinite().all(1)
    return samples, finite & torch.tensor([who is None for who in rejected])


def part_scores(reward: RewardModel, samples: Tensor, prompt: str) -> Tensor:
    """Return the scores of the parts of a reward, (B, k)."""
    prompts = [prompt] * len(samples)
    return torch.stack([part.score(samples.clone(), prompts).double() for part in reward.parts], 1)


class Alone(NamedTuple):
    """The outcome of a job without the engine.

    Args:
        best: Result of the population with the highest reward.
        populations: Result of each population.
        requests: All requests in order.
        spent: Cost of their answers and of decoding the returned sample.
    """

    best: Finished
    populations: list[Finished]
    requests: list[Request]
    spent: Spending


def _reconciled(job: Job, finished: list[Finished], seen: list[Tensor | None]) -> list[Finished]:
    """Return populations with comparable rewards: relative ones are scored against the samples of all."""
    task = job.task
    finished = [one for one in finished if one.reward > -torch.inf]
    if not task.objective.relative or len(finished) <= 1:
        return finished
    scores = part_scores(task.objective, task.model.decode(torch.stack([one.x0 for one in finished])), task.prompt)
    rewards = task.objective.combine(scores, torch.cat([*(earlier for earlier in seen if earlier is not None), scores]))
    return [one._replace(reward=float(reward)) for one, reward in zip(finished, rewards, strict=True)]


def alone(job: Job) -> Alone:
    """Drive a job's populations one after another."""
    answering = Answering(job.task)
    finished: list[Finished] = []
    seen: list[Tensor | None] = []
    for one in job.populations():
        answering.seen = None
        finished.append(one if isinstance(one, Finished) else drive(one, answering))
        seen.append(answering.seen)
    best = max(_reconciled(job, finished, seen), key=lambda one: one.reward)
    return Alone(best, finished, answering.requests, answering.spent + Spending(decodes=1))

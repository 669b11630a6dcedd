"""Searches as a straightforward script runs them: a loop over prompts, chains, steps and candidates.

They compute what rollflow computes for the same search and budget: as many velocities, decoded samples and rewards. The
velocity of a candidate is used twice, for its clean estimate and for its next step. What they lack is everything that a
scheduler adds: prompts, chains and candidates do not share calls of decoder and reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rollflow.models import FlowModel
from rollflow.rewards import RewardModel

STEPS = 10


@dataclass
class Loop:
    """Steps of an SDE along the linear interpolant x_t = (1 - t) x_0 + t e, from t = 1 to 1 / STEPS.

    Args:
        model: The model.
        reward: The reward.
        prompt: The prompt.
        seed: Seed of all random draws.
        nfe: Number of velocities computed so far.
    """

    model: FlowModel
    reward: RewardModel
    prompt: str
    seed: int
    nfe: int = 0
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        self.condition = self.model.encode(self.prompt)

    def noise(self, rows: int) -> Tensor:
        return torch.randn(rows, *self.model.shape, generator=self.generator)

    def velocity(self, x: Tensor, t: float) -> Tensor:
        self.nfe += len(x)
        return self.model.velocity(x, torch.full((len(x),), t, dtype=torch.float64), [self.condition] * len(x))

    def score(self, x: Tensor, v: Tensor, t: float) -> float:
        """Reward of the clean estimate of one particle (1, ...)."""
        return float(self.reward.score(self.model.decode(x - t * v), [self.prompt]))

    def step(self, x: Tensor, v: Tensor, t: float, s: float, rows: int) -> Tensor:
        """Draw children at time s < t by the Euler-Maruyama method, with diffusion coefficient g(t) = t."""
        noise = x + (1 - t) * v  # the estimate of e; the score is -e / t
        spread: float = t * (t - s) ** 0.5
        return x - (t - s) * (v + 0.5 * t * noise) + spread * self.noise(rows)


def rbf(loop: Loop, nfe: int, *, chains: int = 2, initial: int = 25) -> float:
    """Rollover budget forcing (arXiv 2503.19385, algorithm 1), one candidate at a time; returns the best reward."""
    times, found = [1 - i / STEPS for i in range(STEPS)], []
    for _ in range(chains):
        left = nfe // chains
        candidates = []
        for _ in range(initial):
            x = loop.noise(1)
            v = loop.velocity(x, 1.0)
            candidates.append((loop.score(x, v, 1.0), x, v))
        best, x, v = max(candidates, key=lambda one: one[0])
        left -= initial
        quota, carry, reward = left // (STEPS - 1), 0, best
        for i in range(1, STEPS):
            allowed = left if i == STEPS - 1 else quota + carry
            drawn = list[tuple[float, Tensor, Tensor]]()
            while len(drawn) < allowed:
                y = loop.step(x, v, times[i - 1], times[i], 1)
                w = loop.velocity(y, times[i])
                drawn.append((loop.score(y, w, times[i]), y, w))
                if drawn[-1][0] > best and i < STEPS - 1:
                    break
            left -= len(drawn)
            carry = allowed - len(drawn)
            reward, x, v = max(drawn, key=lambda one: one[0])
            best = max(best, reward)
        found.append(reward)
    return max(found)


def svdd(loop: Loop, nfe: int, *, streams: int = 2) -> float:
    """SVDD (arXiv 2408.08252, algorithm 1): the velocities of a parent's children in one call, the rest one by one."""
    times, children, found = [1 - i / STEPS for i in range(STEPS)], nfe // (streams * STEPS), []
    for _ in range(streams):
        x = loop.noise(children)
        for i, t in enumerate(times):
            v = loop.velocity(x, t)
            rewards = [loop.score(x[j : j + 1], v[j : j + 1], t) for j in range(children)]
            best = max(range(children), key=rewards.__getitem__)
            if i < STEPS - 1:
                x = loop.step(x[best], v[best], t, times[i + 1], children)
        found.append(rewards[best])
    return max(found)

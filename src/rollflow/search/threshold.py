"""Verifier threshold: draw at every step until the reward is high enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rollflow.checks import real
from rollflow.requests import Asking
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.thresholds import ThresholdSearch


@dataclass(frozen=True)
class VerifierThreshold(ThresholdSearch):
    """Draw children one at a time and step forward with the first whose reward reaches a threshold.

        at every step, first with noises instead of children:
            draw children of the same parent one at a time; the first with r >= threshold(noise level) goes on
            a share of the NFE is spent that are left beyond one child of every later step:    its best goes on

    so that easy steps leave their budget to hard ones. The last step judges finished samples and may spend all that is
    left; one that passes leaves the rest unspent.

    Sundaresha, Haridas, Appia & Varshney 2025, arXiv 2512.08985, "Verifier Threshold", of which only the abstract was
    at hand ("moves to the next denoising step only when the reward model's score is above a threshold"): the values
    of the thresholds, their course along the trajectory and the share of a step are ours.

    Args:
        thresholds: Rewards that an estimate must reach, at equal distances from noise level 1 to 0 and interpolated
            between them; one number is the same everywhere. The default is for rewards in [0, 1].
        share: Share of the NFE left beyond one child a step that a step may spend while nothing passes, in [0, 1]; 1
            spends all on the first step at which nothing does.

    Cost: at most the budget, and at least T + F NFE, with T the sampler's steps and F the NFE of finishing, which each
    draw of the last step costs; one reward call for each draw. With guidance one NFE, reward call and backward pass of
    it for the parent of every transition.
    """

    thresholds: tuple[float, ...] = (0.9,)
    share: float = 0.5
    name = "threshold"

    def __post_init__(self) -> None:
        super().__post_init__()
        real("share of threshold", self.share, at_least=0, at_most=1)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        steps, particle = propagator.begin(resume)
        for step in steps:
            if step > 0:
                particle = yield from propagator.guided(particle, step - 1)
            particle = yield from self._draw(propagator, particle, step)
            yield from propagator.save(step, particle, noise_level=self.level(propagator.dynamics, step))
        return propagator.returned(particle)

    def _draw(self, propagator: Propagator, parent: Particles, step: int) -> Asking[Particles]:
        """Draw until a child passes or no more can be afforded, and return the best."""
        dynamics, last = propagator.dynamics, step == propagator.dynamics.transitions
        best = yield from self._child(propagator, parent, step, 0)
        spare = propagator.account.left - self.nfe_from(dynamics, step)
        most = spare if last else math.floor(self.share * spare + 1e-9)
        for draw in range(1, 1 + most // self.state_nfe(dynamics, step)):
            if self.passes(float(best.reward), self.level(dynamics, step)):
                break
            child = yield from self._child(propagator, parent, step, draw)
            best = best.followed_by(child).best()
        return best

    def _child(self, propagator: Propagator, parent: Particles, step: int, draw: int) -> Asking[Particles]:
        score = step < propagator.dynamics.transitions or propagator.dynamics.finish_nfe == 0
        child = yield from propagator.advance(parent, step, [0], [draw], score=score)
        return (yield from self.judged(propagator, child, step))

"""Search over paths: noise nearly finished samples again and denoise them along other paths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import whole
from rollflow.dynamics.conversions import broadcast_like
from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.shapes import States
from rollflow.errors import BadSetting
from rollflow.requests import Asking
from rollflow.sampler import Dynamics
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.keeping import EachStream, Keeping
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.streams import copied, labels

LONGEST_STEP = 0.3
"""Longest step, in linear noise level, that still denoises; see ``SearchOverPaths.doubt``."""

_EPSILON = 1e-9  # rounding of noise levels that are given as decimals


class Leg(NamedTuple):
    """A descent of ``rows`` particles from one noise level to another in ``steps`` equal steps."""

    upper: float
    lower: float
    rows: int
    steps: int


def _times(interpolant: Interpolant, leg: Leg) -> Float64[Tensor, " T"]:
    """Return the times of a leg's evaluations along an interpolant."""
    levels = torch.linspace(leg.upper, leg.lower, leg.steps + 1, dtype=torch.float64)
    return interpolant.time_at_log_snr(2 * torch.log((1 - levels) / levels))


def _longest_step(legs: list[Leg]) -> float:
    return max((leg.upper - leg.lower) / leg.steps for leg in legs)


def renoised(
    interpolant: Interpolant, x: States, t: Float64[Tensor, ""], s: Float64[Tensor, ""], noise: States
) -> States:
    """Draw from the forward kernel, from x_t to x_s with s >= t: the noising process given x_t.

        x_s = (alpha_s / alpha_t) x_t + sqrt(sigma_s^2 - (alpha_s / alpha_t)^2 sigma_t^2) z

    Exact: if x_t has the law of the interpolant at t, x_s has it at s.

    Args:
        interpolant: Interpolant of the states and times.
        x: (B, ...) states at time t.
        t: Time (), with alpha_t > 0.
        s: Later time ().
        noise: (B, ...) standard normal noise.
    """
    kept = interpolant.alpha(s) / interpolant.alpha(t)
    variance = interpolant.sigma(s) ** 2 - (kept * interpolant.sigma(t)) ** 2
    return broadcast_like(kept, x) * x + broadcast_like(torch.sqrt(variance.clamp(min=0)), x) * noise


@dataclass(frozen=True)
class SearchOverPaths(ScheduledSearch):
    """Denoise, then repeatedly noise M copies of each stream part of the way back, denoise them and keep the best.

    In linear noise levels, s = sigma / (alpha + sigma), with the sampler's kernel on every descent::

        N noises, down to s = start
        until s = 0:
            M copies of each, by the forward kernel up to s + forward
            down to s + forward - back, or to 0 if that is higher
            keep the best of each stream by r(x0);  s = its noise level

    Ma et al. 2025, arXiv 2501.09732, "search over paths", as Kim et al. 2025, arXiv 2503.19385, run it, both with
    deterministic descents. Deviations: each stream keeps its own best, whereas both keep the best N of all copies
    (``keep=AllCopies()``); and the descent to 0 ends with an evaluation at noise level 1 / steps or below, whose clean
    estimate is the finished sample, regardless of the sampler's ``finish``, where Ma et al. end with a random search
    from the N samples.

    Every descent (a leg) goes in equal steps of noise level from an evaluation at its upper end to one at its lower
    end, which is scored; the sampler's time grid plays no part. The budget buys steps, equally many for each leg; what
    remains buys one more step for the last legs, and what is too little for their copies goes to the first leg.
    Evaluations are numbered over all legs, and each state is drawn with the noise of its evaluation's number, labelled
    by its stream as the row and its copy as the draw. Progress is saved after each leg.

    Args:
        streams: Number N of streams (the paper: 2).
        copies: Number M of copies of each (the paper: 5).
        start: Noise level s0 at which the first leg ends, in (0, 1).
        forward: Increase of the noise level of copies, > 0, with start + forward <= 1.
        back: Decrease of their noise level, > forward.
        keep: Rule that keeps N of the copies: of each stream its best, or the best of all (the paper).

    Cost: N (E0 + M (E1 + ... + ER)) NFE, with Ei >= 2 the evaluations of leg i and R = start / (back - forward) rounded
    up; N (1 + M R) reward calls. Less than the cost of N children is left unspent. With guidance, one more backward
    pass and reward call for every evaluation that is not scored.
    """

    streams: int = 2
    copies: int = 5
    start: float = 0.12
    forward: float = 0.78
    back: float = 0.81
    keep: Keeping = EachStream()
    name = "paths"
    default_kernel = "ode"
    few_step_interpolant = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("streams of paths", self.streams, at_least=1)
        whole("copies of paths", self.copies, at_least=1)
        if not (0 < self.start < 1 and 0 < self.forward < self.back and self.start + self.forward <= 1 + _EPSILON):
            raise BadSetting(
                "paths needs 0 < start < 1, 0 < forward < back and start + forward <= 1, not "
                f"start={self.start}, forward={self.forward} and back={self.back}"
            )

    @property
    def rounds(self) -> int:
        """Number R of legs after the first."""
        return math.ceil(self.start / (self.back - self.forward) - _EPSILON)

    def _rows(self) -> int:
        """Return the number of particles of all legs together."""
        return self.streams * (1 + self.copies * self.rounds)

    def _legs(self, dynamics: Dynamics, surplus: int) -> list[Leg]:
        """Return legs of one step each, to which this many steps of single particles are added."""
        if dynamics.start < 1:
            raise BadSetting("paths starts from pure noise, not from a picture; take another method")
        steps, left = divmod(self._rows() + surplus, self._rows())
        longer, left = divmod(left, self.streams * self.copies)
        legs = [Leg(1.0, self.start, self.streams, steps + left // self.streams)]
        for i in range(self.rounds):
            more = steps + (i >= self.rounds - longer)
            upper = min(legs[i].lower + self.forward, 1.0)
            last = i == self.rounds - 1
            lower = min(upper / (more + 1), 1 / dynamics.sampler.steps) if last else upper - self.back
            legs.append(Leg(upper, lower, self.streams * self.copies, more))
        return legs

    def legs(self, dynamics: Dynamics, nfe: int) -> list[Leg]:
        """Return the legs that a budget of ``nfe`` buys. Raises BudgetTooSmall."""
        return self._legs(dynamics, self._surplus(dynamics, nfe))

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        stages: list[Stage] = []
        for leg in self._legs(dynamics, surplus):
            top = Stage(leg.rows, score=False, guided=True, fresh=True)
            stages += [top, top._replace(fresh=False, times=leg.steps - 1), Stage(leg.rows)]
        return Schedule(stages)

    def doubt(self, dynamics: Dynamics, nfe: int) -> str | None:
        """Warn of a budget in which a step is longer than ``LONGEST_STEP``, so that a leg hardly denoises.

        The paper's setting, 500 NFE, has 10 steps for a leg of at most 0.88. On the embedded models with ``count`` (12
        prompts, one seed, Linear-ODE), 1, 2, 3 and 4 steps a leg gave -2.9, -0.3, -0.4 and -0.3 with ``scenes-base``,
        and -0.9, -0.8, -0.3 and -0.3 with ``scenes-turbo``; best of N in the budget of 1 step gave -0.4 and -0.5.
        """
        longest, surplus = _longest_step(self.legs(dynamics, nfe)), 0
        if longest <= LONGEST_STEP + _EPSILON:
            return None
        while _longest_step(self._legs(dynamics, surplus)) > LONGEST_STEP + _EPSILON:
            surplus += self._rows()
        sensible = self.price(dynamics, surplus).nfe
        return (
            f"paths has too few steps in {nfe} NFE: one spans {longest:.2f} of noise level, more than "
            f"{LONGEST_STEP}, and so hardly denoises; use {sensible} NFE or more, or fewer streams or copies"
        )

    def _descend(self, propagator: Propagator, leg: Leg, x: States, first: int) -> Asking[Particles]:
        """Take states down a leg; ``first`` is the number of the evaluation at its upper end."""
        kernel, times = propagator.dynamics.sampler.kernel, _times(propagator.dynamics.sampler.interpolant, leg)
        labelled = labels(self.streams, leg.rows // self.streams)
        particles = yield from propagator.evaluate(x, times[0], score=False, guided=True)
        for step, (t, s) in enumerate(pairwise(times), 1):
            noise = propagator.noise.normals(first + step, *labelled) if kernel.stochastic else None
            x, end = (yield from propagator.move(particles, t, s, noise)), step == leg.steps
            particles = yield from propagator.evaluate(x, s, score=end, guided=not end)
        return particles

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        interpolant = propagator.dynamics.sampler.interpolant
        legs = self._legs(propagator.dynamics, self.surplus(propagator))
        rounds, kept = propagator.begin(resume, len(legs))
        for i in rounds:
            leg, first = legs[i], sum(before.steps + 1 for before in legs[:i])
            m = leg.rows // self.streams
            x = propagator.noise.normals(first, *labels(self.streams, m))
            if i > 0:
                t, s = _times(interpolant, legs[i - 1])[-1], _times(interpolant, leg)[0]
                x = renoised(interpolant, kept.x[copied(self.streams, m)], t, s, x)
            particles = yield from self._descend(propagator, leg, x, first)
            kept = particles.rows(self.keep.rows(particles.reward, self.streams))
            yield from propagator.save(i, kept, noise_level=leg.lower)
        row = kept.best_row
        return Finished(kept.clean[row], float(kept.reward[row]), 0.0, row=row)

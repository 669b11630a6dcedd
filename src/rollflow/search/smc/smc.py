"""Sequential Monte Carlo: particles weighed by what their clean estimates are worth, and resampled."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from torch import Tensor

from rollflow.checks import real, whole
from rollflow.dynamics.kernels import GaussianKernel
from rollflow.dynamics.lookahead import Tweedie
from rollflow.errors import BadSetting, BudgetTooSmall
from rollflow.particles.resampling import Multinomial, Resampling, Systematic
from rollflow.particles.weights import normalised
from rollflow.requests import Asking, save
from rollflow.sampler import Dynamics, linear_shares
from rollflow.search.base import Cost, Progress, Search
from rollflow.search.propagator import Finished, Particles, Propagator
from rollflow.search.smc.potentials import DifferencePotential, Memory, Potential
from rollflow.search.smc.tempering import NoTempering, Tempering
from rollflow.search.smc.weighing import Target, Weighing, log_ratio


@dataclass(frozen=True)
class SMC(Search):
    """K particles, weighed by what their clean estimates are worth, and resampled where the weights are uneven.

        x_0^i ~ N(0, I),  w^i = Z = 1,  phi_{-1} = 0
        k = 0, 1, ..., T - 1:    w^i <- w^i exp((gamma_k phi_k^i - gamma_{k-1} phi_{k-1}^i) / temperature)
                                 if ESS < c K:  A ~ resampling(w),  x^i <- x^{A_i},  Z <- Z mean(w),  w^i <- 1
                                 x_{k+1}^i ~ p(x_{k+1} | x_k^i)

    with phi_{T-1} = r(x0) and gamma_{T-1} = 1 in the end, after which nothing is resampled: the weighted samples then
    stand for p(x0) exp(r(x0) / temperature), p the law of the sampler, and Z mean(w) is an unbiased estimate of its
    normalising constant, for any K. Weights are carried on where it does not resample.

    FK steering, Singhal et al. 2025, arXiv 2501.06848; tempering as DAS, Kim, Kim & Park 2025, arXiv 2501.05803. With
    guidance the children are drawn from N(m + shift, s^2) in place of the kernel's N(m, s^2), and their weights get the
    ratio of the two densities (arXiv 2501.05803). Deviations: where finishing costs NFE, the finished samples are what
    the last potential weighs; as finishing is deterministic, the estimates before it are neither scored nor resampled.
    With a deterministic kernel, which is legal without guidance, the copies of a particle stay one. A particle whose
    estimate must not be chosen (reward -inf) has weight 0; a step at which none may be chosen weighs nothing.

    Args:
        potential: phi_k.
        temperature: > 0, in units of the reward (arXiv 2503.19385: 0.5 for VQAScore, in [0, 1]).
        resampling: How ancestors are drawn.
        threshold: c, in [0, 1]; 1 resamples at every step, 0 never.
        tempering: gamma_k.
        ratio: K of the last step over that of the first, in (0, 1]; between them K falls linearly (the "adaptive" SMC
            of arXiv 2503.19385), with a resampling wherever it changes.
        draw: Return one particle drawn by the final weights, not the one of the highest reward: a sample of the tilted
            law, as far as K is large.
        particles: K, >= 2, on average where it falls; None is what the budget buys.

    Cost: K (T + F) NFE, T the sampler's steps and F the finishing; K T reward calls. Where K is what the budget
    buys, less than one trajectory is left over. With guidance K (T - 1) backward passes, and as
    many reward calls more where the look-ahead is not the estimate that is differentiated.
    """

    potential: Potential = DifferencePotential()
    temperature: float = 0.5
    resampling: Resampling = Systematic()
    threshold: float = 1.0
    tempering: Tempering = NoTempering()
    ratio: float = 1.0
    draw: bool = False
    particles: int | None = None
    name = "smc"
    states = (Weighing, Memory)

    def __post_init__(self) -> None:
        super().__post_init__()
        real("temperature of smc", self.temperature, above=0)
        if self.particles is not None:
            whole("particles of smc", self.particles, at_least=2)
        real("threshold of smc, from 0 (never resample) to 1 (always),", self.threshold, at_least=0, at_most=1)
        real("ratio of smc", self.ratio, above=0, at_most=1)

    def _counts(self, dynamics: Dynamics, total: int) -> list[int]:
        """K of every evaluation time, ``total`` in all or, where K is constant, a few less."""
        steps = dynamics.sampler.steps
        return [total // steps] * steps if self.ratio == 1 else linear_shares(total, steps, self.ratio)

    def _scored(self, dynamics: Dynamics) -> int:
        """At how many evaluation times there is a weighing; the last waits for the finished samples if those cost."""
        return dynamics.sampler.steps - (dynamics.finish_nfe > 0)

    def _prices(self, dynamics: Dynamics) -> list[int]:
        """NFE of a particle at every evaluation time."""
        shown = dynamics.sampler.lookahead.extra_nfe
        prices = [dynamics.propagate_nfe + shown * (k < self._scored(dynamics)) for k in range(dynamics.sampler.steps)]
        return [prices[0] - dynamics.sampler.kernel.extra_nfe, *prices[1:]]  # no kernel leads to a noise

    def _nfe(self, dynamics: Dynamics, counts: list[int]) -> int:
        walked = sum(count * price for count, price in zip(counts, self._prices(dynamics), strict=True))
        return walked + counts[-1] * dynamics.finish_nfe

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return self._nfe(dynamics, self._counts(dynamics, (self.particles or 2) * dynamics.sampler.steps))

    def _particles(self, dynamics: Dynamics, nfe: int) -> list[int]:
        """K of every evaluation time, as many as ``nfe`` buys where they are not given.

        Raises:
            BudgetTooSmall: If that is less than those given, or than 2 on average.
        """
        if nfe < self.smallest_nfe(dynamics):
            raise BudgetTooSmall(self.name, nfe, self.smallest_nfe(dynamics))
        if self.particles is not None:
            return self._counts(dynamics, self.particles * dynamics.sampler.steps)
        totals = range(2 * dynamics.sampler.steps, nfe + 1)
        at = bisect_right(totals, nfe, key=lambda total: self._nfe(dynamics, self._counts(dynamics, total)))
        return self._counts(dynamics, totals[at - 1])

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        kernel, lookahead = dynamics.sampler.kernel, dynamics.sampler.lookahead
        if dynamics.guidance_nfe and not (isinstance(kernel, GaussianKernel) and kernel.stochastic):
            raise BadSetting(
                f"smc with guidance weighs children by their density, which those of {kernel} do not have; take a "
                "Gaussian kernel, such as sde or ddim, or no guidance"
            )
        counts = self._particles(dynamics, nfe)
        leans = sum(counts[:-1]) * dynamics.guidance_nfe
        calls = sum(counts) + (0 if isinstance(lookahead, Tweedie) else leans)
        return Cost(self._nfe(dynamics, counts), calls, calls, backward_passes=leans)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [self.cost(dynamics, nfe).nfe]

    @property
    def _target(self) -> Target:
        return Target(self.potential, self.tempering, self.temperature)

    def _ancestors(self, weighing: Weighing, propagator: Propagator, step: int, count: int) -> Tensor | None:
        """Parents of the ``count`` particles of step ``step`` + 1; None where every particle goes on."""
        particles = len(weighing.log_w)
        if count == particles and self.threshold < 1 and weighing.ess[-1] >= self.threshold * particles:
            return None
        uniforms = propagator.noise.uniform(step, self.resampling.draws(particles, count))
        return self.resampling(normalised(weighing.log_w), uniforms, count)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        dynamics, steps = propagator.dynamics, propagator.dynamics.sampler.steps
        counts = self._particles(dynamics, propagator.nfe)
        prices, scored = self._prices(dynamics), self._scored(dynamics)
        if resume is None:
            rows, zeros = range(counts[0]), [0] * counts[0]
            particles = yield from propagator.start(rows, zeros, score=scored > 0, guided=True)
            weighing = Weighing.equal(counts[0])
            if scored > 0:
                weighing = self._target.weigh(weighing, particles.reward, 0, steps)
            done, spent = 0, counts[0] * prices[0]
            left = propagator.nfe - spent
            yield from save(Progress(0, particles, left, spent, weighing))
        else:
            done, particles, left, weighing = resume.step, resume.particles, resume.nfe_left, resume.extra
        for step in range(done + 1, steps):
            if weighing.over:
                return Finished(particles.clean[0], -math.inf, dynamics.noise_level(step - 1), row=0)
            ancestors = self._ancestors(weighing, propagator, step - 1, counts[step])
            if ancestors is not None:
                particles, weighing = particles.rows(ancestors), weighing.resampled(ancestors)
            parents, rows, zeros = particles, range(counts[step]), [0] * counts[step]
            particles = yield from propagator.advance(parents, step, rows, zeros, score=step < scored, guided=True)
            weighing = weighing._replace(log_w=weighing.log_w + log_ratio(propagator, parents, particles.x, step))
            if step < scored:
                weighing = self._target.weigh(weighing, particles.reward, step, steps)
            spent = counts[step] * prices[step]
            left -= spent
            yield from save(Progress(step, particles, left, spent, weighing, ancestors=ancestors))
        particles = yield from propagator.denoise(particles)
        if scored < steps:
            weighing = self._target.weigh(weighing, particles.reward, steps - 1, steps)
        return self._chosen(propagator, particles, weighing)

    def _chosen(self, propagator: Propagator, particles: Particles, weighing: Weighing) -> Finished:
        if weighing.over:
            return propagator.returned(particles)
        if self.draw:
            uniform = propagator.noise.uniform(propagator.dynamics.transitions, 1)
            row = int(Multinomial()(normalised(weighing.log_w), uniform, 1))
        else:
            row = particles.best_row
        diagnostics = {
            "log_z": weighing.log_evidence,
            "ess": weighing.ess,
            "gamma": weighing.gamma,
            "resamplings": weighing.resamplings,
            "ancestors": len(set(weighing.root.tolist())),
        }
        return propagator.returned(particles, row, diagnostics)

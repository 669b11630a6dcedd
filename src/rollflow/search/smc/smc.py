"""SMC, sequential Monte Carlo: particles are weighted by the rewards of their clean estimates and resampled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int64
from torch import Tensor

from rollflow.checks import real, whole
from rollflow.dynamics.kernels import GaussianKernel
from rollflow.errors import BadSetting
from rollflow.particles.resampling import Multinomial, Resampling, Systematic
from rollflow.particles.weights import normalised
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, linear_shares
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.smc.potentials import DifferencePotential, Memory, Potential
from rollflow.search.smc.tempering import NoTempering, Tempering
from rollflow.search.smc.weighing import Target, Weighing, log_ratio


@dataclass(frozen=True)
class SMC(ScheduledSearch):
    """Weight K particles by the rewards of their clean estimates and resample them when the weights are uneven.

        x_0^i ~ N(0, I),  w^i = Z = 1,  phi_{-1} = 0
        k = 0, 1, ..., T - 1:    w^i <- w^i exp((gamma_k phi_k^i - gamma_{k-1} phi_{k-1}^i) / temperature)
                                 if ESS < c K:  A ~ resampling(w),  x^i <- x^{A_i},  Z <- Z mean(w),  w^i <- 1
                                 x_{k+1}^i ~ p(x_{k+1} | x_k^i)

    with phi_{T-1} = r(x0) and gamma_{T-1} = 1 in the end, after which nothing is resampled. The weighted samples then
    represent p(x0) exp(r(x0) / temperature), with p the law of the sampler, and Z mean(w) is an unbiased estimate of
    its normalising constant for any K. Steps that do not resample carry the weights on.

    FK steering, Singhal et al. 2025, arXiv 2501.06848; tempering as in DAS, Kim, Kim & Park 2025, arXiv 2501.05803.
    With guidance, children are drawn from N(m + shift, s^2) instead of the kernel's N(m, s^2), and their weights are
    multiplied by the ratio of the two densities (arXiv 2501.05803). Deviations: if finishing costs NFE, the last
    potential weights the finished samples; since finishing is deterministic, the estimates before it are neither scored
    nor resampled. With a deterministic kernel, which is allowed without guidance, copies of a particle stay identical.
    A particle whose estimate must not be chosen (reward -inf) has weight 0; a step at which none may be chosen changes
    no weight.

    Args:
        potential: Potential phi_k.
        temperature: Temperature > 0, in units of the reward (arXiv 2503.19385: 0.5 for VQAScore, in [0, 1]).
        resampling: Scheme that draws ancestors.
        threshold: Share c of K below which the effective sample size triggers resampling, in [0, 1]; 1 resamples at
            every step, 0 never.
        tempering: Tempering gamma_k.
        ratio: K of the last step divided by that of the first, in (0, 1]; between them K falls linearly (the "adaptive"
            SMC of arXiv 2503.19385), with resampling wherever it changes.
        draw: Whether to return one particle drawn by the final weights, a sample of the tilted law for large K, instead
            of the one with the highest reward.
        particles: Number K of particles, >= 2, or their average number if it falls; None takes as many as the budget
            allows.

    Cost: K (T + F) NFE, with T the sampler's steps and F the NFE of finishing; K T reward calls. If K is None, less
    than the cost of one trajectory is left unspent. With guidance, K (T - 1) backward passes, and another K (T - 1)
    reward calls unless the look-ahead is the posterior mean that is differentiated.
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
    states: ClassVar[tuple[type, ...]] = (Weighing, Memory)

    def __post_init__(self) -> None:
        super().__post_init__()
        real(f"temperature of {self.name}", self.temperature, above=0)
        if self.particles is not None:
            whole(f"particles of {self.name}", self.particles, at_least=2)
        bounds = "from 0 (never resample) to 1 (always),"
        real(f"threshold of {self.name}, {bounds}", self.threshold, at_least=0, at_most=1)
        real(f"ratio of {self.name}", self.ratio, above=0, at_most=1)

    def _counts(self, dynamics: Dynamics, total: int) -> list[int]:
        """Return K of every evaluation time, ``total`` altogether, or a few less if K is constant."""
        steps = dynamics.sampler.steps
        return [total // steps] * steps if self.ratio == 1 else linear_shares(total, steps, self.ratio)

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        kernel, last, steps = dynamics.sampler.kernel, dynamics.transitions, dynamics.sampler.steps
        if dynamics.guidance_nfe and not (isinstance(kernel, GaussianKernel) and kernel.stochastic):
            raise BadSetting(
                f"{self.name} with guidance weighs children by their density, which those of {kernel} do not have; "
                "take a Gaussian kernel, such as sde or ddim, or no guidance"
            )
        if self.particles is not None:
            total = self.particles * steps
        else:
            total = 2 * steps + surplus * (steps if self.ratio == 1 else 1)
        counts, free = self._counts(dynamics, total), dynamics.finish_nfe == 0  # else the last weighing is of samples
        stages = [Stage(count, score=free or k < last, guided=k < last) for k, count in enumerate(counts)]
        return Schedule(stages, finished=counts[-1])

    @property
    def _target(self) -> Target:
        return Target(self.potential, self.tempering, self.temperature)

    def _ancestors(
        self, weighing: Weighing, propagator: Propagator, step: int, count: int
    ) -> Int64[Tensor, " {count}"] | None:
        """Draw the ancestors of the ``count`` particles of the next step; None if every particle continues."""
        particles = len(weighing.log_w)
        if count == particles and self.threshold < 1 and weighing.ess[-1] >= self.threshold * particles:
            return None
        uniforms = propagator.noise.uniform(step, self.resampling.draws(particles, count))
        return self.resampling(normalised(weighing.log_w), uniforms, count)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        stages, dynamics = self.bought(propagator).stages, propagator.dynamics
        times, particles = propagator.begin(resume)
        weighing = Weighing.equal(stages[0].rows) if resume is None else resume.extra
        for step in times:
            count, score, guided, *_ = stages[step]
            ancestors, parents = None, particles
            if step > 0:
                if weighing.over:
                    return Finished(particles.clean[0], -math.inf, dynamics.noise_level(step - 1), row=0)
                ancestors = self._ancestors(weighing, propagator, step - 1, count)
                if ancestors is not None:
                    parents, weighing = particles.rows(ancestors), weighing.resampled(ancestors)
            labelled = range(count), [0] * count
            particles = yield from propagator.advance(parents, step, *labelled, score=score, guided=guided)
            if step > 0:
                weighing = weighing._replace(log_w=weighing.log_w + log_ratio(propagator, parents, particles.x, step))
            if score:
                weighing = self._target.weigh(weighing, particles.reward, step, len(stages))
            yield from propagator.save(step, particles, weighing, ancestors=ancestors)
        particles = yield from propagator.denoise(particles)
        if not stages[-1].score:
            weighing = self._target.weigh(weighing, particles.reward, len(stages) - 1, len(stages))
        return self._chosen(propagator, particles, weighing)

    def _chosen(self, propagator: Propagator, particles: Particles, weighing: Weighing) -> Finished:
        if weighing.over:
            return propagator.returned(particles)
        row = None
        if self.draw:
            uniform = propagator.noise.uniform(propagator.dynamics.transitions, 1)
            row = int(Multinomial()(normalised(weighing.log_w), uniform, 1))
        diagnostics = {
            "log_z": weighing.log_evidence,
            "ess": weighing.ess,
            "gamma": weighing.gamma,
            "resamplings": weighing.resamplings,
            "ancestors": len(set(weighing.root.tolist())),
        }
        return propagator.returned(particles, row, diagnostics)

"""Weights of particles towards a target: from potentials, and from proposals other than the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from rollflow.dynamics.kernels import GaussianKernel
from rollflow.dynamics.shapes import States
from rollflow.particles.weights import ess, log_mean
from rollflow.search.propagator import Particles, Propagator
from rollflow.search.smc.potentials import Memory, Potential
from rollflow.search.smc.tempering import Tempering


class Weighing(NamedTuple):
    """Weights and history of a population; tensors have one row per particle.

    Args:
        log_w: (B,) float64 log-weights since the last resampling.
        tilt: (B,) float64 tempered potentials gamma_k phi_k / temperature that ``log_w`` contains.
        memory: The potential's memory of the paths; None before the first weighting.
        root: (B,) int64 first ancestor of each particle.
        log_z: log Z-hat up to the last resampling.
        gamma: gamma_k of every weighting.
        ess: Effective sample size after every weighting.
        resamplings: Number of resamplings.
    """

    log_w: Float64[Tensor, " B"]
    tilt: Float64[Tensor, " B"]
    memory: Memory | None
    root: Int64[Tensor, " B"]
    log_z: float = 0.0
    gamma: tuple[float, ...] = ()
    ess: tuple[float, ...] = ()
    resamplings: int = 0

    @staticmethod
    def equal(particles: int) -> Weighing:
        """Return equal weights, of particles just drawn."""
        nothing = torch.zeros(particles, dtype=torch.float64)
        return Weighing(nothing, nothing, None, torch.arange(particles))

    @property
    def log_evidence(self) -> float:
        """log Z-hat up to now."""
        return self.log_z + log_mean(self.log_w)

    @property
    def over(self) -> bool:
        """Whether no particle has a weight above 0, so that none can continue."""
        return not bool((self.log_w > -torch.inf).any())

    def resampled(self, ancestors: Int64[Tensor, " N"]) -> Weighing:
        """Return the state of the particles at ``ancestors``, whose weights move into ``log_z``."""
        return self._replace(
            log_w=torch.zeros(len(ancestors), dtype=torch.float64),
            tilt=self.tilt[ancestors],
            memory=None if self.memory is None else self.memory.rows(ancestors),
            root=self.root[ancestors],
            log_z=self.log_evidence,
            resamplings=self.resamplings + 1,
        )


@dataclass(frozen=True)
class Target:
    """The Feynman-Kac model: particles of step k represent p(x_0 ... x_k) exp(gamma_k phi_k / temperature).

        w <- w exp((gamma_k phi_k - gamma_{k-1} phi_{k-1}) / temperature)

    with phi_{-1} = 0, and in the end phi = r(x0) and gamma = 1.

    Args:
        potential: Potential phi_k.
        tempering: Tempering gamma_k.
        temperature: Temperature > 0, in units of the reward.
    """

    potential: Potential
    tempering: Tempering
    temperature: float

    def weigh(self, weighing: Weighing, reward: Float64[Tensor, " B"], step: int, steps: int) -> Weighing:
        """Return the state after weighting number ``step`` of ``steps``.

        A particle with reward -inf has weight 0 from then on. If that would leave none before the last step, as when a
        safety checker rejects every early estimate, nothing is weighted at this step.

        Args:
            weighing: State before.
            reward: (B,) float64 rewards of the clean estimates or, at last, of the samples.
            step: Number of the weighting.
            steps: Number of weightings.
        """
        last = step == steps - 1
        memory = Memory(reward, reward) if last else self.potential.update(weighing.memory, reward)
        phi, bare = memory.value / self.temperature, weighing.log_w - weighing.tilt
        previous = weighing.gamma[-1] if weighing.gamma else 0.0
        alive = (reward > -torch.inf) & (weighing.log_w > -torch.inf)
        if not alive.any():
            log_w = torch.full_like(phi, -torch.inf) if last else weighing.log_w
            size = ess(log_w) if bool((log_w > -torch.inf).any()) else 0.0
            return weighing._replace(log_w=log_w, gamma=(*weighing.gamma, previous), ess=(*weighing.ess, size))
        gamma = 1.0 if last else self.tempering.gamma(step, steps, previous, bare[alive], phi[alive])
        tilt = torch.where(alive, gamma * phi, 0.0)
        log_w = torch.where(alive, bare + tilt, -torch.inf)
        gammas, sizes = (*weighing.gamma, gamma), (*weighing.ess, ess(log_w))
        return weighing._replace(log_w=log_w, tilt=tilt, memory=memory, gamma=gammas, ess=sizes)


def log_ratio(propagator: Propagator, parents: Particles, x: States, step: int) -> Float64[Tensor, " B"]:
    """Return log N(x; m, s) - log N(x; m + shift, s), (B,) float64, of children x at time number ``step``.

    The density of the kernel's law relative to the one that guided children are drawn from; 0 without guidance.
    """
    if parents.guidance_shift is None:
        return torch.zeros(len(x), dtype=torch.float64)
    dynamics, t, s = propagator.dynamics, propagator.time(step - 1), propagator.time(step)
    kernel = dynamics.sampler.kernel
    assert isinstance(kernel, GaussianKernel)
    v = dynamics.conversion.velocity(parents.u, parents.x, t)
    mean, std = kernel.moments(dynamics.sampler.interpolant, parents.x, v, t, s)
    away = (x - mean).double().flatten(1)
    drawn = away - parents.guidance_shift.double().flatten(1)
    ratio = (drawn.square().sum(1) - away.square().sum(1)).cpu() / (2 * std**2)
    return torch.where(ratio.isnan(), -torch.inf, ratio)  # states that are not finite have weight 0

"""BFS, breadth-first search: SMC as it is run to find one good sample."""

from __future__ import annotations

from dataclasses import dataclass

from rollflow.particles.resampling import SSP, Resampling
from rollflow.search.smc.potentials import MaxPotential, Potential
from rollflow.search.smc.smc import SMC


@dataclass(frozen=True)
class BFS(SMC):
    """Copy K particles at every step as often as the best estimate of their past deserves; return the best at the end.

        w^i = exp(max_{j <= k} r(x0(x_j^i)) / temperature),    copies of x_k^i ~ K w^i / sum w,    rounded by SSP

    which is ``SMC`` with the max potential, SSP resampling at every step and the best sample returned: after every
    resampling the weights start anew, so that only the newest maximum counts. All settings are those of ``SMC``.

    Zhang et al. 2025, arXiv 2505.23614, "BFS". Deviations: the paper resamples at a few chosen steps, and multiplies
    1 / temperature by a factor that rises along the way (in its release by the ratio of alpha^2 between steps, which is
    nearly constant); its gradient steps between the particles' moves are the sampler's guidance here.

    Args:
        potential: Potential phi_k.
        temperature: Temperature > 0, in units of the reward (arXiv 2501.06848: 0.1 for ImageReward).
        resampling: Scheme that draws ancestors.
        threshold: Share c of K below which the effective sample size triggers resampling, in [0, 1]; 1 resamples at
            every step, 0 never.
        tempering: Tempering gamma_k.
        ratio: K of the last step divided by that of the first, in (0, 1]; between them K falls linearly.
        draw: Whether to return one particle drawn by the final weights instead of the best one.
        particles: Number K of particles, >= 2, on average if it falls; None is as many as the budget buys.

    Cost: that of ``SMC``: K (T + F) NFE, with T the sampler's steps and F the NFE of finishing; K T reward calls. With
    guidance K (T - 1) backward passes.
    """

    potential: Potential = MaxPotential()
    temperature: float = 0.1
    resampling: Resampling = SSP()
    name = "bfs"

"""DFS, depth-first search: go down one trajectory, and back where an estimate is not good enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rollflow.checks import real, whole
from rollflow.requests import Asking
from rollflow.sampler import Dynamics
from rollflow.search.paths import renoised
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.thresholds import ThresholdSearch


class Descent(NamedTuple):
    """Where a trajectory is.

    Args:
        step: Number of the evaluation time of its state; -1 before the first.
        best: The best state of each evaluation time reached so far, in their order.
        back: Number of the evaluation time to go back to; None goes on.
        moves: Number of states evaluated so far.
    """

    step: int
    best: Particles
    back: int | None
    moves: int


@dataclass(frozen=True)
class DFS(ThresholdSearch):
    """Go down one trajectory; where its estimate falls under a threshold, noise it again and try from there.

        x_0 ~ N(0, I),    then at every step k from noise level start on, and at the last one:
            r(x0(x_k)) >= threshold(noise level of k):    go on, x_{k+1} ~ p(x_{k+1} | x_k)
            else, if what is left takes it back and to the end:    k <- max(0, k - depth), x_k by the forward kernel
                                                                   from there, or a fresh noise at k = 0
            else:    go on from the best state that was seen at k

    At the last step the finished sample is judged in the estimate's place; one that passes leaves the rest of the
    budget unspent.

    Zhang et al. 2025, arXiv 2505.23614, "DFS". Deviations: their budget is a number of backtracks, and the trajectory
    goes to the end once they are used up; here it is NFE, of which so many are kept as the way to the end takes. A
    state is judged by the estimate from that state, whereas their release keeps the child of the state that was judged.

    Args:
        thresholds: Rewards that an estimate must reach, at equal distances from noise level 1 to 0 and interpolated
            between them; one number is the same everywhere. The default is for rewards in [0, 1].
        start: Linear noise level, in (0, 1], above which no estimate is judged.
        depth: Number of steps to go back.

    Cost: at most the budget, and at least T + F NFE, with T the sampler's steps and F the NFE of finishing, which each
    state of the last step costs; one reward call for each state. With guidance one NFE, reward call and backward pass
    of it for every step forward.
    """

    thresholds: tuple[float, ...] = (0.9,)
    start: float = 0.5
    depth: int = 3
    name = "dfs"
    states: ClassVar[tuple[type, ...]] = (Descent,)

    def __post_init__(self) -> None:
        super().__post_init__()
        real("start of dfs", self.start, above=0, at_most=1)
        whole("depth of dfs", self.depth, at_least=1)

    def _good(self, dynamics: Dynamics, step: int, reward: float) -> bool:
        judged = dynamics.noise_level(step) <= self.start + 1e-9 or step == dynamics.transitions
        return not judged or self.passes(reward, self.level(dynamics, step))

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        dynamics, account = propagator.dynamics, propagator.account
        _, particle = propagator.begin(resume)
        at = Descent(-1, particle, None, 0) if resume is None else resume.extra
        while at.step < dynamics.transitions or at.back is not None:
            particle, step = yield from self._move(propagator, particle, at)
            best, back = _with(at.best, particle, step), max(0, step - self.depth)
            again = self.state_nfe(dynamics, back, moved=False) + self.nfe_from(dynamics, back)
            if self._good(dynamics, step, float(particle.reward)):
                at = Descent(step, best, None, at.moves + 1)
            elif account.left >= again:
                at = Descent(step, best, back, at.moves + 1)
            else:
                particle, at = best.rows(slice(step, step + 1)), Descent(step, best, None, at.moves + 1)
            yield from propagator.save(at.moves - 1, particle, at, noise_level=self.level(dynamics, step))
        return propagator.returned(particle)

    def _move(self, propagator: Propagator, particle: Particles, at: Descent) -> Asking[tuple[Particles, int]]:
        """Evaluate and judge the next state; return it and the number of its evaluation time."""
        dynamics, step = propagator.dynamics, at.step + 1 if at.back is None else at.back
        score = step < dynamics.transitions or dynamics.finish_nfe == 0
        if at.back is None or step == 0:
            parent = (yield from propagator.guided(particle, at.step)) if step > 0 else particle
            state = yield from propagator.advance(parent, step, [0], [at.moves], score=score)
        else:
            t, s = propagator.time(at.step), propagator.time(step)
            noise = propagator.noise.normals(step, [1], [at.moves])
            x = renoised(dynamics.sampler.interpolant, particle.x, t, s, noise)
            state = yield from propagator.evaluate(x, s)
        return (yield from self.judged(propagator, state, step)), step


def _with(best: Particles, particle: Particles, step: int) -> Particles:
    """Return the best states of all evaluation times after one more state, at time number ``step``."""
    if step == len(best.x):
        return best.followed_by(particle)
    both = best.rows(slice(step, step + 1)).followed_by(particle).best()
    return best.rows(slice(step)).followed_by(both).followed_by(best.rows(slice(step + 1, None)))

"""How particles move, whatever the search: interpolant, kernel, time grid, look-ahead and finishing in one object."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from rollflow.checks import MOST_STEPS, Settings, real, whole
from rollflow.dynamics.conversions import Conversion
from rollflow.dynamics.grids import Arc, Grid, Uniform
from rollflow.dynamics.guidance import Guidance
from rollflow.dynamics.interpolants import VP, Interpolant
from rollflow.dynamics.kernels import EulerMaruyama, Kernel
from rollflow.dynamics.lookahead import Lookahead, Tweedie
from rollflow.errors import BadSetting
from rollflow.models.base import FlowModel, ModelSpec


@dataclass(frozen=True)
class Sampler(Settings):
    """A choice of dynamics, of any model; ``bind`` fits it to one.

    Args:
        interpolant: The one sampled along; the model is converted to it.
        kernel: How x_t becomes x_s.
        grid: Time grid; None is the model's own along its interpolant, where it has one, and elsewhere the paper's
            (arXiv 2503.19385): ``Arc`` along VP, ``Uniform`` along any other.
        steps: Evaluation times t_0 = 1 > ... > t_{steps-1} > 0; the end, 0, is reached by finishing.
        lookahead: What is shown to the reward.
        finish: Whether the returned sample is denoised to t = 0 inside the budget, or is the clean estimate at
            t_{steps-1}; None leaves it to the model: finish unless it is step-distilled (``few_step``).
        guidance: Which way children lean; needs a differentiable reward.
    """

    interpolant: Interpolant = VP()
    kernel: Kernel = EulerMaruyama()
    grid: Grid | None = None
    steps: int = 10
    lookahead: Lookahead = Tweedie()
    finish: bool | None = None
    guidance: Guidance | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("steps", self.steps, at_least=1, at_most=MOST_STEPS)

    def bind(self, model: ModelSpec) -> Dynamics:
        """The same dynamics with nothing left open, for one model; needs no weights.

        Where a model sets out from is known once it is loaded; one that is not is taken to start from pure noise, the
        longest way there is.
        """
        own = model.grid if self.interpolant == model.interpolant else None
        grid = self.grid or own or (Arc() if isinstance(self.interpolant, VP) else Uniform())
        finish = not model.few_step if self.finish is None else self.finish
        start = model.start(self.steps) if isinstance(model, FlowModel) else 1.0
        start = real("start of the model", start, above=0, at_most=1)
        return Dynamics(replace(self, grid=grid, finish=finish), model.interpolant, start)


@dataclass(frozen=True)
class Dynamics:
    """A sampler bound to a model's interpolant.

    Args:
        sampler: With ``grid`` and ``finish`` decided.
        source: The model's own interpolant.
        start: Time in it at which sampling starts.
    """

    sampler: Sampler
    source: Interpolant
    start: float = 1.0

    @cached_property
    def conversion(self) -> Conversion:
        return Conversion(self.source, self.sampler.interpolant)

    @cached_property
    def times(self) -> Tensor:
        """(steps + 1,) float64 times of the sampler's interpolant, from 1, or a later start, to 0."""
        assert self.sampler.grid is not None
        times = self.sampler.grid(self.sampler.steps)
        _check_times(times, self.sampler)
        if self.start == 1:
            return times
        return times * (Conversion(self.sampler.interpolant, self.source).time(self.start) / times[0])

    @property
    def transitions(self) -> int:
        """Steps between evaluation times; finishing comes after."""
        return self.sampler.steps - 1

    def level(self, s: Tensor) -> float:
        """sigma / (alpha + sigma) at time s: that time on the linear interpolant."""
        alpha, sigma = self.sampler.interpolant.alpha(s), self.sampler.interpolant.sigma(s)
        return float(sigma / (alpha + sigma))

    def noise_level(self, step: int) -> float:
        """The same at time number ``step``."""
        return self.level(self.times[step])

    @property
    def last_noise_level(self) -> float:
        """Noise level at the last evaluation."""
        return self.noise_level(self.transitions)

    @cached_property
    def finishing_steps(self) -> int:
        """Euler steps to 0 after the last evaluation: as many as keep each within 1 / steps of noise level.

        One step is the clean estimate itself, so that a uniform grid on the linear interpolant finishes for free,
        as an Euler sampler of as many steps ends; so does a grid whose last interval is a step in any case.
        """
        if not self.sampler.finish or self._whole:
            return 1
        return max(1, math.ceil(self.last_noise_level * self.sampler.steps - 1e-9))

    @property
    def finished(self) -> bool:
        """Whether what is returned is a sample, not an estimate at a noise level above 1 / steps."""
        near = self.last_noise_level <= 1 / self.sampler.steps + 1e-9
        return bool(self.sampler.finish) or self._whole or near

    @property
    def _whole(self) -> bool:
        assert self.sampler.grid is not None
        return self.sampler.grid.whole

    @property
    def finish_nfe(self) -> int:
        """NFE of finishing one particle."""
        return self.finishing_steps - 1

    @property
    def propagate_nfe(self) -> int:
        """NFE of drawing one child and evaluating it where the reward is not asked, and no look-ahead is taken."""
        return 1 + self.sampler.kernel.extra_nfe

    @property
    def evaluate_nfe(self) -> int:
        """NFE of evaluating one state and showing its clean estimate to the reward."""
        return 1 + self.sampler.lookahead.extra_nfe

    @property
    def guidance_nfe(self) -> int:
        """NFE, and as many backward passes, of telling where the children of one parent lean."""
        return int(self.sampler.guidance is not None)

    @property
    def child_nfe(self) -> int:
        """NFE of drawing one child and evaluating it at its own time."""
        return self.evaluate_nfe + self.sampler.kernel.extra_nfe


def _check_times(times: Tensor, sampler: Sampler) -> None:
    """Raise a BadSetting if a grid did not give ``steps + 1`` times that fall from at most 1 to 0."""
    falls = times.shape == (sampler.steps + 1,) and bool((times.diff() < 0).all())
    if not (falls and times[0] <= 1 and times[-1] == 0):
        raise BadSetting(
            f"the grid {sampler.grid} gives no {sampler.steps + 1} times that fall from 1 to 0 in {sampler.steps} "
            "steps; choose other settings or fewer steps"
        )


def even_shares(total: int, parts: int) -> list[int]:
    """``total`` split evenly into ``parts`` whole shares, the larger ones last."""
    share, extra = divmod(total, parts)
    return [share] * (parts - extra) + [share + 1] * extra


def linear_shares(total: int, parts: int, ratio: float) -> list[int]:
    """``total`` split into ``parts`` whole shares, each at least 1, that fall linearly to ``ratio`` times the first.

    Every part has one unit; each further one goes where weight / (2 share + 1) is the largest, the first of equals
    (the method of Sainte-Lague), so that no share exceeds an earlier one and a larger total takes nothing from any.

    Args:
        total: >= ``parts``.
        parts: >= 1.
        ratio: Weight of the last share over that of the first, in (0, 1].

    Raises:
        BadSetting: If one of them is out of range.
    """
    if not (1 <= parts <= total and 0 < ratio <= 1):
        raise BadSetting(f"expected 1 <= parts <= total and 0 < ratio <= 1; got {parts=}, {total=}, {ratio=}")
    weights = [1 - (1 - ratio) * i / max(parts - 1, 1) for i in range(parts)]
    scale = (total - parts) / sum(weights)  # the method passes through the rounded multiples of the weights
    shares = [max(1, int(scale * weight + 0.5)) for weight in weights]
    waiting = [(-weight / (2 * share + 1), i) for i, (weight, share) in enumerate(zip(weights, shares, strict=True))]
    heapq.heapify(waiting)
    for _ in range(total - sum(shares)):
        i = waiting[0][1]
        shares[i] += 1
        heapq.heapreplace(waiting, (-weights[i] / (2 * shares[i] + 1), i))
    return shares

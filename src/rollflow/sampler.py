"""The sampler: interpolant, kernel, time grid, look-ahead and finishing in one object, independent of the search."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
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
from rollflow.errors import BadSetting, former_names
from rollflow.models.base import FlowModel, ModelSpec


@dataclass(frozen=True)
class Sampler(Settings):
    """The rule by which particles move, for any model; ``bind`` adapts it to one.

    Args:
        interpolant: Interpolant to sample along; the model is converted to it.
        kernel: Transition from x_t to x_s.
        grid: Time grid. None is the model's own grid along its own interpolant, if it has one, and otherwise that of
            Kim et al. 2025, arXiv 2503.19385: ``Arc`` along VP, ``Uniform`` along any other interpolant.
        steps: Number of evaluation times t_0 = 1 > ... > t_{steps-1} > 0; the end, 0, is reached by finishing.
        lookahead: Clean estimate that is shown to the reward.
        finish: Whether the returned sample is denoised to t = 0 inside the budget; otherwise it is the clean estimate
            at t_{steps-1}. None finishes unless the model is step-distilled (``few_step``).
        guidance: Displacement of children along the gradient of the reward, which must be differentiable; None is no
            guidance.
        best_seen: Whether a search returns the best clean estimate that it has scored, at whichever noise level, rather
            than the best of the last time. It costs nothing, and needs samples that are not finished.
    """

    interpolant: Interpolant = VP()
    kernel: Kernel = EulerMaruyama()
    grid: Grid | None = None
    steps: int = 10
    lookahead: Lookahead = Tweedie()
    finish: bool | None = None
    guidance: Guidance | None = None
    best_seen: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("steps", self.steps, at_least=1, at_most=MOST_STEPS)

    def bind(self, model: ModelSpec) -> Dynamics:
        """Return the dynamics of one model, with every choice made; needs no weights.

        The time at which sampling starts is known only once the model is loaded; until then it is assumed to start
        from pure noise, which costs the most.

        Raises:
            BadSetting: If ``best_seen`` is set, and samples would be finished.
        """
        own = model.grid if self.interpolant == model.interpolant else None
        grid = self.grid or own or (Arc() if isinstance(self.interpolant, VP) else Uniform())
        finish = not model.few_step if self.finish is None else self.finish
        if self.best_seen and finish:
            raise BadSetting(
                "best_seen returns clean estimates as they are, but this sampler finishes its samples; turn finish or "
                "best_seen off"
            )
        start = model.start(self.steps) if isinstance(model, FlowModel) else 1.0
        start = real("start of the model", start, above=0, at_most=1)
        return Dynamics(replace(self, grid=grid, finish=finish), model.interpolant, start)


@dataclass(frozen=True)
class Dynamics:
    """A sampler bound to a model, with the NFE of everything that a search can request.

    Args:
        sampler: Sampler whose ``grid`` and ``finish`` are not None.
        source: The model's own interpolant.
        start: Time of the model's interpolant at which sampling starts, in (0, 1].
    """

    sampler: Sampler
    source: Interpolant
    start: float = 1.0

    @cached_property
    def conversion(self) -> Conversion:
        """Conversion of the model to the sampler's interpolant."""
        return Conversion(self.source, self.sampler.interpolant)

    @cached_property
    def times(self) -> Tensor:
        """(steps + 1,) float64 times of the sampler's interpolant, from 1, or from a later start, to 0."""
        assert self.sampler.grid is not None
        times = self.sampler.grid(self.sampler.steps)
        _check_times(times, self.sampler)
        if self.start == 1:
            return times
        return times * (Conversion(self.sampler.interpolant, self.source).time(self.start) / times[0])

    @property
    def transitions(self) -> int:
        """Number of transitions between evaluation times, without finishing."""
        return self.sampler.steps - 1

    def level(self, s: Tensor) -> float:
        """Return the linear noise level sigma / (alpha + sigma) at time s."""
        alpha, sigma = self.sampler.interpolant.alpha(s), self.sampler.interpolant.sigma(s)
        return float(sigma / (alpha + sigma))

    def noise_level(self, step: int) -> float:
        """Return the linear noise level at evaluation time number ``step``."""
        return self.level(self.times[step])

    @property
    def last_noise_level(self) -> float:
        """Linear noise level at the last evaluation."""
        return self.noise_level(self.transitions)

    @cached_property
    def finishing_steps(self) -> int:
        """Number of Euler steps to 0 after the last evaluation, each at most 1 / steps long in noise level.

        The last of them is the clean estimate itself, so that a uniform grid on the linear interpolant finishes for
        free, like an Euler sampler with the same number of steps; so does a grid that is ``whole``.
        """
        if not self.sampler.finish or self._whole:
            return 1
        return max(1, math.ceil(self.last_noise_level * self.sampler.steps - 1e-9))

    @property
    def finished(self) -> bool:
        """Whether what is returned is a sample rather than an estimate at a noise level above 1 / steps."""
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
        """NFE of drawing one child and evaluating it without a reward, and hence without a look-ahead."""
        return 1 + self.sampler.kernel.extra_nfe

    @property
    def evaluate_nfe(self) -> int:
        """NFE of evaluating one state and scoring its clean estimate."""
        return 1 + self.sampler.lookahead.extra_nfe

    @property
    def guidance_nfe(self) -> int:
        """NFE and backward passes of evaluating the guidance shift of one parent."""
        return int(self.sampler.guidance is not None)

    @property
    def child_nfe(self) -> int:
        """NFE of drawing one child, evaluating it at its own time and scoring it."""
        return self.evaluate_nfe + self.sampler.kernel.extra_nfe


Dynamics.__getattr__ = former_names(  # type: ignore[attr-defined]
    "Dynamics", lean_nfe="guidance_nfe", look_nfe="evaluate_nfe", step_nfe="propagate_nfe"
)


def _check_times(times: Tensor, sampler: Sampler) -> None:
    """Raise a BadSetting unless a grid's ``steps + 1`` times fall from at most 1 to 0."""
    falls = times.shape == (sampler.steps + 1,) and bool((times.diff() < 0).all())
    if not (falls and times[0] <= 1 and times[-1] == 0):
        raise BadSetting(
            f"the times of the grid {sampler.grid} do not fall from 1 to 0 in {sampler.steps} steps; choose other "
            "settings or fewer steps"
        )


def even_shares(total: int, parts: int) -> list[int]:
    """Split ``total`` evenly into ``parts`` whole shares, the larger ones last."""
    share, extra = divmod(total, parts)
    return [share] * (parts - extra) + [share + 1] * extra


def linear_shares(total: int, parts: int, ratio: float) -> list[int]:
    """Split ``total`` into ``parts`` whole shares, each at least 1, that fall linearly to ``ratio`` times the first.

    Args:
        total: Sum of the shares, >= ``parts``.
        parts: Number of shares, >= 1.
        ratio: Weight of the last share divided by that of the first, in (0, 1].

    Raises:
        BadSetting: If an argument is out of range.
    """
    if not (1 <= parts <= total and 0 < ratio <= 1):
        raise BadSetting(f"expected 1 <= parts <= total and 0 < ratio <= 1; got {parts=}, {total=}, {ratio=}")
    return weighted_shares(total, [1 - (1 - ratio) * i / max(parts - 1, 1) for i in range(parts)])


def weighted_shares(total: int, weights: Sequence[float]) -> list[int]:
    """Split ``total`` into whole shares, each at least 1, in proportion to weights.

    Every part gets one unit; each further unit goes where weight / (2 share + 1) is the largest, the first of equals
    (the method of Sainte-Lague), so that a larger total lowers no share, and no share exceeds one of a larger weight.

    Args:
        total: Sum of the shares, >= the number of weights.
        weights: Weights > 0, at least one.

    Raises:
        BadSetting: If an argument is out of range.
    """
    parts = len(weights)
    if not (1 <= parts <= total and all(0 < weight < math.inf for weight in weights)):
        raise BadSetting(
            f"expected one weight > 0 or more, and a total of at least their number; got {total=}, {weights=}"
        )
    scale = (total - parts) / sum(weights)  # the method passes through the rounded multiples of the weights
    shares = [max(1, int(scale * weight + 0.5)) for weight in weights]
    waiting = [(-weight / (2 * share + 1), i) for i, (weight, share) in enumerate(zip(weights, shares, strict=True))]
    heapq.heapify(waiting)
    for _ in range(total - sum(shares)):
        i = waiting[0][1]
        shares[i] += 1
        heapq.heapreplace(waiting, (-weights[i] / (2 * shares[i] + 1), i))
    return shares

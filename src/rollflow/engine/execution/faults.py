"""Faults of samples that must not be chosen, and answers that contain them."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Float64
from torch import Tensor

from rollflow.requests import Slope
from rollflow.rewards.base import RewardModel

NETWORK, DYNAMICS, DECODER, REWARD, GRADIENT = "network", "dynamics", "decoder", "reward", "gradient of the reward"
"""Possible origins of a value that is not finite."""


class Fault(NamedTuple):
    """The reason why a sample is not eligible, or why guidance does not follow its gradient.

    Args:
        where: Origin of the fault (``NETWORK``, ...), or the part of the model that rejected the sample.
        what: Beginning of the message, to which the row is appended.
    """

    where: str
    what: str


class Verdict(NamedTuple):
    """Answer to a ``Reward``, before the parts of the reward are mixed.

    Args:
        scores: (B, k) scores of the k parts; NaN in a row that has a fault.
        faults: Fault of each row that is not eligible, None for the others.
    """

    scores: Float64[Tensor, " B k"]
    faults: list[Fault | None]


class GradientVerdict(NamedTuple):
    """Answer to a ``Grad``.

    Args:
        slope: Slope with reward -inf in rows that are not eligible, and gradient 0 in all rows that have a fault.
        faults: Fault of each row or None. A row whose fault is a ``GRADIENT`` is eligible all the same.
    """

    slope: Slope
    faults: list[Fault | None]


def finite_rows(values: Float[Tensor, " B *value"]) -> list[bool]:
    """Which rows of (B, ...) values are finite."""
    finite = values.detach().isfinite()
    rows: list[bool] = (finite.flatten(1).all(1) if values.ndim > 1 else finite).tolist()
    return rows


def score_not_finite(reward: RewardModel, score: float) -> Fault:
    """Make the fault of a sample whose score is not finite."""
    return Fault(REWARD, f"reward '{reward.name}' gave {score}")


def sound_rows(faults: list[Fault | None]) -> list[int]:
    """List the rows that have no fault."""
    return [row for row, fault in enumerate(faults) if fault is None]

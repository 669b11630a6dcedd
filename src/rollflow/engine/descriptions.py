"""Descriptions of models and rewards, which a pickled result keeps in place of their networks."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from copy import copy
from typing import Any, NoReturn

from torch import Tensor

from rollflow.errors import RollflowError, described
from rollflow.models.base import FlowModel
from rollflow.rewards.base import RewardModel


class ModelDescription(FlowModel):
    """A model without its networks.

    Args:
        model: The model that is described.
    """

    def __init__(self, model: FlowModel) -> None:
        names = ("name", "description", "few_step", "rows_per_nfe", "interpolant", "grid", "shape", "dtype", "device")
        vars(self).update({name: getattr(model, name) for name in names}, _identity=_identity(model))
        try:
            pickle.dumps(vars(self))
        except Exception:  # an interpolant or grid of the user's that cannot be pickled is left out
            vars(self).update(interpolant=FlowModel.interpolant, grid=None)

    @property
    def identity(self) -> str:
        identity: str = vars(self)["_identity"]
        return identity

    def encode(self, prompt: str) -> NoReturn:
        raise left_behind(f"model '{self.name}'")

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> NoReturn:
        raise left_behind(f"model '{self.name}'")

    def decode(self, x0: Tensor) -> NoReturn:
        raise left_behind(f"model '{self.name}'")


_OF_REWARDS = (
    "name",
    "description",
    "differentiable",
    "held_out",
    "structured",
    "interactive",
    "relative",
    "bounds",
    "zero_is_perfect",
)


class RewardDescription(RewardModel):
    """A reward without its networks.

    Args:
        reward: The reward that is described.
    """

    def __init__(self, reward: RewardModel) -> None:
        vars(self).update({name: getattr(reward, name) for name in _OF_REWARDS}, _identity=_identity(reward))

    @property
    def identity(self) -> str:
        identity: str = vars(self)["_identity"]
        return identity

    def score(self, samples: Tensor, prompts: Sequence[str]) -> NoReturn:
        raise left_behind(f"reward '{self.name}'")


def _identity(one: FlowModel | RewardModel) -> str:
    try:
        return one.identity
    except Exception:  # no reason to lose a result
        return one.name


def left_behind(who: str) -> RollflowError:
    """Make the error for calling a model or reward that a pickled result does not contain."""
    return RollflowError(f"{who} was left behind when its result was pickled; load it again to use it")


MOST_OF_AN_ERROR = 1 << 16
"""Largest size in bytes of a pickled error: more than any text needs, and less than a network takes."""


class _Bounded(io.BytesIO):
    """A file that refuses more bytes than an error may have."""

    def write(self, content: Any) -> int:
        if self.tell() + memoryview(content).nbytes > MOST_OF_AN_ERROR:
            raise OverflowError("too large")
        return super().write(content)


def portable(error: Exception) -> Exception:
    """Return an error that can be pickled without a network: the error itself, without its attributes, or its text."""
    candidates = [error]
    if isinstance(error, RollflowError):
        candidates.append(copy(error))
        vars(candidates[1]).clear()
    for candidate in candidates:
        try:
            pickle.Pickler(content := _Bounded()).dump(candidate)
            str(pickle.loads(content.getvalue()))
        except Exception:
            continue
        return candidate
    return RollflowError(described(error))

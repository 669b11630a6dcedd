"""Checks of rewards before anything is loaded: their attributes, and whether they can score a prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from types import NoneType
from typing import Any

import torch

from rollflow import checks
from rollflow.errors import BadSetting, NotDifferentiable
from rollflow.extras import check_installed
from rollflow.registry import Registry
from rollflow.rewards.base import RewardModel


def check_reward(name: str, value: object) -> RewardModel:
    """Return the value if it is a reward that describes itself properly.

    Args:
        name: What the value is called in errors.
        value: The supposed reward.

    Raises:
        BadSetting: If it is not a ``RewardModel``, has no name, or has an attribute of the wrong type.
    """
    if not isinstance(value, RewardModel):
        raise checks.refused(name, "a RewardModel", value)
    if not isinstance(getattr(value, "name", None), str):
        raise BadSetting(f'{name}: the class {type(value).__name__} has no name; give it one: name = "..."')
    check_attributes(value)
    return value


def check_names(what: str, rewards: Sequence[RewardModel | type[RewardModel]]) -> None:
    """Raise a BadSetting if two rewards have the same name, which is what identifies their scores in results.

    Args:
        what: What the rewards are called in the error, in the singular.
        rewards: All of them.
    """
    for name, count in Counter(reward.name for reward in rewards).items():
        if count > 1:
            times = "twice" if count == 2 else f"{count} times"
            raise BadSetting(f"{what} names must be distinct; got '{name}' {times}")


def check_attributes(reward: RewardModel | type[RewardModel]) -> None:
    """Raise a BadSetting if an attribute of a reward, or of its class, has the wrong type or is out of range."""
    checks.attributes(reward, _ATTRIBUTES, what="reward")


def check_scorable(reward: RewardModel | type[RewardModel], prompt: str) -> None:
    """Check that a reward and its parts can read a prompt and find their packages, without loading anything.

    Raises:
        BadSetting: If one of them cannot read the prompt, or lacks a setting.
        RollflowError: If a package is not installed.
    """
    if isinstance(reward, RewardModel):
        reward.check(prompt)
    else:
        reward.check_prompt(prompt)
    check_installed(f"reward '{reward.name}'", *reward.requires)


def check_differentiable(reward: RewardModel | type[RewardModel]) -> None:
    """Raise a NotDifferentiable, which lists rewards that would do, if a reward has no gradient."""
    if not reward.differentiable:
        known = Registry.of[RewardModel]
        names = ", ".join(name for name, kind in known.items() if kind.differentiable)
        raise NotDifferentiable(f"guidance needs a differentiable reward, which '{reward.name}' is not; known: {names}")


def _bounds(name: str, value: object) -> None:
    if value is None:
        return
    numbers = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(one, Real) for one in value)
    if not (numbers and value[0] <= value[1]):  # type: ignore[index]  # a pair, which mypy does not see
        raise checks.refused(name, "a pair of numbers, the lower first, or None", value)


def _device(name: str, value: object) -> None:
    checks.instance(name, value, torch.device, NoneType, what="a torch.device or None")


def _texts(name: str, value: object) -> None:
    checks.each(name, value, checks.text, "a tuple of texts")


_ATTRIBUTES: dict[str, Callable[[str, Any], object]] = {
    "requires": _texts,
    "held_out": _texts,
    "batch_size": partial(checks.whole, at_least=1),
    "device": _device,
    "bounds": _bounds,
    "zero_is_perfect": checks.flag,
}

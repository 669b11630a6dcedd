"""The base of rewards that call another one several times for each sample."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.rewards.base import RewardModel
from rollflow.rewards.checks import check_scorable


class Wrapper(RewardModel):
    """A reward that calls another one several times for each sample; what it declares follows from the other.

    The account counts the samples that it scores, not the calls of the other reward.

    Args:
        reward: The reward that is called.

    Raises:
        BadSetting: If that reward is relative, as it would depend on the batch it is scored in.
    """

    def __init__(self, reward: RewardModel) -> None:
        self.reward: RewardModel = checks.instance(f"reward of {self.name}", reward, RewardModel)
        if reward.relative:
            raise BadSetting(f"'{reward.name}' depends on earlier scores, so it cannot be the reward of '{self.name}'")
        self._learn()

    def _learn(self) -> None:
        """Update the attributes that derive from the reward; a remote one knows its own only once it is loaded."""
        self.differentiable = self.reward.differentiable  # type: ignore[misc]
        self.held_out = self.reward.held_out  # type: ignore[misc]
        self.structured, self.interactive = self.reward.structured, self.reward.interactive
        self.batch_size, self.probed = self.reward.batch_size, self.reward.probed
        self.remote, self.device = self.reward.remote, self.reward.device

    def check(self, prompt: str) -> None:
        check_scorable(self.reward, prompt)

    def load(self) -> None:
        self.reward.load()
        self._learn()

    def overlaps(self, device: torch.device | None) -> bool:
        return self.reward.overlaps(device)

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        return self.reward.unfit(shape)

    @property
    def known_as(self) -> tuple[str, ...]:
        return (self.name, *self.reward.known_as)

    @property
    def place(self) -> Hashable:
        return self.reward.place

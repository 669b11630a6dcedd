"""Test-time augmentation: a reward averaged over slightly shifted and mirrored pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rollflow import checks
from rollflow.prompts import Prompt
from rollflow.rewards.base import Card, RewardModel
from rollflow.rewards.pessimism import bounds_of, pessimistic
from rollflow.rewards.scoring import rewards_of
from rollflow.rewards.wrappers.base import Wrapper

_OPPOSITE = {"left": "right", "right": "left"}
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


class Augmented(Wrapper):
    """The mean of a reward over shifted and mirrored views of a picture, less a multiple of its deviation over them.

        r = mean_v r(x_v) - penalty * sd_v r(x_v)

    What a network thinks of a picture by accident of its pixels differs between views, so that a search gains less by
    it (test-time augmentation: Krizhevsky, Sutskever & Hinton 2012, section 4.1; Shanmugam et al. 2020, arXiv
    2011.11156). The penalty is that of a pessimistic ensemble (``Pessimistic``).

    The views are the picture itself and, if ``shift`` is positive, the picture moved left, right, up and down with its
    border repeated; if ``mirror`` is true, also each of them mirrored. A mirrored view is scored against a prompt in
    which left and right are exchanged. Letters and other things that have a handedness are wrong in it.

    Args:
        reward: Reward of pictures or films.
        shift: Distance of the shifted views, in pixels, >= 0; 0 shifts nothing.
        mirror: Whether there are mirrored views.
        penalty: Weight >= 0 of the standard deviation.

    Cost: one reward call in the account, and 2 (mirror alone), 5 (shifts alone) or 10 calls of the reward.

    Raises:
        BadSetting: If a setting is out of range, or the reward is relative.
    """

    name = "augmented"
    description = "mean of a reward over shifted and mirrored views: augmented(reward=A, shift=2, penalty=1)"
    card = Card("that of its reward", "that of its reward", "that of its reward", "that of its reward", "-")

    def __init__(self, reward: RewardModel, shift: int = 2, mirror: bool = True, penalty: float = 0.0) -> None:
        super().__init__(reward)
        self.shift = checks.whole(f"shift of {self.name}", shift, at_least=0, at_most=10**4)
        self.mirror = checks.flag(f"mirror of {self.name}", mirror)
        self.penalty = checks.real(f"penalty of {self.name}", penalty, at_least=0)

    @property
    def bounds(self) -> tuple[float, float] | None:  # type: ignore[override]
        """Bounds derived from those of the reward; None if these are unknown."""
        bounds = self.reward.bounds
        return None if bounds is None else bounds_of(bounds[0], bounds[1], self.count, self.penalty)

    @property
    def count(self) -> int:
        """Number of views."""
        return (5 if self.shift else 1) * (2 if self.mirror else 1)

    @property
    def identity(self) -> str:
        return f"{self.name}({self.reward.identity}, {self.shift}, {self.mirror}, {self.penalty})"

    def check(self, prompt: str) -> None:
        super().check(prompt)
        if self.mirror:
            super().check(mirrored(prompt))

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        if len(shape) < 3:
            return f"expected pictures (3, H, W) or films (F, 3, H, W), got {shape}"
        return super().unfit(shape)

    def views(self, samples: Tensor) -> Iterator[Tensor]:
        """Yield the views (B, ..., H, W) that are not mirrored."""
        yield samples
        if self.shift:
            s, (height, width) = self.shift, samples.shape[-2:]
            wide = F.pad(samples.flatten(0, -4), (s, s, s, s), mode="replicate")
            wide = wide.reshape(*samples.shape[:-2], *wide.shape[-2:])
            for down, right in ((s, 0), (s, 2 * s), (0, s), (2 * s, s)):
                yield wide[..., down : down + height, right : right + width]

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        views = [(view, list(prompts)) for view in self.views(samples)]
        if self.mirror:
            opposite = [mirrored(prompt) for prompt in prompts]
            views += [(view.flip(-1), opposite) for view, _ in views]
        scores = rewards_of(
            self.reward, torch.cat([view for view, _ in views]), [prompt for _, given in views for prompt in given]
        )
        return pessimistic(scores.reshape(len(views), len(samples)).T, self.penalty)


def mirrored(prompt: str) -> str:
    """Return the prompt of a mirrored picture, in which left and right are exchanged."""

    def opposite(match: re.Match[str]) -> str:
        word, other = match[0], _OPPOSITE[match[0].lower()]
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    text = _SIDES.sub(opposite, str(prompt))
    return Prompt(text, prompt.ask) if isinstance(prompt, Prompt) else text

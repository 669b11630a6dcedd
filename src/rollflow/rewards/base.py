"""What the library needs of a reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rollflow.canonical import with_settings
from rollflow.errors import BadReward


class Card(NamedTuple):
    """What one wants to know of a reward before downloading it.

    Args:
        range: Of its scores, and which end is better where that is not plain.
        download: Size of what is fetched at first use.
        memory: That its networks take, at the precision they run in.
        licence: Of the weights.
        reference: Authors, year and arXiv number or address.
    """

    range: str
    download: str
    memory: str
    licence: str
    reference: str


class RewardModel(ABC):
    """One number a sample, higher is better.

    Attributes:
        name: As on the command line.
        description: One line, with the range.
        loads_later: Whether its constructor only checks its settings and ``load`` loads, so that a plan, and with it a
            dry run, can make one. None is yes for classes of others (``module:attribute``, plug-ins): set it to False
            where the constructor itself has to load what is large.
        requires: Packages that it imports when it is loaded, beyond those that rollflow itself depends on.
        differentiable: Whether gradients flow from the reward to the samples.
        held_out: Names of the rewards that check this one on the result, and that no search sees.
        card: What it needs and where it comes from; None where it needs nothing.
        structured: Whether it reads what a prompt asks for (``prompts.asked``), not only its words.
        interactive: Whether it asks at the terminal.
        batch_size: The most samples it is given at once.
        device: Of its networks; None where that is nothing to anyone.
        elsewhere: Whether it is computed in another process.
        relative: Whether ``combine`` looks at what was scored before.
        bounds: Lowest and highest score that it can give, infinite where there is no limit; None if unknown. A score
            outside them is warned of.
        zero_is_perfect: Whether it is 0 where all is as asked for and negative elsewhere, so that the share of zeros is
            an accuracy, which experiments then report as well.
        probed: Whether the engine may try it before a search, on one sample and on two, outside the budget, so that a
            mistake is found before anything is spent. Set it to False for a reward whose calls cost money, that counts
            them, or that cannot judge noise. One that is ``interactive`` or ``remote`` is never tried.

    ``score`` gets copies of the samples, finite ones alone, and must give one number for each: (B,), (B, 1), or a
    scalar for a single sample. A sample whose score is not finite is never chosen. What ``score`` raises fails the
    search, which then ends with the best sample that it has.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    loads_later: ClassVar[bool | None] = None
    differentiable: ClassVar[bool] = False
    held_out: ClassVar[tuple[str, ...]] = ()
    card: ClassVar[Card | None] = None
    structured: bool = False
    interactive: bool = False
    batch_size: int = 64
    device: torch.device | None = None
    remote: bool = False
    relative: bool = False
    bounds: tuple[float, float] | None = None
    zero_is_perfect: bool = False
    probed: bool = True

    @property
    def identity(self) -> str:
        """What sets it apart from itself with other settings; a checkpoint is of one.

        That is its name and the settings of its constructor that it keeps as attributes of these names. Override it
        where more does, such as files that it reads; it must be the same in another process.
        """
        return with_settings(self.name, self)

    def check(self, prompt: str) -> None:
        """Raise a BadSetting if its settings or a prompt do not let it score; called before it is loaded."""
        self.check_prompt(prompt)

    def load(self) -> None:  # noqa: B027 - most have nothing left to load
        """Load what it needs, if that is not done yet; called before a run, so that what is missing is told then."""

    @property
    def parts(self) -> tuple[RewardModel, ...]:
        """The k rewards that it is made of: itself, unless it is a mixture of others."""
        return (self,)

    def combine(self, scores: Tensor, seen: Tensor) -> Tensor:
        """The rewards (B,) of samples of which its parts say ``scores``.

        Args:
            scores: (B, k).
            seen: (n, k) all that its population has had scored until now, ``scores`` the last of them.
        """
        return scores[:, 0]

    def overlaps(self, device: torch.device | None) -> bool:
        """Whether it is computed in another process or on another device than this, so that both can work at once."""
        return self.remote or (None not in (device, self.device) and _indexed(device) != _indexed(self.device))

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        """Say why samples of a shape cannot be scored, and what to do about it; None if they can.

        Asked before pictures are decoded or searched for, so that it must not load or compute anything.

        Args:
            shape: Of one decoded sample: (3, H, W) of a picture, (F, 3, H, W) of a film.
        """
        return None

    @property
    def place(self) -> Hashable:
        """The server or device that computes it; None if it has none of its own.

        The engine calls all rewards of one place in one thread, one after another.
        """
        return id(self) if self.remote else _indexed(self.device)

    @classmethod  # noqa: B027 - most read any
    def check_prompt(cls, prompt: str) -> None:
        """Raise a ValueError or a RollflowError on a prompt that cannot be read; asked before anything is loaded."""

    @abstractmethod
    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Rewards (B,) of decoded samples (B, ...), each against its prompt."""


def _indexed(device: torch.device | None) -> tuple[str, int] | None:
    """A device by kind and number: cuda is cuda:0."""
    return None if device is None else (device.type, device.index or 0)


class PictureReward(RewardModel):
    """A reward of pictures; that of a film is the mean over its frames."""

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        if len(shape) not in (3, 4) or shape[-3] != 3 or 0 in shape:
            return f"expected pictures (3, H, W) or films (F, 3, H, W), got {shape}; decode samples to RGB first"
        return None

    @abstractmethod
    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Rewards (B,) of pictures (B, 3, H, W) in [0, 1], at most ``batch_size`` at once."""

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        why = self.unfit(tuple(samples.shape[1:]))
        if why is not None:
            raise BadReward(f"reward '{self.name}' cannot score these samples: {why}")
        if samples.ndim == 4:
            return self.score_pictures(samples, prompts)
        rows, frames = samples.shape[:2]
        flat = samples.flatten(0, 1)
        of_frame = [prompt for prompt in prompts for _ in range(frames)]
        parts = [
            self.score_pictures(flat[at : at + self.batch_size], of_frame[at : at + self.batch_size])
            for at in range(0, len(flat), self.batch_size)
        ]
        return torch.cat(parts).reshape(rows, frames).mean(1)

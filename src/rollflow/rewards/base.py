"""The base classes of rewards."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rollflow.canonical import with_settings
from rollflow.errors import BadReward
from rollflow.runtime.numbering import Numbering

_NUMBERING = Numbering()


class Card(NamedTuple):
    """Facts about a reward that matter before it is downloaded.

    Args:
        range: Range of the scores, and the better end where that is not obvious.
        download: Size of the files that are fetched at first use.
        memory: Memory that the networks take, at the precision they run in.
        licence: Licence of the weights.
        reference: Authors, year and arXiv number or web address.
    """

    range: str
    download: str
    memory: str
    licence: str
    reference: str


class RewardModel(ABC):
    """A score for each sample, where higher is better.

    Attributes:
        name: Name on the command line and in results.
        description: One-line description, including the range.
        loads_later: Whether the constructor only checks settings and ``load`` does the loading, so that a plan or a
            dry run can create the reward. None means yes for classes from elsewhere (``module:attribute``, plug-ins);
            set it to False where the constructor itself loads something large.
        requires: Packages imported by ``load`` that rollflow itself does not depend on.
        differentiable: Whether gradients flow from the reward to the samples.
        held_out: Names of the rewards that check the result and that the search never sees.
        surrogate: Class of the smooth reward that searches optimise in place of this one, which then only scores the
            result; for rewards that are the same for many samples, such as counts. None if it has none.
        card: Requirements and origin; None if the reward needs nothing.
        structured: Whether it reads the counts that a prompt asks for (``prompts.asked``), not only its text.
        interactive: Whether it asks questions at the terminal.
        batch_size: Largest number of samples per call of ``score``.
        device: Device of its networks; None if irrelevant.
        remote: Whether it is computed in another process.
        relative: Whether ``combine`` uses the scores of earlier samples.
        bounds: Lowest and highest possible score, infinite where there is no limit; None if unknown. A score outside
            the bounds causes a warning.
        zero_is_perfect: Whether the score is 0 if the sample is exactly what the prompt asks for, and negative
            otherwise. Experiments then also report the share of zeros as an accuracy.
        probed: Whether the engine may call the reward on one and on two samples before a search, outside the budget,
            to find mistakes early. Set it to False for a reward whose calls cost money, that counts its calls, or that
            cannot score noise. Rewards that are ``interactive`` or ``remote`` are never probed.

    ``score`` receives copies of the samples, all of them finite, and must return one number per sample: (B,), (B, 1),
    or a scalar for a single sample. A sample whose score is not finite is never chosen. An exception from ``score``
    ends the search, which returns its best sample so far.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    loads_later: ClassVar[bool | None] = None
    differentiable: ClassVar[bool] = False
    held_out: ClassVar[tuple[str, ...]] = ()
    surrogate: ClassVar[type[RewardModel] | None] = None
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

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "elsewhere" in vars(cls):  # what plug-ins of the first release say
            warnings.warn(f"{cls.__name__}.elsewhere is now called remote", DeprecationWarning, stacklevel=2)
            cls.remote = vars(cls)["elsewhere"]

    @property
    def identity(self) -> str:
        """Text that is equal for two rewards only if they compute the same scores; checkpoints record it.

        By default the name, and those arguments of the constructor that are kept as attributes of the same name.
        Override it if the scores depend on anything else, such as files. It must be the same in every process.
        """
        return with_settings(self.name, self)

    def check(self, prompt: str) -> None:
        """Raise a BadSetting if the settings or the prompt rule out scoring; called before ``load``."""
        self.check_prompt(prompt)

    def load(self) -> None:  # noqa: B027 - most have nothing left to load
        """Load weights and other resources, once; called before a run, so that missing ones are reported early."""

    @cached_property
    def own_surrogate(self) -> RewardModel | None:
        """The surrogate of this reward, always the same object, so that jobs can share its calls; None if none."""
        return self.make_surrogate()

    def make_surrogate(self) -> RewardModel | None:
        """Create the surrogate, with the settings and the networks of this reward."""
        return None if self.surrogate is None else self.surrogate()

    @property
    def known_as(self) -> tuple[str, ...]:
        """Names by which profiles of it are looked up: its own, and those of a reward that it wraps."""
        return (self.name,)

    @property
    def parts(self) -> tuple[RewardModel, ...]:
        """The k component rewards: the reward itself, unless it is a mixture."""
        return (self,)

    def combine(self, scores: Tensor, seen: Tensor) -> Tensor:
        """Combine the scores of the parts into rewards (B,).

        Args:
            scores: Scores (B, k) of the new samples by each part.
            seen: Scores (n, k) of all samples of the same population so far; the last B rows are ``scores``.
        """
        return scores[:, 0]

    def overlaps(self, device: torch.device | None) -> bool:
        """Whether it runs in another process or on another device than the given one, so that both can work at once."""
        return self.remote or (None not in (device, self.device) and _indexed(device) != _indexed(self.device))

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        """Explain why samples of a shape cannot be scored, and what to do about it; None if they can.

        Called before any sample exists, so it must not load or compute anything.

        Args:
            shape: Shape of one decoded sample: (3, H, W) for a picture, (F, 3, H, W) for a film.
        """
        return None

    @property
    def place(self) -> Hashable:
        """The server or device that computes the reward; None if it has none of its own.

        The engine calls all rewards of the same place from one thread, one after another.
        """
        return _NUMBERING.id_of(self) if self.remote else _indexed(self.device)

    @classmethod  # noqa: B027 - most read any
    def check_prompt(cls, prompt: str) -> None:
        """Raise a ValueError or a RollflowError if a prompt cannot be read; called before anything is loaded."""

    @abstractmethod
    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score decoded samples (B, ...), each against its prompt; returns (B,)."""


def _indexed(device: torch.device | None) -> tuple[str, int] | None:
    """Device type and index, where cuda equals cuda:0."""
    return None if device is None else (device.type, device.index or 0)


class PictureReward(RewardModel):
    """A reward of pictures; the reward of a film is the mean over its frames."""

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        if len(shape) not in (3, 4) or shape[-3] != 3 or 0 in shape:
            return f"expected pictures (3, H, W) or films (F, 3, H, W), got {shape}; decode samples to RGB first"
        return None

    @abstractmethod
    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score pictures (B, 3, H, W) in [0, 1], at most ``batch_size`` of them; returns (B,)."""

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        why = self.unfit(tuple(samples.shape[1:]))
        if why is not None:
            raise BadReward(f"reward '{self.name}' cannot score these samples: {why}")
        if samples.ndim == 4:
            return self.score_pictures(samples, prompts)
        rows, frames = samples.shape[:2]
        flat = samples.flatten(0, 1)
        frame_prompts = [prompt for prompt in prompts for _ in range(frames)]
        scores = [
            self.score_pictures(flat[start : start + self.batch_size], frame_prompts[start : start + self.batch_size])
            for start in range(0, len(flat), self.batch_size)
        ]
        return torch.cat(scores).reshape(rows, frames).mean(1)

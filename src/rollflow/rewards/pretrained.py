"""Rewards by published networks: where these come from, where they run, and what is told when they are missing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch

from rollflow.errors import RollflowError
from rollflow.rewards.base import PictureReward

T = TypeVar("T")


def best_device() -> str:
    """CUDA, else Apple's, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


class Pretrained(PictureReward):
    """A reward whose networks are loaded at first use, from the hub or from a folder.

    Args:
        checkpoint: Repository of the hub (``owner/name``) or folder; None is the published one.
        device: ``auto`` (CUDA, else Apple's, else the CPU) or a device of torch.
        batch_size: The most pictures at once; None is the reward's own.

    Attributes:
        published: Repository of the published weights.
    """

    published: ClassVar[str]

    def __init__(self, checkpoint: str | None = None, device: str = "auto", batch_size: int | None = None) -> None:
        self.checkpoint = checkpoint or self.published
        self.device = torch.device(best_device() if device == "auto" else device)
        if batch_size is not None:
            self.batch_size = batch_size

    @property
    def identity(self) -> str:
        return self.name if self.checkpoint == self.published else f"{self.name}({self.checkpoint})"

    @cached_property
    def networks(self) -> Any:
        """What ``_networks`` loaded."""
        return self._networks()

    @abstractmethod
    def _networks(self) -> Any:
        """Load everything, ready to run on ``device``; parameters require no gradient."""

    def load(self) -> None:
        _ = self.networks

    def loaded(self, load: Callable[..., T], *names: Any, **settings: Any) -> T:
        """What ``load`` (a ``from_pretrained``, or a download) gives.

        Raises:
            RollflowError: In one line that says what is missing and what to do, if it cannot.
        """
        try:
            return load(*names, **settings)
        except ImportError as error:
            raise RollflowError(
                f"reward '{self.name}' needs a package that is not installed: {_line(error)}; "
                "install with pip install 'rollflow[rewards]'"
            ) from error
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise RollflowError(
                f"reward '{self.name}' cannot load '{names[0] if names else self.checkpoint}': {_line(error)}; give a "
                f"folder or a repository with checkpoint=..., or go online once (published: {self.published})"
            ) from error


def _line(error: Exception) -> str:
    """The first sentence of an error in one line; libraries explain at length."""
    text = " ".join(str(error).split())
    return text[:300].rstrip(".")

"""The base of rewards by published networks: loading, devices, and errors about missing files."""

from __future__ import annotations

import re
import socket
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from rollflow import checks
from rollflow.errors import RollflowError
from rollflow.extras import requiring
from rollflow.rewards.base import PictureReward
from rollflow.runtime.devices import check_device, device_named
from rollflow.runtime.forks import Home

ELONGATED = 100
"""Largest ratio of a picture's sides: networks resize the shorter side to a fixed size, so that memory grows with the
ratio, or the longer one, which leaves nothing of the shorter."""

T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)


class Pretrained(PictureReward):
    """A reward whose networks are loaded at first use, from the hub or from a folder.

    Args:
        checkpoint: Hub repository (``owner/name``) or folder of the weights; None means the published ones.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.

    Attributes:
        published: Hub repository of the published weights.
        given_by: Settings that choose other files, as errors show them.
    """

    published: ClassVar[str]
    given_by: ClassVar[str] = "checkpoint=..."
    requires = ("transformers",)
    loads_later = True
    device: torch.device
    _home: Home | None = None

    def __init__(self, checkpoint: str | None = None, device: str = "auto", batch_size: int | None = None) -> None:
        checks.as_annotated(f"checkpoint of {self.name}", checkpoint, str | None)
        self.checkpoint = checkpoint or self.published
        self.device = device_named(device)
        if batch_size is not None:
            self.batch_size = checks.whole(f"batch_size of {self.name}", batch_size, at_least=1)

    def check(self, prompt: str) -> None:
        check_device(self.device)
        super().check(prompt)

    @property
    def _settings(self) -> tuple[str, ...]:
        """Settings besides the checkpoint that scores depend on, as parts of ``identity``."""
        return ()

    @property
    def identity(self) -> str:
        settings = ", ".join([self.checkpoint] * (self.checkpoint != self.published) + [*self._settings])
        return f"{self.name}({settings})" if settings else self.name

    @cached_property
    def networks(self) -> Any:
        """The loaded networks, as ``_networks`` returns them."""
        self._home = Home(f"reward '{self.name}'")
        check_device(self.device)
        with self._requiring:
            return self._networks()

    @abstractmethod
    def _networks(self) -> Any:
        """Load everything, ready to run on ``device``, with parameters that require no gradient."""

    def load(self) -> None:
        _ = self.networks

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        why = super().unfit(shape)
        if why is None and max(shape[-2:]) > ELONGATED * min(shape[-2:]):
            height, width = shape[-2:]
            return (
                f"expected pictures whose longer side is at most {ELONGATED} times the shorter, got {width} x "
                f"{height}; crop them"
            )
        return why

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if self._home is not None:
            self._home.check()
        return super().score(samples, prompts)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without networks, which another process loads again."""
        return {name: value for name, value in vars(self).items() if name not in ("networks", "_home")}

    def ready(self, network: N) -> N:
        """Put a network into evaluation mode on ``device``, with parameters that require no gradient."""
        return network.eval().requires_grad_(False).to(self.device)

    def file(self, name: str) -> Path:
        """Path of a file of the checkpoint, by its name in the folder or repository."""
        if Path(self.checkpoint).is_dir():
            return Path(self.checkpoint) / name
        from huggingface_hub import hf_hub_download

        return Path(self.loaded(hf_hub_download, self.checkpoint, name))

    def tensors(self, path: Path) -> Any:
        """Load a file written by ``torch.save``: tensors by name, possibly nested."""
        return self.loaded(torch.load, path, map_location="cpu", weights_only=True)

    def built(self, load: Callable[..., Any], config: Any, weights: dict[str, Tensor]) -> Any:
        """Build a network of transformers in float32 from exactly these weights.

        Args:
            load: The ``from_pretrained`` of its class.
            config: Configuration of the network.
            weights: Weights by parameter name.

        Raises:
            RollflowError: If a weight is missing, unexpected, or of another shape.
        """
        settings = {"config": config, "state_dict": weights, "dtype": torch.float32, "output_loading_info": True}
        network, report = self.loaded(load, None, **settings)
        wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
        if wrong:
            raise RollflowError(
                f"reward '{self.name}' cannot use the weights of '{self.checkpoint}': {len(wrong)} of them are missing "
                f"or unexpected, such as '{wrong[0]}'; give another checkpoint=... (published: {self.published})"
            )
        return self.ready(network)

    def loaded(self, load: Callable[..., T], *names: Any, **settings: Any) -> T:
        """Call a loading function, such as a ``from_pretrained`` or a download.

        Args:
            load: The function.
            names: Positional arguments; the first is named in errors.
            settings: Keyword arguments.

        Raises:
            RollflowError: If loading fails; one line says what is missing and what to do.
        """
        try:
            with self._requiring:
                if names and isinstance(names[0], str) and re.fullmatch(r"[\w.-]+/[\w.-]+", names[0]):
                    _check_hub(names[0])
                return load(*names, **settings)
        except (OSError, ValueError, RuntimeError, KeyError, EOFError, UnpicklingError) as error:
            what = names[0] if names and isinstance(names[0], str | Path) else self.checkpoint
            raise RollflowError(
                f"reward '{self.name}' cannot load '{what}': {_line(error)}; give a folder or a repository with "
                f"{self.given_by}, or connect to the internet once (published: {self.published})"
            ) from error

    @property
    def _requiring(self) -> requiring:
        return requiring(f"reward '{self.name}'", "rewards")


def _check_hub(repository: str) -> None:
    """Fail at once if the hub's host name cannot be resolved, where the hub's client would retry for half a minute.

    Raises:
        OSError: If nothing of the repository is in the cache and the hub's host name cannot be resolved.
    """
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    host = urlsplit(constants.ENDPOINT).hostname
    if constants.HF_HUB_OFFLINE or host is None or getproxies() or Path(repository).exists() or cached.exists():
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise OSError(f"it is not in the cache and {host} cannot be reached ({error.strerror})") from None


def _line(error: Exception) -> str:
    """The beginning of an error's text in one line; some libraries explain at length."""
    text = " ".join(str(error).split())
    return text[:300].rstrip(".")

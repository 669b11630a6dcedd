"""Rewards by published networks: where these come from, where they run, and what is told when they are missing."""

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
from rollflow.rewards.base import PictureReward
from rollflow.runtime.devices import check_device, device_named
from rollflow.runtime.forks import Home

ELONGATED = 100
"""Most that a picture's sides may differ by, as a factor: networks resize the shorter to a size of their own, so that
memory grows with it, or the longer, which leaves nothing of the shorter."""

T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)


class Pretrained(PictureReward):
    """A reward whose networks are loaded at first use, from the hub or from a folder.

    Args:
        checkpoint: Repository of the hub (``owner/name``) or folder; None is the published one.
        device: ``auto`` (CUDA, else Apple's, else the CPU) or a device of torch.
        batch_size: The most pictures at once; None is the reward's own.

    Attributes:
        published: Repository of the published weights.
        given_by: The settings that say where its files are.
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
        """What else than the checkpoint sets it apart from itself."""
        return ()

    @property
    def identity(self) -> str:
        told = ", ".join([self.checkpoint] * (self.checkpoint != self.published) + [*self._settings])
        return f"{self.name}({told})" if told else self.name

    @cached_property
    def networks(self) -> Any:
        """What ``_networks`` loaded."""
        self._home = Home(f"reward '{self.name}'")
        check_device(self.device)
        try:
            return self._networks()
        except ImportError as error:
            raise self._lacking(error) from error

    @abstractmethod
    def _networks(self) -> Any:
        """Load everything, ready to run on ``device``; parameters require no gradient."""

    def load(self) -> None:
        _ = self.networks

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        why = super().unfit(shape)
        if why is None and max(shape[-2:]) > ELONGATED * min(shape[-2:]):
            height, width = shape[-2:]
            return (
                f"expected pictures of which no side is more than {ELONGATED} times the other, got {width} x {height}; "
                "cut out the part that matters"
            )
        return why

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if self._home is not None:
            self._home.check()
        return super().score(samples, prompts)

    def __getstate__(self) -> dict[str, Any]:
        """Without networks, which another process loads again."""
        return {name: value for name, value in vars(self).items() if name not in ("networks", "_home")}

    def ready(self, network: N) -> N:
        """The network on ``device``, evaluating, its parameters without gradient."""
        return network.eval().requires_grad_(False).to(self.device)

    def file(self, name: str) -> Path:
        """A file of the checkpoint, by its name in the folder or repository."""
        if Path(self.checkpoint).is_dir():
            return Path(self.checkpoint) / name
        from huggingface_hub import hf_hub_download

        return Path(self.loaded(hf_hub_download, self.checkpoint, name))

    def tensors(self, path: Path) -> Any:
        """What ``torch.save`` wrote to a file: tensors by name, perhaps nested."""
        return self.loaded(torch.load, path, map_location="cpu", weights_only=True)

    def built(self, load: Callable[..., Any], config: Any, weights: dict[str, Tensor]) -> Any:
        """A network of transformers, in float32, of all of these weights and no others.

        Args:
            load: Its ``from_pretrained``.
            config: Its configuration.
            weights: By its own names.

        Raises:
            RollflowError: If a weight is missing, left over, or of another shape.
        """
        settings = {"config": config, "state_dict": weights, "dtype": torch.float32, "output_loading_info": True}
        network, told = self.loaded(load, None, **settings)
        wrong = sorted({*told["missing_keys"], *told["unexpected_keys"]})
        if wrong:
            raise RollflowError(
                f"reward '{self.name}' cannot use the weights of '{self.checkpoint}': '{wrong[0]}' is missing or left "
                f"over, one of {len(wrong)}; give those of another with checkpoint=... (published: {self.published})"
            )
        return self.ready(network)

    def loaded(self, load: Callable[..., T], *names: Any, **settings: Any) -> T:
        """What ``load`` (a ``from_pretrained``, or a download) gives.

        Raises:
            RollflowError: In one line that says what is missing and what to do, if it cannot.
        """
        try:
            if names and isinstance(names[0], str) and re.fullmatch(r"[\w.-]+/[\w.-]+", names[0]):
                _check_hub(names[0])
            return load(*names, **settings)
        except ImportError as error:
            raise self._lacking(error) from error
        except (OSError, ValueError, RuntimeError, KeyError, EOFError, UnpicklingError) as error:
            what = names[0] if names and isinstance(names[0], str | Path) else self.checkpoint
            raise RollflowError(
                f"reward '{self.name}' cannot load '{what}': {_line(error)}; give a folder or a repository with "
                f"{self.given_by}, or go online once (published: {self.published})"
            ) from error

    def _lacking(self, error: ImportError) -> RollflowError:
        return RollflowError(
            f"reward '{self.name}' needs a package that is not installed: {_line(error)}; "
            "install with pip install 'rollflow[rewards]'"
        )


def _check_hub(repository: str) -> None:
    """Fail at once where the hub's client would try for half a minute to reach a host that has no address.

    Raises:
        OSError: If nothing of the repository is in the cache, and the hub's name cannot be resolved.
    """
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    host = urlsplit(constants.ENDPOINT).hostname
    if constants.HF_HUB_OFFLINE or host is None or getproxies() or Path(repository).exists() or cached.exists():
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise OSError(f"it is not in the cache, and {host} cannot be reached ({error.strerror})") from None


def _line(error: Exception) -> str:
    """The first sentence of an error in one line; libraries explain at length."""
    text = " ".join(str(error).split())
    return text[:300].rstrip(".")

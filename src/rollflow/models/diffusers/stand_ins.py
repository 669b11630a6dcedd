"""Stand-ins for parts of a pipeline that must behave differently while a search drives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Guardrail:
    """In place of a safety checker that is asked of texts and films, as that of Cosmos is.

    A film that it blocks is noted and shown, where a pipeline itself would fail; a text is looked at once.

    Args:
        own: The pipeline's.
        pipeline: A ``Hooked`` one.
    """

    def __init__(self, own: Any, pipeline: Any) -> None:
        self._own, self._pipeline = own, pipeline
        self._texts: dict[str, bool] = {}
        self._device: Any = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """For pipelines that ask which checker it is."""
        return type(self._own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def to(self, device: Any) -> Guardrail:
        """Pipelines move it to their device and back at every call; it is moved only when it is asked something."""
        self._device = device
        return self

    def _on_device(self, check: Callable[[], Any]) -> Any:
        if self._device is None:
            return check()
        self._own.to(self._device)
        try:
            return check()
        finally:
            self._own.to("cpu")

    def check_text_safety(self, text: str) -> bool:
        if text not in self._texts:
            self._texts[text] = self._on_device(lambda: bool(self._own.check_text_safety(text)))
        return self._texts[text]

    def check_video_safety(self, frames: np.ndarray[Any, Any]) -> Any:
        checked = self._on_device(lambda: self._own.check_video_safety(frames.copy()))
        self._pipeline.call.flags.append(checked is None)
        return frames if checked is None else checked


class CachingAutoencoder:
    """A pipeline's autoencoder that encodes each of the pictures of a call once, for all calls.

    Args:
        autoencoder: Its own; whatever else is asked is asked of it.
        pipeline: A ``Hooked`` one.
    """

    def __init__(self, autoencoder: Any, pipeline: Any) -> None:
        self._autoencoder, self._pipeline = autoencoder, pipeline

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """For pipelines that ask which autoencoder it is."""
        return type(self._autoencoder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._autoencoder, name)

    def encode(self, pixels: Tensor, *args: Any, **kwargs: Any) -> Any:
        """One picture is encoded for all rows that show it, so that no draw depends on how many they are."""
        rows = len(pixels)
        alike = rows > 1 and bool((pixels == pixels[:1]).all())
        if alike:
            pixels = pixels[:1]

        def encoded() -> Any:
            made = self._autoencoder.encode(pixels, *args, **kwargs)
            if hasattr(made, "latent_dist"):
                made.latent_dist = _SampledOnce(made.latent_dist)
            return made

        made = self._pipeline.once("vae", (pixels,), encoded)
        if alike and hasattr(made, "latent_dist"):
            return SimpleNamespace(latent_dist=_SampledOnce(made.latent_dist, rows))
        return self._autoencoder.encode(pixels.expand(rows, *pixels.shape[1:]), *args, **kwargs) if alike else made


class _SampledOnce:
    """A distribution that is drawn from once, and returns that for each of its rows.

    Args:
        own: Of one row, or as many as there are.
        rows: To which it is repeated; None keeps them.
    """

    def __init__(self, own: Any, rows: int | None = None) -> None:
        self._own, self._rows = own, rows
        self._drawn: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def _repeated(self, latents: Tensor) -> Tensor:
        return latents if self._rows is None else latents.expand(self._rows, *latents.shape[1:])

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        # Each is drawn, so that what else the generator is asked for stays the same.
        drawn = self._own.sample(*args, **kwargs)
        self._drawn = drawn if self._drawn is None else self._drawn
        return self._repeated(self._drawn)

    def mode(self) -> Tensor:
        return self._repeated(self._own.mode())


class NoProgress:
    """A progress bar that shows nothing, whatever it is told.

    Args:
        iterable: What it goes through.
    """

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class SilentDenoiser:
    """In place of a denoiser whose output is not looked at.

    Args:
        denoiser: Whose it is; its configuration and dtype are asked for.
    """

    def __init__(self, denoiser: Any) -> None:
        self._denoiser = denoiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any]:
        states = args[0] if args else next(iter(kwargs.values()))
        return ([torch.zeros_like(one) for one in states] if isinstance(states, list) else torch.zeros_like(states),)

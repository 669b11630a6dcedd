"""Stand-ins for parts of a pipeline that must behave differently while a search drives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Guardrail:
    """Stands in for a safety checker of texts and films, such as that of Cosmos.

    A blocked film is recorded and returned, where the pipeline itself would fail; a text is checked once.

    Args:
        own: The pipeline's safety checker.
        pipeline: A ``Hooked`` pipeline.
    """

    def __init__(self, own: Any, pipeline: Any) -> None:
        self._own, self._pipeline = own, pipeline
        self._texts: dict[str, bool] = {}
        self._device: Any = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Class of the safety checker, which some pipelines check."""
        return type(self._own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def to(self, device: Any) -> Guardrail:
        """Remember the device; pipelines move the checker at every call, but it is moved only when it is used."""
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
    """Stands in for a pipeline's autoencoder, and encodes each picture of a call once, for all calls.

    Args:
        autoencoder: The pipeline's autoencoder, which provides all other methods and attributes.
        pipeline: A ``Hooked`` pipeline.
    """

    def __init__(self, autoencoder: Any, pipeline: Any) -> None:
        self._autoencoder, self._pipeline = autoencoder, pipeline

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Class of the autoencoder, which some pipelines check."""
        return type(self._autoencoder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._autoencoder, name)

    def encode(self, pixels: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Encode pictures; equal rows are encoded as one, so that no random draw depends on their number."""
        rows = len(pixels)
        alike = rows > 1 and bool((pixels == pixels[:1]).all())
        if alike:
            pixels = pixels[:1]

        def encoded() -> Any:
            output = self._autoencoder.encode(pixels, *args, **kwargs)
            if hasattr(output, "latent_dist"):
                output.latent_dist = _SampledOnce(output.latent_dist)
            return output

        output = self._pipeline.once("vae", (pixels,), encoded)
        if alike and hasattr(output, "latent_dist"):
            return SimpleNamespace(latent_dist=_SampledOnce(output.latent_dist, rows))
        return self._autoencoder.encode(pixels.expand(rows, *pixels.shape[1:]), *args, **kwargs) if alike else output


class _SampledOnce:
    """Stands in for a distribution, and returns its first sample every time.

    Args:
        own: Distribution of one row, or of all rows.
        rows: Number of rows to repeat the sample for; None does not repeat it.
    """

    def __init__(self, own: Any, rows: int | None = None) -> None:
        self._own, self._rows = own, rows
        self._drawn: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def _repeated(self, latents: Tensor) -> Tensor:
        return latents if self._rows is None else latents.expand(self._rows, *latents.shape[1:])

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        # Sample each time, so that the generator's later draws stay the same.
        sample = self._own.sample(*args, **kwargs)
        self._drawn = sample if self._drawn is None else self._drawn
        return self._repeated(self._drawn)

    def mode(self) -> Tensor:
        return self._repeated(self._own.mode())


class NoProgress:
    """A progress bar that shows nothing.

    Args:
        iterable: Items to iterate over.
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
    """Stands in for a denoiser whose output is not used, and returns zeros.

    Args:
        denoiser: The denoiser, which provides configuration and dtype.
    """

    def __init__(self, denoiser: Any) -> None:
        self._denoiser = denoiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any]:
        states = args[0] if args else next(iter(kwargs.values()))
        return ([torch.zeros_like(one) for one in states] if isinstance(states, list) else torch.zeros_like(states),)

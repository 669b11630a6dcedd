"""What comes before a pipeline's own class: its own methods, with what one call asks of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

PLAIN = (int, float, str, torch.dtype, torch.device, type(None))
"""What says, beside generators, all that a pipeline prepares latents by, unless it starts from a picture."""


class LatentsReady(Exception):
    """Raised where a call has prepared its latents and nothing more is wanted of it."""


@dataclass(eq=False)
class PipelineCall:
    """One call of a pipeline.

    Args:
        answers: What the methods that read the prompt return in turn; None lets them read it.
        state: (B, ...) that it goes on from; None takes what it prepares.
        stop: Whether to raise ``LatentsReady`` once they are there.
        encoded: What the methods that read the prompt have returned so far.
        prepared: The latents of the call, once there are any.
        flags: For each sample, whether the safety checker flagged it, as far as it has looked.
    """

    answers: Iterator[Any] | None = None
    state: Tensor | None = None
    stop: bool = False
    encoded: list[Any] = field(default_factory=list)
    prepared: Tensor | None = None
    flags: list[bool] = field(default_factory=list)


class BlankLatents(NamedTuple):
    """Prepared latents that nothing is kept of but how they lie in memory.

    Args:
        given: By what they were prepared: arguments, their names, and the state of a generator.
        made: What was returned.
        after: The state of the generators afterwards.
    """

    given: list[Any]
    made: Any
    after: list[Tensor]


class Hooked:
    """Comes before a pipeline's own class, with what a call asks its own methods to do.

    Attributes:
        asked: Of the call that runs.
        device_of_network: Where the denoiser runs.
        caching: Networks that remember something from step to step.
        lay: A state in place of prepared latents.
        seen: What encoders were given of the pictures of a call, and made of it: the same at every call, but made once.
        blank: The latents that were last prepared for a state to take their place.
        checker: A ``run_safety_checker`` that was set on the pipeline itself, in place of its class's, if any was.
    """

    call: PipelineCall
    device_of_network: torch.device
    caching: list[Any]
    lay: Callable[[Tensor, Tensor], Tensor]
    seen: dict[str, list[tuple[Any, Any]]]
    blank: BlankLatents | None = None
    checker: Callable[..., tuple[Any, ...]] | None = None

    @property
    def _execution_device(self) -> torch.device:
        """Fixed, so that text encoders may be moved off it once the prompts are encoded."""
        return self.device_of_network

    def maybe_free_model_hooks(self) -> None:
        """At the end of a call: caches forget it, but where models take turns on the device, the network keeps its own.

        Diffusers looks for caches in every module of every component, which takes longer than all else it does here.
        """
        for network in self.caching:
            network._reset_stateful_cache()

    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> Any:
        """None is shown, and none is set up, since loops have one step and there are many of them."""
        return NoProgress(() if iterable is None else iterable)

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = super()
        return self._answer(lambda: own.encode_prompt(*args, **kwargs))

    def generate_prior_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """A draft of the picture that GLM-Image's language model draws from the prompt, at random."""
        own: Any = super()
        return self._answer(lambda: own.generate_prior_tokens(*args, **kwargs))

    def _answer(self, encode: Callable[[], Any]) -> Any:
        call = self.call
        call.encoded.append(encode() if call.answers is None else next(call.answers))
        return call.encoded[-1]

    def encode_image(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = super()
        return self.once("encode_image", args, lambda: own.encode_image(*args, **kwargs))

    def once(self, what: str, given: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What ``make`` returned when it was first asked for, with the same given."""
        known = self.seen.setdefault(what, [])
        for before, made in known:
            if _same(before, given):
                return made
        known.append((given, make()))
        return known[-1][1]

    def run_safety_checker(self, image: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Note what the safety checker flags, and return pictures that it has not blackened.

        It is shown a copy. What else it does to a picture (such as blur a face) is kept, unless a gradient is to flow.
        """
        own: Any = super()
        check = self.checker or own.run_safety_checker
        with torch.no_grad():
            checked, *verdicts = check(_copied(image), *args, **kwargs)
        flags = [any(of_row) for of_row in zip(*map(_booleans, filter(_given, verdicts)), strict=True)]
        self.call.flags += flags
        if len(flags) == len(image) and not (isinstance(image, Tensor) and image.requires_grad):
            rows = [image[row] if flag else checked[row] for row, flag in enumerate(flags)]
            image = torch.stack(rows) if isinstance(image, Tensor) else np.stack(rows)
        return (image, *(None for _ in verdicts))

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        made, call = self._blank(args, kwargs), self.call
        if call.prepared is not None:  # a second kind of latents
            return made
        latents, *others = made if isinstance(made, tuple) else (made,)
        call.prepared = latents if call.state is None else self.lay(call.state, latents)
        if call.stop:
            raise LatentsReady
        return (call.prepared, *others) if isinstance(made, tuple) else call.prepared

    def _blank(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Latents as the pipeline prepares them: those of the last call, where a state takes their place anyway.

        The numbers are many and nobody reads them. Generators are left as if they had been drawn, since what a pipeline
        draws later must not depend on what was called before.
        """
        own: Any = super()
        values = [*args, *kwargs.values()]
        generators = [value for value in values if isinstance(value, torch.Generator)]
        plain = [value for value in values if isinstance(value, PLAIN)]
        if self.call.state is None or len(plain) + len(generators) < len(values):
            return own.prepare_latents(*args, **kwargs)
        given = [*plain, *kwargs, *(generator.get_state().numpy().tobytes() for generator in generators)]
        if self.blank is None or self.blank.given != given:
            made = own.prepare_latents(*args, **kwargs)
            self.blank = BlankLatents(given, made, [generator.get_state() for generator in generators])
        else:
            for generator, state in zip(generators, self.blank.after, strict=True):
                generator.set_state(state)
        return self.blank.made


def _given(verdict: Any) -> bool:
    return verdict is not None


def _booleans(verdict: Any) -> list[bool]:
    """Flags as a list, whether they come as one, as an array or as a tensor."""
    return [bool(flag) for flag in (verdict.tolist() if hasattr(verdict, "tolist") else verdict)]


def _copied(image: Any) -> Any:
    return image.detach().clone() if isinstance(image, Tensor) else copy.deepcopy(image)


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


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.equal(b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(np.array_equal(a, b) if isinstance(a, np.ndarray) else a is b or a == b)


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

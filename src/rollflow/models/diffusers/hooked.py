"""A mixin that overrides methods of a pipeline's own class for the time of a call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rollflow.models.diffusers.stand_ins import NoProgress

PLAIN = (int, float, str, torch.dtype, torch.device, type(None))
"""Types of the arguments of ``prepare_latents``, besides generators, unless the pipeline starts from a picture."""


class LatentsReady(Exception):
    """Raised to end a call once its latents are prepared."""


@dataclass(eq=False)
class PipelineCall:
    """State and results of one call of a pipeline.

    Args:
        answers: Results that the methods that read the prompt return in turn; None lets them read it.
        state: State (B, ...) to continue from; None uses the latents that the pipeline prepares.
        stop: Whether to raise ``LatentsReady`` once the latents are prepared.
        encoded: Results of the methods that read the prompt so far.
        prepared: Latents of the call, once prepared.
        flags: Whether the safety checker flagged each sample that it has checked so far.
    """

    answers: Iterator[Any] | None = None
    state: Tensor | None = None
    stop: bool = False
    encoded: list[Any] = field(default_factory=list)
    prepared: Tensor | None = None
    flags: list[bool] = field(default_factory=list)


class BlankLatents(NamedTuple):
    """Cached latents of which only the layout in memory is used.

    Args:
        given: Arguments of ``prepare_latents``, their names, and the states of generators.
        result: Returned latents.
        after: States of the generators afterwards.
    """

    given: list[Any]
    result: Any
    after: list[Tensor]


class Hooked:
    """Mixin that overrides methods of a pipeline's class.

    Attributes:
        call: State and results of the running call.
        device_of_network: Device of the denoiser.
        caching: Networks that remember something from step to step.
        lay: Function that puts a state in place of prepared latents.
        seen: Inputs and results of encoders of pictures, which are the same at every call and computed once.
        blank: Latents that were last prepared only to be replaced by a state.
        checker: The pipeline's own ``run_safety_checker``, if the object has one in place of its class's method.
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
        """The denoiser's device, so that text encoders may be moved elsewhere once prompts are encoded."""
        return self.device_of_network

    def maybe_free_model_hooks(self) -> None:
        """Reset caches at the end of a call, but let an offloaded network stay on the device.

        Diffusers would look for caches in every module of every component, which takes longer than the rest of a call.
        """
        for network in self.caching:
            network._reset_stateful_cache()

    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> Any:
        """Show no progress bar, since loops have one step and there are many of them."""
        return NoProgress(() if iterable is None else iterable)

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = super()
        return self._answer(lambda: own.encode_prompt(*args, **kwargs))

    def generate_prior_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Override the random draft of the picture by GLM-Image's language model, which reads the prompt."""
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
        """Return the result of ``make`` for equal inputs, which is computed once.

        Args:
            what: Name of the computation.
            given: Inputs of the computation.
            make: Function that computes the result.
        """
        known = self.seen.setdefault(what, [])
        for before, result in known:
            if _same(before, given):
                return result
        known.append((given, make()))
        return known[-1][1]

    def run_safety_checker(self, image: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Record what the safety checker flags, and return pictures that are not blackened.

        It checks a copy. Other changes to a picture, such as blurred faces, are kept unless a gradient is required.
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
        result, call = self._blank(args, kwargs), self.call
        if call.prepared is not None:  # a second kind of latents
            return result
        latents, *others = result if isinstance(result, tuple) else (result,)
        call.prepared = latents if call.state is None else self.lay(call.state, latents)
        if call.stop:
            raise LatentsReady
        return (call.prepared, *others) if isinstance(result, tuple) else call.prepared

    def _blank(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Prepare latents as the pipeline does, or reuse those of the last call where a state replaces them anyway.

        This saves drawing many unused numbers. Generators are left as if they had been drawn, since later draws of a
        pipeline must not depend on earlier calls.
        """
        own: Any = super()
        values = [*args, *kwargs.values()]
        generators = [value for value in values if isinstance(value, torch.Generator)]
        plain = [value for value in values if isinstance(value, PLAIN)]
        if self.call.state is None or len(plain) + len(generators) < len(values):
            return own.prepare_latents(*args, **kwargs)
        given = [*plain, *kwargs, *(generator.get_state().numpy().tobytes() for generator in generators)]
        if self.blank is None or self.blank.given != given:
            result = own.prepare_latents(*args, **kwargs)
            self.blank = BlankLatents(given, result, [generator.get_state() for generator in generators])
        else:
            for generator, state in zip(generators, self.blank.after, strict=True):
                generator.set_state(state)
        return self.blank.result


def _given(verdict: Any) -> bool:
    return verdict is not None


def _booleans(verdict: Any) -> list[bool]:
    """Convert flags from a list, an array or a tensor to a list."""
    return [bool(flag) for flag in (verdict.tolist() if hasattr(verdict, "tolist") else verdict)]


def _copied(image: Any) -> Any:
    return image.detach().clone() if isinstance(image, Tensor) else copy.deepcopy(image)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.equal(b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(np.array_equal(a, b) if isinstance(a, np.ndarray) else a is b or a == b)

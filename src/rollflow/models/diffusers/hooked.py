"""What comes before a pipeline's own class: its own methods, with what one call asks of them."""

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


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.equal(b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(np.array_equal(a, b) if isinstance(a, np.ndarray) else a is b or a == b)

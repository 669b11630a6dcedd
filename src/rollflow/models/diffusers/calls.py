"""A pipeline's own call, made to say what a search asks for."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.models.diffusers.probe import probing

REWRITES = ("enable_prompt_rewrite", "use_pe")
"""Arguments that let a language model rewrite the prompt, which is done when it is encoded and not again."""

PROMPTS = re.compile(r"(negative_)?prompt(_\d)?")
"""Arguments that some pipelines take only in the type of the prompt, a list."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt as the pipeline's encoders gave it.

    Args:
        prompt: The text.
        answers: What each call of a method in ``_Hooked`` that reads the prompt returned, in their order.
    """

    prompt: str
    answers: tuple[Any, ...]

    @cached_property
    def shapes(self) -> Any:
        """What rows must share to share a call; the prompt itself where the pipeline reads it in its own way."""
        return _shapes(self.answers) if self.answers else self.prompt


def _parts(answer: Any) -> bool:
    """Whether an answer is made of parts, and not a list with an item a prompt."""
    return isinstance(answer, tuple) or (isinstance(answer, list) and len(answer) != 1)


def _shapes(answer: Any) -> Any:
    if isinstance(answer, Tensor):
        return tuple(answer.shape)
    return tuple(map(_shapes, answer)) if isinstance(answer, tuple | list) else None


def _together(answers: Sequence[Any]) -> Any:
    """The answer for all prompts, from those for one prompt each.

    Tensors are joined along their first dimension of size 1; what has none is shared by all prompts, as positions are.
    """
    first = answers[0]
    if _parts(first):
        return type(first)(_together(parts) for parts in zip(*answers, strict=True))
    if isinstance(first, list):
        return [item for answer in answers for item in answer]
    if isinstance(first, Tensor) and 1 in first.shape:
        return torch.cat(list(answers), dim=first.shape.index(1))
    return first


@dataclass(eq=False)
class _Asked:
    """One call of a pipeline.

    Args:
        answers: What the methods that read the prompt return in turn; None lets them read it.
        state: (B, ...) latents that it goes on from; None takes those that it prepares.
        encoded: What they have returned so far.
        prepared: The latents of the call, once there are any.
    """

    answers: Iterator[Any] | None = None
    state: Tensor | None = None
    encoded: list[Any] = field(default_factory=list)
    prepared: Tensor | None = None


def _laid(state: Tensor, latents: Tensor) -> Tensor:
    """The state over the first of the latents, of which some pipelines prepare more than they step.

    It takes their place in memory too, whose order decides the last bit of what some networks give.
    """
    laid = latents.detach().clone()
    laid[tuple(map(slice, state.shape))] = state.to(laid)
    return laid


class _Hooked:
    """Comes before a pipeline's own class, with what a call asks its own methods to do."""

    asked: _Asked
    device_of_network: torch.device

    @property
    def _execution_device(self) -> torch.device:
        """Fixed, so that text encoders may be moved off it once the prompts are encoded."""
        return self.device_of_network

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = super()
        return self._answer(lambda: own.encode_prompt(*args, **kwargs))

    def generate_prior_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """A draft of the picture that GLM-Image's language model draws from the prompt, at random."""
        own: Any = super()
        return self._answer(lambda: own.generate_prior_tokens(*args, **kwargs))

    def _answer(self, encode: Callable[[], Any]) -> Any:
        asked = self.asked
        asked.encoded.append(encode() if asked.answers is None else next(asked.answers))
        return asked.encoded[-1]

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = super()
        made, asked = own.prepare_latents(*args, **kwargs), self.asked
        if asked.prepared is not None:  # a second kind of latents
            return made
        latents, *others = made if isinstance(made, tuple) else (made,)
        asked.prepared = latents if asked.state is None else _laid(asked.state, latents)
        return (asked.prepared, *others) if isinstance(made, tuple) else asked.prepared


class Calls:
    """Calls of a copy of a pipeline, which shares its modules; the pipeline itself is left as it is.

    Args:
        pipeline: A pipeline of diffusers.
        arguments: Of its call.
    """

    def __init__(self, pipeline: Any, arguments: dict[str, Any]) -> None:
        own = type(pipeline)
        self.pipeline = copy.copy(pipeline)
        self.pipeline.__class__ = type(own.__name__, (_Hooked, own), {})
        self.pipeline.device_of_network = pipeline._execution_device
        self.pipeline.scheduler = self.probe = probing(pipeline.scheduler)
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline._all_hooks = []  # where models take turns on the device, the network keeps its turn between calls
        self._call = getattr(own.__call__, "__wrapped__", own.__call__)  # with gradients where they are on
        self._arguments = arguments
        self._prepares = hasattr(own, "prepare_latents")
        self._rewrites = [name for name in REWRITES if name in inspect.signature(own.__call__).parameters]

    def encode(self, prompt: str) -> Encoded:
        """A prompt through the text encoders."""
        asked = _Asked()
        self._run(asked, [prompt])
        return Encoded(prompt, tuple(asked.encoded))

    def latents(self, row: Encoded, timestep: Tensor) -> Tensor:
        """(1, ...) latents as the scheduler steps them, which may be a part of those that the pipeline prepares.

        Args:
            timestep: (1,) any that the network knows.
        """
        return self._stepped([row], None, timestep)[0]

    def output(self, rows: Sequence[Encoded], state: Tensor, timesteps: Tensor) -> Tensor:
        """What the network gives (B, ...) for states (B, ...), guided as the pipeline does.

        Args:
            rows: The prompt of each row.
            state: (B, ...).
            timesteps: (1,) of all rows, or (1, B) ``RowTimes``.

        Raises:
            RollflowError: If the pipeline steps another state than it was given.
        """
        sample, output = self._stepped(rows, state, timesteps)
        if sample.shape != state.shape or not torch.equal(sample, state.to(sample)):
            raise RollflowError(
                f"{type(self.pipeline).__name__} does not step the latents that it is given; a search cannot drive "
                "pipelines that hold a part of them fixed"
            )
        return output

    def _stepped(self, rows: Sequence[Encoded], state: Tensor | None, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """The state at the only step of a call, and the network's output."""
        self.probe.pretended = timesteps
        try:
            self._run(self._asked(rows, state), [row.prompt for row in rows])
            return self.probe.sample, self.probe.output
        finally:
            self.probe.pretended = torch.empty(0)
            self.probe.sample = self.probe.output = None  # or their graph would live on

    def decode(self, rows: Sequence[Encoded], state: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) or films (B, frames, 3, H, W) of clean latents (B, ...), in [0, 1]."""
        made = self._run(self._asked(rows, state), [row.prompt for row in rows], output_type="pt")
        colours, alpha = made.narrow(-3, 0, 3), made.narrow(-3, 3, made.shape[-3] - 3)
        return torch.lerp(torch.ones_like(colours), colours, alpha) if alpha.numel() else colours  # on white

    def schedule(self, row: Encoded, steps: int) -> Any:
        """The pipeline's scheduler, set to sample in so many steps as the pipeline itself would."""
        self.probe.recording = True
        try:
            self._run(self._asked([row]), [row.prompt], num_inference_steps=steps)
        finally:
            self.probe.recording = False
        return self.probe.recorded

    def _asked(self, rows: Sequence[Encoded], state: Tensor | None = None) -> _Asked:
        return _Asked(map(_together, zip(*(row.answers for row in rows), strict=True)), state)

    def _run(self, asked: _Asked, prompts: list[str], **arguments: Any) -> Tensor:
        """Call the pipeline; its loop runs over the timesteps of the probe, of which there are none unless set."""
        self.pipeline.asked = asked
        if asked.answers is not None:
            arguments.update(dict.fromkeys(self._rewrites, False))
        if not self._prepares and asked.state is not None:
            arguments["latents"] = asked.state.to(self.pipeline.device_of_network, self.pipeline.dtype)
        texts = {
            name: [text] * len(prompts)
            for name, text in self._arguments.items()
            if isinstance(text, str) and PROMPTS.fullmatch(name)
        }
        given = {
            "num_inference_steps": 2,  # of which the probe makes one or none; some divide by one less
            "output_type": "latent",
            "return_dict": False,
            **self._arguments,
            **texts,
            **arguments,
        }
        made: Tensor = self._call(self.pipeline, prompt=prompts, generator=torch.Generator().manual_seed(0), **given)[0]
        if not self._prepares and asked.state is None:
            asked.prepared = made
        return made

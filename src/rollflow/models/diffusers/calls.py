"""A pipeline's own call, made to say what a search asks for."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rollflow.canonical import weights_digest
from rollflow.errors import BadModel, RollflowError
from rollflow.models.diffusers.configured import adapters_told, scheduler_told, settings_told
from rollflow.models.diffusers.denoisers import caches, checkpointed, denoisers, restored
from rollflow.models.diffusers.encoded import Encoded, together
from rollflow.models.diffusers.hooked import Hooked, LatentsReady, PipelineCall
from rollflow.models.diffusers.layout import DIGITS, Layout
from rollflow.models.diffusers.probe import Step, is_trigflow, probing
from rollflow.models.diffusers.stand_ins import CachingAutoencoder, Guardrail, SilentDenoiser

REWRITES = ("enable_prompt_rewrite", "use_pe")
"""Arguments that let a language model rewrite the prompt, which is done when it is encoded and not again."""

PROMPTS = re.compile(r"(negative_)?prompt(_\d)?")
"""Arguments that some pipelines take only in the type of the prompt, a list."""


class Outset(NamedTuple):
    """How a pipeline would start to sample.

    Args:
        scheduler: Its scheduler, ready for the first of all steps.
        begun: The timestep that it noises its picture to; None where it starts from pure noise.
        origin: (...) state of that picture, clean.
    """

    scheduler: Any
    begun: float | None
    origin: Tensor


class PipelineCalls:
    """Calls of a copy of a pipeline, which shares its modules; the pipeline itself is left as it is.

    Args:
        pipeline: A pipeline of diffusers.
        arguments: Of its call.
    """

    def __init__(self, pipeline: Any, arguments: dict[str, Any]) -> None:
        own = type(pipeline)
        self.own, self.parts = copy.copy(pipeline), dict(pipeline.components)
        self.scheduler_told = scheduler_told(pipeline.scheduler)  # of which a copy is made here
        self.pipeline = copy.copy(pipeline)
        self.pipeline.__class__ = type(own.__name__, (Hooked, own), {})
        self.pipeline.device_of_network = pipeline._execution_device
        self._layout = Layout()
        self.pipeline.lay, self.pipeline.seen = self._laid, {}
        self.pipeline.scheduler = self.probe = probing(pipeline.scheduler)
        self.pipeline.caching = [network for network in self.networks.values() if caches(network)]
        pictures = any(not isinstance(value, str | int | float | None) for value in arguments.values())
        if pictures and hasattr(getattr(pipeline, "vae", None), "encode"):
            vars(self.pipeline)["vae"] = CachingAutoencoder(pipeline.vae, self.pipeline)
        self.pipeline.checker = vars(self.pipeline).pop("run_safety_checker", None)
        if hasattr(getattr(pipeline, "safety_checker", None), "check_video_safety"):
            vars(self.pipeline)["safety_checker"] = Guardrail(pipeline.safety_checker, self.pipeline)
        self._call = getattr(own.__call__, "__wrapped__", own.__call__)  # with gradients where they are on
        self._arguments = arguments
        self._known = inspect.signature(own.__call__).parameters
        self._prepares = hasattr(own, "prepare_latents")

    def encode(self, prompt: str) -> Encoded:
        """A prompt through the text encoders."""
        call = PipelineCall(stop=self._needs_a_step)
        with suppress(LatentsReady), self._steps_at(torch.ones(int(self._needs_a_step))):
            self._run(call, [prompt])
        return Encoded(prompt, tuple(call.encoded))

    def look_at_pictures(self, row: Encoded) -> None:
        """One call as the pipeline itself would make it, but for the network.

        What it draws of the latents of its pictures is what is drawn at its own strength, whatever comes later.
        """
        assert self.strength is not None
        steps = int(1 / self.strength[1]) + 1
        self._without_network(self._call_of([row]), [row.prompt], steps=steps, num_inference_steps=steps, whole=False)

    def state(self, row: Encoded, timestep: Tensor) -> Tensor:
        """(1, ...) latents as the scheduler steps them; where they lie in those that the pipeline prepares is learnt.

        Some pipelines step only a part of what they prepare, or the same in another order. Where each number of the
        state lies is read off states that hold the digits of their own places.

        Args:
            timestep: (1,) any that the network knows.

        Raises:
            RollflowError: If the state holds other numbers than were prepared.
        """
        call = self._call_of([row])
        [step], made = self._steps_of(call, [row], timestep)
        prepared = call.prepared
        if prepared is None or (prepared.shape == step.sample.shape and prepared.equal(step.sample.to(prepared))):
            return step.sample
        places, digit = torch.arange(prepared[0].numel()).view(prepared[:1].shape), 1
        at = torch.zeros(step.sample.shape, dtype=torch.int64)
        while digit < places.numel():
            call = self._call_of([row], places // digit % DIGITS)
            [marked], _ = self._steps_of(call, [row], timestep)
            digits = marked.sample.cpu().double()
            if not (digits.equal(digits.round()) and 0 <= float(digits.min()) <= float(digits.max()) < DIGITS):
                raise self._unknown_state()
            at += digits.long() * digit
            digit *= DIGITS
        rest = made.detach() if isinstance(made, Tensor) and made.shape == prepared.shape else None
        self._layout = Layout(at.flatten(), rest)
        return step.sample

    def output(self, rows: Sequence[Encoded], state: Tensor, timesteps: Tensor) -> Tensor:
        """What the network gives (B, ...) for states (B, ...), guided as the pipeline does.

        Args:
            rows: The prompt of each row.
            state: (B, ...).
            timesteps: (1,) of all rows, or (1, B) ``RowTimes``.

        Raises:
            RollflowError: If the pipeline steps another state than it was given.
        """
        [step], _ = self._steps_of(self._call_of(rows, state), rows, timesteps)
        if step.sample.shape != state.shape or not torch.equal(step.sample, state.to(step.sample)):
            raise self._unknown_state()
        return step.output

    def held(self, row: Encoded, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """What the pipeline puts in place of a part of the states, as (mask, clean), both of a state's shape.

        After each step it goes on with ``mask * state + (1 - mask) * clean``, where ``clean`` is a picture that it
        noises as much as the state is (here, not at all). Both show where the state was all 0, and then all 1.

        Args:
            timesteps: (3,).
        """
        self.probe.answers = [0.0, 1.0]
        (_, of_zeros, of_ones), _ = self._steps_of(self._call_of([row]), [row], timesteps)
        mask, rest = (of_ones.sample - of_zeros.sample)[0], of_zeros.sample[0]
        return mask, torch.where(mask < 1, rest / (1 - mask).clamp(min=1e-6), 0.0)

    def decode(self, rows: Sequence[Encoded], state: Tensor) -> tuple[Tensor, list[bool]]:
        """Pictures (B, 3, H, W) or films (B, frames, 3, H, W) of clean latents (B, ...), in [0, 1].

        Returns:
            The pictures, and whether the pipeline's safety checker flagged each, in which case it is not blackened.
        """
        call = self._call_of(rows, state)
        guarded = isinstance(getattr(self.pipeline, "safety_checker", None), Guardrail)  # by way of arrays
        with torch.set_grad_enabled(torch.is_grad_enabled() and not guarded):
            made: Tensor = self._without_network(call, [row.prompt for row in rows], output_type="pt")
        colours, alpha = made.narrow(-3, 0, 3), made.narrow(-3, 3, made.shape[-3] - 3)
        shown = torch.lerp(torch.ones_like(colours), colours, alpha) if alpha.numel() else colours  # on white
        flags = call.flags or [False] * len(rows)
        if not len(flags) == len(shown) == len(rows):
            raise BadModel(
                f"{type(self.pipeline).__name__} gave {len(shown)} samples for {len(rows)} states, and its safety "
                f"checker {len(flags)} verdicts; expected one each"
            )
        return shown, flags

    def schedule(self, row: Encoded, steps: int) -> Any:
        """The pipeline's scheduler, set to sample in so many steps as the pipeline itself would."""
        if self._needs_a_step:
            return self.outset(row, steps).scheduler
        self.probe.recording = True
        try:
            self._run(self._call_of([row]), [row.prompt], num_inference_steps=steps)
        finally:
            self.probe.recording = False
        return self.probe.recorded

    def outset(self, row: Encoded, steps: int) -> Outset:
        """How the pipeline would start to sample in so many steps, of which it leaves out the first by its strength."""
        self.probe.recording = self.probe.shown = True
        self.probe.begun, call = None, self._call_of([row])
        call.stop = True
        try:
            with suppress(LatentsReady):
                self._run(call, [row.prompt], num_inference_steps=steps, whole=False)
        finally:
            self.probe.recording = self.probe.shown = False
        assert call.prepared is not None
        begun, origin = self.probe.begun, self._layout.state_in(call.prepared)[0]
        return Outset(self.probe.recorded, None if begun is None else float(begun.flatten()[0]), origin)

    def told(self) -> list[str]:
        """What sets what it computes apart, beside arguments: its parts are looked at as they are now."""
        adapters = adapters_told(self.parts)
        networks = {name: part for name, part in self.parts.items() if isinstance(part, nn.Module)}
        return [
            f"scheduler={self.scheduler_told}",
            *([f"adapters={adapters}"] if adapters else []),
            f"settings={settings_told(self.own, self.parts)}",
            f"weights={weights_digest(networks)}",
        ]

    @property
    def networks(self) -> dict[str, Any]:
        """The denoisers, by their names in the pipeline."""
        return denoisers(self.pipeline)

    def checkpointed(self) -> AbstractContextManager[None]:
        """Run networks again in the backward pass instead of keeping what is inside their blocks, where they can."""
        return checkpointed(self.pipeline)

    @cached_property
    def strength(self) -> tuple[str, float] | None:
        """Name and value of the argument for how much the pipeline noises a picture that it starts from, if it does."""
        names = [name for name in ("denoise_strength", "strength") if name in self._known]
        if not (names and self._prepares and hasattr(self.pipeline, "get_timesteps")):
            return None
        value = self._arguments.get(names[0], self._known[names[0]].default)
        if not (isinstance(value, int | float) and 0 < value <= 1):
            raise RollflowError(f"{names[0]} must lie above 0 and be at most 1, not {value!r}")
        return names[0], float(value)

    @cached_property
    def _needs_a_step(self) -> bool:
        """Whether a call of no step is an error: those of picture and strength refuse it, others show what it made."""
        return self.strength is not None or is_trigflow(self.probe)

    def _unknown_state(self) -> RollflowError:
        return RollflowError(
            f"{type(self.pipeline).__name__} steps other numbers than the latents that it is given, so that a search "
            "cannot drive it"
        )

    def _call_of(self, rows: Sequence[Encoded], state: Tensor | None = None) -> PipelineCall:
        answers = map(together, zip(*(row.answers for row in rows), strict=True))
        return PipelineCall(answers, state)

    def _laid(self, state: Tensor, latents: Tensor) -> Tensor:
        return self._layout.latents_with(state, latents)

    def _steps_of(self, call: PipelineCall, rows: Sequence[Encoded], timesteps: Tensor) -> tuple[list[Step], Any]:
        """The steps of a call, and what it returned."""
        with self._steps_at(timesteps):
            made = self._run(call, [row.prompt for row in rows])
            return self.probe.steps, made

    @contextmanager
    def _steps_at(self, timesteps: Tensor) -> Iterator[None]:
        """Calls within run over these timesteps."""
        self.probe.pretended, self.probe.steps = timesteps, []
        try:
            yield
        finally:
            self.probe.pretended, self.probe.steps = torch.empty(0), []  # or their graph would live on

    def _without_network(self, call: PipelineCall, prompts: list[str], *, steps: int = 1, **arguments: Any) -> Any:
        """Call the pipeline with no step, or with some that do nothing where none is an error."""
        if not self._needs_a_step:
            return self._run(call, prompts, **arguments)
        networks = self.networks
        vars(self.pipeline).update({name: SilentDenoiser(network) for name, network in networks.items()})
        try:
            with self._steps_at(torch.ones(steps)):
                return self._run(call, prompts, **arguments)
        finally:
            vars(self.pipeline).update(networks)

    def _run(self, call: PipelineCall, prompts: list[str], *, whole: bool = True, **arguments: Any) -> Any:
        """Call the pipeline; its loop runs over the timesteps of the probe, of which there are none unless set.

        Args:
            whole: Whether a pipeline that noises a picture runs over all of them.
        """
        self.pipeline.call = call
        if call.answers is not None:
            arguments.update({name: False for name in REWRITES if name in self._known})
        if whole and self.strength is not None:
            arguments[self.strength[0]] = 1.0
        if not self._prepares and call.state is not None:
            arguments["latents"] = call.state.to(self.pipeline.device_of_network, self.pipeline.dtype)
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
        if "intermediate_timesteps" in self._known and given["num_inference_steps"] != 2:
            given["intermediate_timesteps"] = None  # which is of two steps only
        with restored(self.pipeline, reads_prompt=call.answers is None):
            made = self._call(self.pipeline, prompt=prompts, generator=torch.Generator().manual_seed(0), **given)[0]
        if not self._prepares and call.state is None:
            call.prepared = made
        return made

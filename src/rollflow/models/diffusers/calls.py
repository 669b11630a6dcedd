"""Calls of a pipeline that compute what a search needs: encoding, velocity and decoding."""

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
from rollflow.models.diffusers.configured import adapters_identity, scheduler_identity, settings_identity
from rollflow.models.diffusers.denoisers import caches, checkpointed, denoisers, restored
from rollflow.models.diffusers.encoded import Encoded, together
from rollflow.models.diffusers.hooked import Hooked, LatentsReady, PipelineCall
from rollflow.models.diffusers.layout import DIGITS, Layout
from rollflow.models.diffusers.probe import Step, is_trigflow, probing
from rollflow.models.diffusers.stand_ins import CachingAutoencoder, Guardrail, SilentDenoiser

REWRITES = ("enable_prompt_rewrite", "use_pe")
"""Arguments that let a language model rewrite the prompt, which happens only when it is encoded."""

PROMPTS = re.compile(r"(negative_)?prompt(_\d)?")
"""Arguments that some pipelines require to be lists like the prompt."""


class Outset(NamedTuple):
    """The start of a pipeline's own sampling.

    Args:
        scheduler: The pipeline's scheduler, ready for the first step.
        begun: Timestep that the pipeline noises its picture to; None if it starts from pure noise.
        origin: Clean state (...) of that picture.
    """

    scheduler: Any
    begun: float | None
    origin: Tensor


class PipelineCalls:
    """Calls of a copy of a pipeline, which shares its modules; the pipeline itself is not modified.

    Args:
        pipeline: A diffusers pipeline.
        arguments: Arguments of its call.
    """

    def __init__(self, pipeline: Any, arguments: dict[str, Any]) -> None:
        own = type(pipeline)
        self.own, self.parts = copy.copy(pipeline), dict(pipeline.components)
        self.scheduler_identity = scheduler_identity(pipeline.scheduler)  # now, since it is copied now
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
        self._call = getattr(own.__call__, "__wrapped__", own.__call__)  # without its torch.no_grad
        self._arguments = arguments
        self._known = inspect.signature(own.__call__).parameters
        self._prepares = hasattr(own, "prepare_latents")

    def encode(self, prompt: str) -> Encoded:
        """Run the text encoders on a prompt."""
        call = PipelineCall(stop=self._needs_a_step)
        with suppress(LatentsReady), self._steps_at(torch.ones(int(self._needs_a_step))):
            self._run(call, [prompt])
        return Encoded(prompt, tuple(call.encoded))

    def look_at_pictures(self, row: Encoded) -> None:
        """Make one call as the pipeline itself would, but without the network.

        The latents of its pictures are sampled in this call, at the pipeline's own strength, and cached.
        """
        assert self.strength is not None
        steps = int(1 / self.strength[1]) + 1
        self._without_network(self._call_of([row]), [row.prompt], steps=steps, num_inference_steps=steps, whole=False)

    def state(self, row: Encoded, timestep: Tensor) -> Tensor:
        """Return a state (1, ...), as the scheduler steps it, and find its layout in the prepared latents.

        Some pipelines step only a part of the latents that they prepare, or rearrange them. The layout is read off
        states whose values are the digits of their own positions.

        Args:
            row: An encoded prompt.
            timestep: Any valid timestep (1,) of the network.

        Raises:
            RollflowError: If the state does not consist of values of the prepared latents.
        """
        call = self._call_of([row])
        [step], result = self._steps_of(call, [row], timestep)
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
        rest = result.detach() if isinstance(result, Tensor) and result.shape == prepared.shape else None
        self._layout = Layout(at.flatten(), rest)
        return step.sample

    def output(self, rows: Sequence[Encoded], state: Tensor, timesteps: Tensor) -> Tensor:
        """Compute the network's output (B, ...) for states, with the pipeline's own guidance.

        Args:
            rows: Encoded prompt of each row.
            state: States (B, ...).
            timesteps: Timestep (1,) of all rows, or ``RowTimes`` (1, B).

        Raises:
            RollflowError: If the pipeline steps another state than it was given.
        """
        [step], _ = self._steps_of(self._call_of(rows, state), rows, timesteps)
        if step.sample.shape != state.shape or not torch.equal(step.sample, state.to(step.sample)):
            raise self._unknown_state()
        return step.output

    def fixed_part(self, row: Encoded, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Find the part of states that the pipeline keeps fixed, as (mask, clean), both of a state's shape.

        After each step it continues with ``mask * state + (1 - mask) * clean``, where ``clean`` is a picture with the
        noise of the state (here, none). Both follow from states that are all 0 and all 1.

        Args:
            row: An encoded prompt.
            timesteps: Three valid timesteps (3,).
        """
        self.probe.answers = [0.0, 1.0]
        (_, of_zeros, of_ones), _ = self._steps_of(self._call_of([row]), [row], timesteps)
        mask, rest = (of_ones.sample - of_zeros.sample)[0], of_zeros.sample[0]
        return mask, torch.where(mask < 1, rest / (1 - mask).clamp(min=1e-6), 0.0)

    def decode(self, rows: Sequence[Encoded], state: Tensor) -> tuple[Tensor, list[bool]]:
        """Decode clean latents (B, ...).

        Returns:
            Pictures (B, 3, H, W) or films (B, frames, 3, H, W) in [0, 1], and whether the pipeline's safety checker
            flagged each of them. Flagged ones are not blackened.
        """
        call = self._call_of(rows, state)
        guarded = isinstance(getattr(self.pipeline, "safety_checker", None), Guardrail)  # by way of arrays
        with torch.set_grad_enabled(torch.is_grad_enabled() and not guarded):
            output: Tensor = self._without_network(call, [row.prompt for row in rows], output_type="pt")
        colours, alpha = output.narrow(-3, 0, 3), output.narrow(-3, 3, output.shape[-3] - 3)
        shown = torch.lerp(torch.ones_like(colours), colours, alpha) if alpha.numel() else colours  # on white
        flags = call.flags or [False] * len(rows)
        if not len(flags) == len(shown) == len(rows):
            raise BadModel(
                f"{type(self.pipeline).__name__} gave {len(shown)} samples for {len(rows)} states, and its safety "
                f"checker {len(flags)} verdicts; expected one of each per state"
            )
        return shown, flags

    def schedule(self, row: Encoded, steps: int) -> Any:
        """Return the pipeline's scheduler, prepared for a number of steps as the pipeline itself would."""
        if self._needs_a_step:
            return self.outset(row, steps).scheduler
        self.probe.recording = True
        try:
            self._run(self._call_of([row]), [row.prompt], num_inference_steps=steps)
        finally:
            self.probe.recording = False
        return self.probe.recorded

    def outset(self, row: Encoded, steps: int) -> Outset:
        """Find how the pipeline would start to sample in a number of steps, of which its strength skips the first."""
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

    def identities(self) -> list[str]:
        """Texts of everything that results depend on besides arguments, by the present state of all parts."""
        adapters = adapters_identity(self.parts)
        networks = {name: part for name, part in self.parts.items() if isinstance(part, nn.Module)}
        return [
            f"scheduler={self.scheduler_identity}",
            *([f"adapters={adapters}"] if adapters else []),
            f"settings={settings_identity(self.own, self.parts)}",
            f"weights={weights_digest(networks)}",
        ]

    @property
    def networks(self) -> dict[str, Any]:
        """The denoisers, by their names in the pipeline."""
        return denoisers(self.pipeline)

    def checkpointed(self) -> AbstractContextManager[None]:
        """Recompute blocks of the networks in the backward pass, where they support it, to save memory."""
        return checkpointed(self.pipeline)

    @cached_property
    def strength(self) -> tuple[str, float] | None:
        """Name and value of the argument for the noise on the pipeline's picture; None if it starts from noise."""
        names = [name for name in ("denoise_strength", "strength") if name in self._known]
        if not (names and self._prepares and hasattr(self.pipeline, "get_timesteps")):
            return None
        value = self._arguments.get(names[0], self._known[names[0]].default)
        if not (isinstance(value, int | float) and 0 < value <= 1):
            raise RollflowError(f"{names[0]} must lie above 0 and be at most 1, not {value!r}")
        return names[0], float(value)

    @cached_property
    def _needs_a_step(self) -> bool:
        """Whether the pipeline refuses a call without steps, as pipelines with a picture and a strength do."""
        return self.strength is not None or is_trigflow(self.probe)

    def _unknown_state(self) -> RollflowError:
        return RollflowError(
            f"a search cannot drive {type(self.pipeline).__name__}, since it steps other values than the latents that "
            "it is given"
        )

    def _call_of(self, rows: Sequence[Encoded], state: Tensor | None = None) -> PipelineCall:
        answers = map(together, zip(*(row.answers for row in rows), strict=True))
        return PipelineCall(answers, state)

    def _laid(self, state: Tensor, latents: Tensor) -> Tensor:
        return self._layout.latents_with(state, latents)

    def _steps_of(self, call: PipelineCall, rows: Sequence[Encoded], timesteps: Tensor) -> tuple[list[Step], Any]:
        """Run a call; returns its steps and its result."""
        with self._steps_at(timesteps):
            result = self._run(call, [row.prompt for row in rows])
            return self.probe.steps, result

    @contextmanager
    def _steps_at(self, timesteps: Tensor) -> Iterator[None]:
        """Let calls within the block run over these timesteps."""
        self.probe.pretended, self.probe.steps = timesteps, []
        try:
            yield
        finally:
            self.probe.pretended, self.probe.steps = torch.empty(0), []  # releases their autograd graph

    def _without_network(self, call: PipelineCall, prompts: list[str], *, steps: int = 1, **arguments: Any) -> Any:
        """Call the pipeline without steps, or with steps that do nothing if it refuses that."""
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
        """Call the pipeline; its loop runs over the timesteps of the probe, by default none.

        Args:
            call: State and results of the call.
            prompts: Prompts of the rows.
            whole: Whether a pipeline with a strength runs over all timesteps.
            arguments: Further arguments of the call.
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
        settings = {
            "num_inference_steps": 2,  # replaced by the probe's; some pipelines divide by one less than this
            "output_type": "latent",
            "return_dict": False,
            **self._arguments,
            **texts,
            **arguments,
        }
        if "intermediate_timesteps" in self._known and settings["num_inference_steps"] != 2:
            settings["intermediate_timesteps"] = None  # only valid with two steps
        with restored(self.pipeline, reads_prompt=call.answers is None):
            generator = torch.Generator().manual_seed(0)
            output = self._call(self.pipeline, prompt=prompts, generator=generator, **settings)[0]
        if not self._prepares and call.state is None:
            call.prepared = output
        return output

"""Diffusers pipelines for images and videos as flow models, driven through their own public call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rollflow.canonical import canonical
from rollflow.dynamics.conversions import velocity_from_denoised
from rollflow.dynamics.grids import Grid
from rollflow.errors import BadModel, BadSetting, RollflowError
from rollflow.models.base import FlowModel, Screened, Source
from rollflow.models.diffusers.arguments import check_arguments, check_kind, is_few_step
from rollflow.models.diffusers.calls import PipelineCalls
from rollflow.models.diffusers.encoded import Encoded
from rollflow.models.diffusers.exclusive import Exclusive, exclusively
from rollflow.models.diffusers.failures import explained, out_of_memory
from rollflow.models.diffusers.probe import RowTimes
from rollflow.models.diffusers.schedule import convention, is_flow

DENSE = 1000


class Own(Grid):
    """The times at which the pipeline itself would sample, including its shift for the resolution.

    Args:
        model: The model of the pipeline.
    """

    whole = True

    def __init__(self, model: DiffusersModel) -> None:
        self.model = model

    def __call__(self, steps: int) -> Tensor:
        return self.model.own_times(steps)


class DiffusersModel(FlowModel):
    """A diffusers pipeline of any flow or diffusion model.

    The pipeline is called like a user would call it, on a copy that shares its modules and whose scheduler returns the
    output of the network: a call with one step computes the guided velocity, and a call without steps decodes. So
    everything that the pipeline does around its network is preserved, such as any kind of guidance, negative prompts,
    rescaling, and packing of latents. Each prompt is encoded once.

    States are the pipeline's own latents, packed as it packs them, in float32 on the CPU; each call casts them to the
    pipeline's dtype and device.

    Threads may share a model, and models may share networks: calls take turns. Calls of the pipeline from elsewhere are
    not synchronized with them. A fork of the process that loaded the model cannot use it.

    Args:
        pipeline: The pipeline, which is not modified.
        arguments: Arguments of its call, such as ``height``, ``guidance_scale``, ``negative_prompt`` or ``image``.
        name: Name to show; None means the place its weights were loaded from.
        few_step: Whether it is step-distilled; None decides by its configuration, name and scheduler (``is_few_step``).

    Attributes:
        source: The ``PipelineSource`` that loaded it, for records; None for a pipeline that the user loaded.

    Raises:
        RollflowError: If the pipeline is not of a flow or diffusion model, or its call does not take an argument.
    """

    description = "a pipeline of diffusers"
    source: Source | None = None

    def __init__(
        self,
        pipeline: Any,
        arguments: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        few_step: bool | None = None,
    ) -> None:
        own = type(pipeline)
        check_kind(own)
        check_arguments(own, arguments or {})
        self.name = name or pipeline.config.get("_name_or_path") or own.__name__  # type: ignore[misc]
        if few_step is None:
            few_step = is_few_step(self.name, type(pipeline.scheduler), pipeline.config)
        self.few_step = few_step  # type: ignore[misc]
        if getattr(getattr(pipeline, "transformer", None), "config", {}).get("use_meanflow"):
            # Its network also takes the time that a step ends at, which is unknown when a velocity is requested.
            raise RollflowError(
                f"{self.name} is a mean flow, whose network does not predict a velocity; use a model that does"
            )
        self.arguments = dict(arguments or {})
        self.exclusive = Exclusive(self.name, pipeline.components.values())
        with self.exclusive(), self._explained(pipeline, BadSetting):
            self.calls = PipelineCalls(pipeline, self.arguments)
            self.device = self.calls.pipeline.device_of_network
            self._most: dict[str, int] = {}
            self._blank = self.encode(" ")
            with torch.no_grad():
                flow = is_flow(pipeline.scheduler)  # its timesteps depend on the pipeline's schedule
                self.convention = convention(self.calls.schedule(self._blank, DENSE) if flow else pipeline.scheduler)
                self.interpolant = self.convention.interpolant
                if self.calls.strength is not None:
                    self.calls.look_at_pictures(self._blank)
                middle = self.convention.timestep(torch.tensor([0.5]))
                self.shape = tuple(self.calls.state(self._blank, middle).shape[1:])
                self._held: tuple[Tensor, Tensor] | None = None
                if self.calls.strength is not None:
                    self._look_at_picture()
                self.rows_per_nfe, self.mixes_times = self._measured()  # type: ignore[misc]
        self.grid: Grid = Own(self)

    def _explained(self, pipeline: Any, kind: type[RollflowError]) -> AbstractContextManager[None]:
        return explained(self.name, pipeline, self.arguments, kind)

    def __reduce__(self) -> Any:
        raise RollflowError(
            f"{self.name} is a loaded pipeline, which cannot be pickled or copied; load it in each process with "
            "PipelineSource or load_model"
        )

    def _look_at_picture(self) -> None:
        """Find out which picture the pipeline starts from (``origin``), and which part of it stays fixed."""
        outset = self.calls.outset(self._blank, DENSE)
        if outset.begun is not None and self.convention.time(outset.begun) < 1:
            self.origin = outset.origin.reshape(self.shape).float().cpu()
        times = self.convention.timestep(torch.tensor([0.9, 0.6, 0.3]))
        mask, clean = (part.float().cpu() for part in self.calls.fixed_part(self._blank, times))
        if bool((mask < 1).any()):
            self._held = mask, clean

    @property
    @exclusively
    def identity(self) -> str:
        """The name, the arguments of the call, and everything else that results depend on, at this moment.

        That is the scheduler, adapters (names and strengths of LoRAs, and whether they are off or fused), and digests
        of the networks' settings and weights.
        """
        arguments = [f"{name}={canonical(value)}" for name, value in sorted(self.arguments.items())]
        return f"{self.name}({', '.join([*arguments, *self.calls.identities()])})"

    def start(self, steps: int) -> float:
        return 1.0 if self.origin is None else float(self.own_times(steps)[0])

    @exclusively
    @torch.no_grad()
    def encode(self, prompt: str) -> Encoded:
        """Run the text encoders on a prompt. Raises a BadSetting if the pipeline refuses it."""
        with self._explained(self.calls.pipeline, BadSetting):
            return self.calls.encode(prompt)

    @exclusively
    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Encoded]) -> Tensor:
        groups: dict[Any, list[int]] = {}
        for row, (time, condition) in enumerate(zip(t.tolist(), conditions, strict=True)):
            groups.setdefault((condition.shapes, None if self.mixes_times else time), []).append(row)
        if len(groups) == 1:
            output = self._outputs(x, t, conditions)
        else:
            parts = [self._outputs(x[rows], t[rows], [conditions[row] for row in rows]) for rows in groups.values()]
            order = torch.tensor([row for rows in groups.values() for row in rows])
            output = torch.cat(parts)[order.argsort()]
        return self._holding(self.convention.velocity(output, x, t), x, t)

    def _holding(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Replace the velocity in the fixed part of the picture by that of a clean estimate equal to this part.

        After each step, pipelines replace this part by the given picture with the noise of the state; this velocity
        leads straight to the same picture, whatever noise the kernel adds.
        """
        if self._held is None:
            return velocity
        mask, clean = (part.to(x) for part in self._held)
        to_held = velocity_from_denoised(self.interpolant, clean.expand_as(x), x, t)
        return mask * velocity + (1 - mask) * to_held

    def decode(self, x0: Tensor) -> Tensor:
        """Decode latents to pictures (B, 3, H, W) or films (B, frames, 3, H, W) in [0, 1].

        This includes samples that the pipeline's safety checker flags; ``screened`` does not.
        """
        return self._decoded(x0)[0]

    @torch.no_grad()
    def screened(self, x0: Tensor) -> Screened:
        """Decode latents; samples that the pipeline's safety checker flags are black and rejected."""
        samples, flags = self._decoded(x0)
        if any(flags):
            samples = samples.clone()
            samples[torch.tensor(flags)] = 0.0
        return Screened(samples, tuple("the safety checker" if flag else None for flag in flags))

    @exclusively
    def _decoded(self, x0: Tensor) -> tuple[Tensor, list[bool]]:
        blank, flags = [self._blank] * len(x0), list[bool]()

        def decode(rows: slice) -> Tensor:
            with self._explained(self.calls.pipeline, BadModel):
                samples, flagged = self.calls.decode(blank[rows], x0[rows])
            flags.extend(flagged)
            return samples.to(x0)

        return self._within_memory("decode", len(x0), decode), flags

    @exclusively
    def own_times(self, steps: int) -> Tensor:
        """Times (steps + 1,), in float64, at which the pipeline itself would sample, down to 0."""
        with self._explained(self.calls.pipeline, BadModel):
            return self._own_times(steps)

    def _own_times(self, steps: int) -> Tensor:
        if self.origin is None or self.calls.strength is None:
            return self.convention.times_of(self.calls.schedule(self._blank, steps))
        _, strength = self.calls.strength
        fewest = int(steps / strength)
        for whole in range(fewest, fewest + 3):  # number of steps of which it skips the first, with its own rounding
            outset = self.calls.outset(self._blank, whole)
            times, begun = self.convention.times_of(outset.scheduler), float(self.convention.time(outset.begun))
            remaining = times[times <= begun + 1e-6]
            if len(remaining) == steps + 1:
                return remaining
        raise RollflowError(f"{self.name} cannot sample in {steps} steps at strength {strength}; try another number")

    def _output(self, x: Tensor, t: Tensor, rows: Sequence[Encoded]) -> Tensor:
        """Compute the network's output, in the dtype and on the device of x."""
        timesteps, one = self.convention.timestep(t), bool((t == t[0]).all())
        with self._explained(self.calls.pipeline, BadModel), self.calls.checkpointed():
            return self.calls.output(rows, x, timesteps[:1] if one else timesteps[None].as_subclass(RowTimes)).to(x)

    def _outputs(self, x: Tensor, t: Tensor, rows: Sequence[Encoded]) -> Tensor:
        """Compute the network's output for rows that can share a call, in as many calls as memory requires."""
        return self._within_memory("velocity", len(x), lambda part: self._output(x[part], t[part], rows[part]))

    def _measured(self) -> tuple[int, bool]:
        """Measure the network rows per velocity, and whether rows with different times can share a call.

        They can if a shared call gives the same outputs as separate ones. If not even rows with equal times can,
        ``_most`` makes them be computed and decoded one by one.
        """
        rows = 0

        def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal rows
            rows += len(args[0] if args else next(iter(kwargs.values())))

        x = torch.randn(self.shape, generator=torch.Generator().manual_seed(0)).expand(2, *self.shape)
        early, late = (torch.full((2,), t, dtype=torch.float64) for t in (0.9, 0.5))
        networks: list[Any] = list(self.calls.networks.values())
        hooks = [n.register_forward_pre_hook(count, with_kwargs=True) for n in networks if isinstance(n, nn.Module)]
        processors = [(n, n.attn_processors) for n in networks if hasattr(n, "attn_processors")]
        try:
            alone = [self._output(x[:1], t[:1], [self._blank]) for t in (early, late)]
        finally:
            for hook in hooks:
                hook.remove()
        apart = (alone[0] - alone[1]).norm()

        def share(first: int, second: int) -> bool:
            times = torch.stack([(early, late)[i][0] for i in (first, second)])
            try:
                shared = self._output(x, times, [self._blank] * 2)
            except Exception:  # pipelines may fail in any way for rows with different times
                for network, own in processors:
                    if network.attn_processors != own:  # changed for the call and not restored
                        network.set_attn_processor(own)
                return False
            return bool((shared - torch.cat([alone[first], alone[second]])).norm() <= 0.1 * apart)

        mixes = share(0, 1)
        if not (mixes or share(0, 0)):
            self._most["velocity"] = self._most["decode"] = 1
        return rows // 2, mixes

    def _within_memory(self, what: str, rows: int, call: Callable[[slice], Tensor]) -> Tensor:
        """Call a function on all rows, in halves where memory runs out; the size that fits is remembered."""
        parts, done = list[Tensor](), 0
        while done < rows:
            most = min(self._most.get(what, rows), rows - done)
            try:
                parts.append(call(slice(done, done + most)))
            except Exception as error:
                if most == 1 or not out_of_memory(error):
                    raise
                self._most[what] = most // 2
            else:
                done += most
        return parts[0] if len(parts) == 1 else torch.cat(parts)

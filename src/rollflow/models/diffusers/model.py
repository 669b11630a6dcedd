"""Any text-to-image or text-to-video pipeline of diffusers as a flow model, through its own public call."""

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
from rollflow.models.base import FlowModel, Screened
from rollflow.models.diffusers.arguments import check_arguments, check_kind, is_few_step
from rollflow.models.diffusers.calls import PipelineCalls
from rollflow.models.diffusers.encoded import Encoded
from rollflow.models.diffusers.exclusive import Exclusive, exclusively
from rollflow.models.diffusers.failures import explained, out_of_memory
from rollflow.models.diffusers.probe import RowTimes
from rollflow.models.diffusers.schedule import convention, is_flow

DENSE = 1000


class Own(Grid):
    """The times at which a pipeline itself would sample, shifted for its resolution as it does.

    Args:
        model: The pipeline.
    """

    whole = True

    def __init__(self, model: DiffusersModel) -> None:
        self.model = model

    def __call__(self, steps: int) -> Tensor:
        return self.model.own_times(steps)


class DiffusersModel(FlowModel):
    """A diffusers pipeline, of any flow or diffusion model.

    The pipeline is called as a user would call it, on a copy that shares its modules and whose scheduler hands the
    network's output back: a call of one step is the guided velocity, and a call of no step the decoder. Whatever the
    pipeline does around its network (guidance of any sort, negative prompts, rescaling, packing of latents) comes
    along. Prompts are encoded once.

    States are the pipeline's own latents, as it packs them, in float32 on the CPU; they are cast to the pipeline's
    dtype and device for each call.

    Threads may share it, and models whose pipelines share a network: they take turns, a call at a time. What else calls
    the pipeline meanwhile is not held back. A fork of the process that loaded it cannot use it.

    Args:
        pipeline: The pipeline; it is left as it is.
        arguments: Of its call, such as ``height``, ``guidance_scale``, ``negative_prompt`` or ``image``.
        name: As shown to the user; None is where its weights came from.
        few_step: Whether it is step-distilled; None tells by its configuration, name and scheduler (``is_few_step``).

    Raises:
        RollflowError: If it is no pipeline of a flow or diffusion model, or its call takes no such argument.
    """

    description = "a pipeline of diffusers"

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
            # It is told the time it steps to as well, which is not known when a velocity is asked for.
            raise RollflowError(f"{self.name} is a mean flow, whose network gives no velocity; take a model that does")
        self.arguments = dict(arguments or {})
        self.exclusive = Exclusive(self.name, pipeline.components.values())
        with self.exclusive(), self._explained(pipeline, BadSetting):
            self.calls = PipelineCalls(pipeline, self.arguments)
            self.device = self.calls.pipeline.device_of_network
            self._most: dict[str, int] = {}
            self._blank = self.encode(" ")
            with torch.no_grad():
                flow = is_flow(pipeline.scheduler)  # whose timesteps are known by sampling alone
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
        self.grid = Own(self)

    def _explained(self, pipeline: Any, kind: type[RollflowError]) -> AbstractContextManager[None]:
        return explained(self.name, pipeline, self.arguments, kind)

    def __reduce__(self) -> Any:
        raise RollflowError(
            f"{self.name} is a loaded pipeline, which is not sent to other processes nor copied; load it in each, by "
            "PipelineSource or load_model"
        )

    def _look_at_picture(self) -> None:
        """Learn what the pipeline starts from (``origin``), and which part of it it holds."""
        outset = self.calls.outset(self._blank, DENSE)
        if outset.begun is not None and self.convention.time(outset.begun) < 1:
            self.origin = outset.origin.reshape(self.shape).float().cpu()
        times = self.convention.timestep(torch.tensor([0.9, 0.6, 0.3]))
        mask, clean = (part.float().cpu() for part in self.calls.held(self._blank, times))
        if bool((mask < 1).any()):
            self._held = mask, clean

    @property
    @exclusively
    def identity(self) -> str:
        """Its name, the arguments of its call, and all else that it computes by, as that is when this is asked.

        That is the scheduler, adapters (LoRA: names, strengths, off or fused), a digest of all settings of its networks
        and of their weights.
        """
        told = [f"{name}={canonical(value)}" for name, value in sorted(self.arguments.items())]
        return f"{self.name}({', '.join([*told, *self.calls.told()])})"

    def start(self, steps: int) -> float:
        return 1.0 if self.origin is None else float(self.own_times(steps)[0])

    @exclusively
    @torch.no_grad()
    def encode(self, prompt: str) -> Encoded:
        """The prompt through the text encoders. Raises a BadSetting where the pipeline refuses it."""
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
        """The velocity, where a part of the picture is held that of a clean estimate that is this part.

        Pipelines put the part, noised as the state is, in place of what the network made of it. Its noise is that of
        the state, so that a flow leads straight to it, whatever else the kernel adds.
        """
        if self._held is None:
            return velocity
        mask, clean = (part.to(x) for part in self._held)
        to_held = velocity_from_denoised(self.interpolant, clean.expand_as(x), x, t)
        return mask * velocity + (1 - mask) * to_held

    def decode(self, x0: Tensor) -> Tensor:
        """Latents as pictures (B, 3, H, W), or films (B, frames, 3, H, W), in [0, 1].

        Also those that the pipeline's safety checker flags, which ``screened`` leaves out.
        """
        return self._decoded(x0)[0]

    @torch.no_grad()
    def screened(self, x0: Tensor) -> Screened:
        """The same, with those that the pipeline's safety checker flags blackened, and rejected in its name."""
        samples, flags = self._decoded(x0)
        if any(flags):
            samples = samples.clone()
            samples[torch.tensor(flags)] = 0.0
        return Screened(samples, tuple("the safety checker" if flag else None for flag in flags))

    @exclusively
    def _decoded(self, x0: Tensor) -> tuple[Tensor, list[bool]]:
        blank, flags = [self._blank] * len(x0), list[bool]()

        def decode(some: slice) -> Tensor:
            with self._explained(self.calls.pipeline, BadModel):
                samples, flagged = self.calls.decode(blank[some], x0[some])
            flags.extend(flagged)
            return samples.to(x0)

        return self._within_memory("decode", len(x0), decode), flags

    @exclusively
    def own_times(self, steps: int) -> Tensor:
        """(steps + 1,) float64 times at which the pipeline itself would sample, down to 0."""
        with self._explained(self.calls.pipeline, BadModel):
            return self._own_times(steps)

    def _own_times(self, steps: int) -> Tensor:
        if self.origin is None or self.calls.strength is None:
            return self.convention.times_of(self.calls.schedule(self._blank, steps))
        _, strength = self.calls.strength
        fewest = int(steps / strength)
        for whole in range(fewest, fewest + 3):  # so many steps, of which it leaves out the first, by its own rounding
            outset = self.calls.outset(self._blank, whole)
            times, begun = self.convention.times_of(outset.scheduler), float(self.convention.time(outset.begun))
            kept = times[times <= begun + 1e-6]
            if len(kept) == steps + 1:
                return kept
        raise RollflowError(f"{self.name} does not start {steps} steps from the end at strength {strength}")

    def _output(self, x: Tensor, t: Tensor, rows: Sequence[Encoded]) -> Tensor:
        """The network's output in the dtype and on the device of x."""
        timesteps, one = self.convention.timestep(t), bool((t == t[0]).all())
        with self._explained(self.calls.pipeline, BadModel), self.calls.checkpointed():
            return self.calls.output(rows, x, timesteps[:1] if one else timesteps[None].as_subclass(RowTimes)).to(x)

    def _outputs(self, x: Tensor, t: Tensor, rows: Sequence[Encoded]) -> Tensor:
        """The same, of rows that can share a call, in as many calls as memory asks for."""
        return self._within_memory("velocity", len(x), lambda some: self._output(x[some], t[some], rows[some]))

    def _measured(self) -> tuple[int, bool]:
        """Network rows of one velocity, and whether rows of different times can share a call.

        They can if what they get in a shared call is what they get alone; the pipeline's code is not looked at. Where
        even rows of one time cannot, ``_most`` has them called, and decoded, one by one.
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
            except Exception:  # whatever a pipeline makes of rows that it is not written for
                for network, own in processors:
                    if network.attn_processors != own:  # changed for the call, without a chance to change back
                        network.set_attn_processor(own)
                return False
            return bool((shared - torch.cat([alone[first], alone[second]])).norm() <= 0.1 * apart)

        mixes = share(0, 1)
        if not (mixes or share(0, 0)):
            self._most["velocity"] = self._most["decode"] = 1
        return rows // 2, mixes

    def _within_memory(self, what: str, rows: int, call: Callable[[slice], Tensor]) -> Tensor:
        """``call`` on all rows, on half as many at once wherever memory runs out; what fits is remembered."""
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

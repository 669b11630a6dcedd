"""A scheduler that records the network's output, so that a pipeline's own call computes velocities and decodes."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor


class RowTimes(Tensor):
    """Times (B,) of several rows, which a pipeline treats as the single time of its loop.

    Pipelines repeat the time of a step for all rows of their network call: B rows, or a multiple with guidance.
    ``expand`` to n rows repeats the times accordingly.
    """

    def expand(self, *sizes: Any) -> Tensor:  # type: ignore[override]
        plain = self.as_subclass(Tensor)
        [size, *rest] = sizes[0] if isinstance(sizes[0], (tuple, list, torch.Size)) else sizes
        if plain.ndim != 1 or size % len(plain):
            raise RuntimeError(f"{len(plain)} times cannot be repeated for {size} rows")
        rows = plain.repeat(size // len(plain))
        return rows.reshape(-1, *(1 for _ in rest)).expand(size, *rest)

    def repeat(self, *sizes: Any) -> Tensor:
        """Repeat the times of the first step, given the timesteps (1, B) of a loop."""
        plain = self.as_subclass(Tensor)
        return plain.repeat(*sizes) if plain.ndim < 2 else self[0].expand(*sizes)


class Stepped(NamedTuple):
    """The result of ``step``, which pipelines read by position or by name; some unpack two values."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class Step(NamedTuple):
    """The arguments of a scheduler's step.

    Args:
        sample: State before the step.
        output: Output of the network, after the pipeline's guidance.
    """

    sample: Tensor
    output: Tensor


class Probe:
    """Mixin for a scheduler's own class, used by ``probing``; its ``step`` does not change the state.

    Attributes:
        pretended: Timesteps (steps, ...) that the pipeline's loop runs over instead of the schedule it requests.
        steps: Steps of the last call.
        answers: Values that fill the states after the next steps, as long as there are any.
        begun: Timestep (1, ...) that a picture was last noised to (it is left clean); None if there was none.
        recording: Whether to create and keep the schedule that the pipeline requests.
        recorded: The scheduler with that schedule, ready for its first step.
        shown: Whether the pipeline sees that schedule; its loop must not be reached then.
    """

    pretended: Tensor
    steps: list[Step]
    answers: list[float]
    begun: Tensor | None
    recording: bool
    recorded: Any
    shown: bool
    order = 1  # also for two-stage schedulers, each of whose stages uses one velocity

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Return the sample unchanged, since states have unit variance already."""
        return sample

    @property
    def init_noise_sigma(self) -> float:
        return 1.0

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor | None = None) -> Tensor:
        """Flow schedulers' method to noise a picture; adds 0 times the noise, which fixes batch size and layout."""
        self.begun = timestep
        return sample if noise is None else 0 * noise + sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Diffusion schedulers' method to noise a picture; adds 0 times the noise."""
        self.begun = timesteps
        return original_samples + 0 * noise


def probing(scheduler: Any) -> Any:
    """Copy a diffusers scheduler and mix ``Probe`` into its class; class and configuration stay recognizable."""
    own = type(scheduler)
    of_schedule = inspect.signature(own.set_timesteps)
    to_set, to_step = list(of_schedule.parameters), list(inspect.signature(own.step).parameters)

    @functools.wraps(own.set_timesteps)  # pipelines look for names of its parameters
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        arguments = dict(zip(to_set, (self, *args), strict=False)) | kwargs
        if self.recording:
            own.set_timesteps(self, *args, **kwargs)
            self.recorded = copy.copy(self)
            self.recorded.__class__ = own
            if self.shown:
                self.order = own.order  # by which pipelines count the timesteps that they skip
                return
        self.order = 1
        self.timesteps = self.pretended.to(arguments.get("device"))
        if is_trigflow(self):  # its loop skips the last timestep
            self.timesteps = torch.cat([self.timesteps, torch.zeros_like(self.timesteps[:1])])
        # Some pipelines pass them to their network's caches, and some read the last but one.
        self.sigmas = torch.linspace(1, 0, max(len(self.pretended), 1) + 1)
        self.num_inference_steps = len(self.pretended)
        self._step_index = self._begin_index = None

    @functools.wraps(own.step)  # parameters come in any order
    def step(self: Any, *args: Any, **kwargs: Any) -> Stepped:
        arguments = dict(zip(to_step, (self, *args), strict=False)) | kwargs
        sample = arguments["sample"]
        self.steps.append(Step(sample, arguments["model_output"]))
        state = torch.full_like(sample, self.answers.pop(0)) if self.answers else sample
        return Stepped(state, state)

    vars(set_timesteps)["__signature__"] = of_schedule  # pipelines inspect it at every call
    copied = copy.deepcopy(scheduler)
    copied.__class__ = type(f"Probing{own.__name__}", (Probe, own), {"set_timesteps": set_timesteps, "step": step})
    copied.pretended, copied.steps, copied.answers = torch.empty(0), [], []
    copied.begun, copied.recording, copied.recorded, copied.shown = None, False, None, False
    if is_trigflow(copied):
        copied.register_to_config(sigma_data=1.0)  # the pipeline multiplies states and outputs by it
    return copied


def is_trigflow(scheduler: Any) -> bool:
    """Whether a scheduler's model has x_t = cos(t) x0 + sin(t) eps (sCM, Lu & Song 2024, arXiv 2410.11081)."""
    return bool(scheduler.config.get("prediction_type") == "trigflow")

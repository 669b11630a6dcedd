"""A scheduler that keeps the network's output, so that a pipeline's own call is its velocity and its decoder."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor


class RowTimes(Tensor):
    """Times of rows, (B,), that a pipeline takes for the single time of its loop.

    Pipelines repeat the time of a step for the rows of their network call, of which there are B, or a multiple where
    they guide. ``expand`` to n rows repeats the times as often.
    """

    def expand(self, *sizes: Any) -> Tensor:  # type: ignore[override]
        plain = self.as_subclass(Tensor)
        [size, *rest] = sizes[0] if isinstance(sizes[0], (tuple, list, torch.Size)) else sizes
        if plain.ndim != 1 or size % len(plain):
            raise RuntimeError(f"{len(plain)} times cannot be those of {size} rows")
        rows = plain.repeat(size // len(plain))
        return rows.reshape(-1, *(1 for _ in rest)).expand(size, *rest)

    def repeat(self, *sizes: Any) -> Tensor:
        """Of the timesteps of a loop, (1, B), that of the first step for n rows."""
        plain = self.as_subclass(Tensor)
        return plain.repeat(*sizes) if plain.ndim < 2 else self[0].expand(*sizes)


class Stepped(NamedTuple):
    """What ``step`` returns, read by place or by name; some unpack two."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class Step(NamedTuple):
    """What a pipeline gave its scheduler at one step: the state, and what the network made of it, guided as it does."""

    sample: Tensor
    output: Tensor


class Probe:
    """Comes before a scheduler's own class; made by ``probing``. Its ``step`` leaves the state as it is.

    Attributes:
        pretended: (steps, ...) timesteps that the pipeline's loop runs over, whatever it asks for.
        steps: Those of the last call ...
        answers: ... whose states become full of these numbers instead, as long as there are any.
        begun: (1, ...) timestep that a picture was last noised to; None where none was. It is left clean.
        recording: Whether to make the schedule that the pipeline asks for too, and keep it.
        recorded: The scheduler itself with that schedule, ready for its first step.
        shown: Whether the pipeline gets to see that schedule, which its loop must then not reach.
    """

    pretended: Tensor
    steps: list[Step]
    answers: list[float]
    begun: Tensor | None
    recording: bool
    recorded: Any
    shown: bool
    order = 1  # of two-stage schedulers too, since each of their stages asks for one velocity

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """States are of unit variance already."""
        return sample

    @property
    def init_noise_sigma(self) -> float:
        return 1.0

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor | None = None) -> Tensor:
        """How flows noise a picture; added as noise of none, since that decides the batch and how it lies in memory."""
        self.begun = timestep
        return sample if noise is None else 0 * noise + sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """How diffusion models do."""
        self.begun = timesteps
        return original_samples + 0 * noise


def probing(scheduler: Any) -> Any:
    """A copy of a diffusers scheduler that probes; it is still one of its class, with its configuration."""
    own = type(scheduler)
    of_schedule = inspect.signature(own.set_timesteps)
    to_set, to_step = list(of_schedule.parameters), list(inspect.signature(own.step).parameters)

    @functools.wraps(own.set_timesteps)  # pipelines look for names of its parameters
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(to_set, (self, *args), strict=False)) | kwargs
        if self.recording:
            own.set_timesteps(self, *args, **kwargs)
            self.recorded = copy.copy(self)
            self.recorded.__class__ = own
            if self.shown:
                return
        self.timesteps = self.pretended.to(given.get("device"))
        if is_trigflow(self):  # whose loop leaves out the last one
            self.timesteps = torch.cat([self.timesteps, torch.zeros_like(self.timesteps[:1])])
        # Some pipelines tell them to their network's caches, and some look at the last but one.
        self.sigmas = torch.linspace(1, 0, max(len(self.pretended), 1) + 1)
        self.num_inference_steps = len(self.pretended)
        self._step_index = self._begin_index = None

    @functools.wraps(own.step)  # whose parameters come in any order
    def step(self: Any, *args: Any, **kwargs: Any) -> Stepped:
        given = dict(zip(to_step, (self, *args), strict=False)) | kwargs
        sample = given["sample"]
        self.steps.append(Step(sample, given["model_output"]))
        state = torch.full_like(sample, self.answers.pop(0)) if self.answers else sample
        return Stepped(state, state)

    vars(set_timesteps)["__signature__"] = of_schedule  # which pipelines ask for at every call
    copied = copy.deepcopy(scheduler)
    copied.__class__ = type(f"Probing{own.__name__}", (Probe, own), {"set_timesteps": set_timesteps, "step": step})
    copied.pretended, copied.steps, copied.answers = torch.empty(0), [], []
    copied.begun, copied.recording, copied.recorded, copied.shown = None, False, None, False
    if is_trigflow(copied):
        copied.register_to_config(sigma_data=1.0)  # by which the pipeline multiplies states and outputs
    return copied


def is_trigflow(scheduler: Any) -> bool:
    """Whether it is of a model of x_t = cos(t) x0 + sin(t) eps (sCM, Lu & Song 2024, arXiv 2410.11081)."""
    return bool(scheduler.config.get("prediction_type") == "trigflow")

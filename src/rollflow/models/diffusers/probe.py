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


class Stepped(NamedTuple):
    """What ``step`` returns, read by place or by name; some unpack two."""

    prev_sample: Tensor
    pred_original_sample: None = None


class Probe:
    """Comes before a scheduler's own class; made by ``probing``. Its ``step`` leaves the state as it is.

    Attributes:
        pretended: (steps, ...) timesteps that the pipeline's loop runs over, whatever it asks for.
        sample: The state that ``step`` was last given ...
        output: ... and what the network gave for it, guided as the pipeline does.
        recording: Whether to make the schedule that the pipeline asks for too, and keep it.
        recorded: The scheduler itself with that schedule, ready for its first step.
    """

    pretended: Tensor
    sample: Tensor
    output: Tensor
    recording: bool
    recorded: Any
    order = 1  # of two-stage schedulers too, since each of their stages asks for one velocity

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """States are of unit variance already."""
        return sample

    @property
    def init_noise_sigma(self) -> float:
        return 1.0


def probing(scheduler: Any) -> Any:
    """A copy of a diffusers scheduler that probes; it is still one of its class, with its configuration."""
    own = type(scheduler)

    @functools.wraps(own.set_timesteps)  # pipelines look for names of its parameters
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.recording:
            own.set_timesteps(self, *args, **kwargs)
            self.recorded = copy.copy(self)
            self.recorded.__class__ = own
        given = inspect.signature(own.set_timesteps).bind(self, *args, **kwargs).arguments
        self.timesteps = self.pretended.to(given.get("device"))
        # Some pipelines tell them to their network's caches, and some look at the last but one.
        self.sigmas = torch.linspace(1, 0, max(len(self.pretended), 1) + 1)
        self.num_inference_steps = len(self.pretended)
        self._step_index = self._begin_index = None

    @functools.wraps(own.step)  # whose parameters come in any order
    def step(self: Any, *args: Any, **kwargs: Any) -> Stepped:
        given = inspect.signature(own.step).bind(self, *args, **kwargs).arguments
        self.sample, self.output = given["sample"], given["model_output"]
        return Stepped(self.sample)

    copied = copy.deepcopy(scheduler)
    copied.__class__ = type(f"Probing{own.__name__}", (Probe, own), {"set_timesteps": set_timesteps, "step": step})
    copied.pretended, copied.recording, copied.recorded = torch.empty(0), False, None
    return copied

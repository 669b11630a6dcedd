"""Conventions of a pipeline's network, read off its scheduler: interpolant, prediction and timesteps."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rollflow.dynamics.conversions import broadcast_like, velocity_from_denoised, velocity_from_noise
from rollflow.dynamics.interpolants import Cosine, Interpolant, Linear, as_float64
from rollflow.dynamics.shapes import Time
from rollflow.errors import RollflowError
from rollflow.models.diffusers.probe import is_trigflow

PREDICTIONS = ("flow", "epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Discrete(Interpolant):
    """The variance-preserving interpolant of a diffusion model with a noise schedule of T steps.

        alpha = exp(-B / 2),  sigma = sqrt(1 - exp(-B)),  B(i / T) = -log alphas_cumprod[i - 1],  B(0) = 0

    B is linear in between, so that noise is added at a constant rate within a step. Time i / T is the timestep i - 1.
    Ho et al. 2020 (DDPM), arXiv 2006.11239.

    Args:
        cumulated: Values of B at 1 / T, ..., 1, positive and increasing.
    """

    cumulated: tuple[float, ...]

    def __post_init__(self) -> None:
        if not (self.cumulated and np.all(np.diff([0.0, *self.cumulated]) > 0)):
            raise RollflowError("the noise schedule must increase from step to step")

    @cached_property
    def _nodes(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        total = np.array([0.0, *self.cumulated])
        return np.linspace(0, 1, len(total)), total

    def _total(self, t: Time) -> Tensor:
        t = as_float64(t)
        return torch.as_tensor(np.interp(t.cpu().numpy(), *self._nodes)).to(t)

    def _rate(self, t: Time) -> Tensor:
        t, (_, total) = as_float64(t), self._nodes
        steps = np.diff(total) * len(self.cumulated)
        at = np.ceil(t.cpu().numpy() * len(self.cumulated) - 1e-9).astype(int) - 1
        return torch.as_tensor(steps[at.clip(0, len(steps) - 1)]).to(t)

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(-self._total(t) / 2)

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._total(t)))

    def alpha_dot(self, t: Time) -> Tensor:
        return -self._rate(t) * self.alpha(t) / 2

    def sigma_dot(self, t: Time) -> Tensor:
        return self.sigma_sigma_dot(t) / self.sigma(t)

    def sigma_sigma_dot(self, t: Time) -> Tensor:
        return self._rate(t) * torch.exp(-self._total(t)) / 2

    def log_snr(self, t: Time) -> Tensor:
        return -torch.expm1(self._total(t)).log()

    def time_at_log_snr(self, log_snr: Time) -> Tensor:
        log_nsr, (times, total) = -as_float64(log_snr), self._nodes
        wanted = torch.logaddexp(log_nsr, torch.zeros_like(log_nsr))
        return torch.as_tensor(np.interp(wanted.cpu().numpy(), total, times)).to(wanted)


@dataclass(frozen=True, eq=False)
class Convention:
    """The conventions of a pipeline's network for time and prediction.

    Args:
        interpolant: Interpolant that the network was trained on.
        prediction: Kind of output, one of ``PREDICTIONS``; that of a flow is dx / dt up to the factor ``rate``.
        times: Increasing times (n,) of the interpolant.
        timesteps: Timesteps (n,) that the network takes at these times; linear in between.
        rate: Ratio of dx / dt to a flow's output, -1 if the network points from noise to data.
    """

    interpolant: Interpolant
    prediction: str
    times: np.ndarray[Any, Any]
    timesteps: np.ndarray[Any, Any]
    rate: float = 1.0

    def timestep(self, t: Tensor) -> Tensor:
        """Convert times to values of the pipeline's loop variable, in float32 and of the same shape."""
        return torch.as_tensor(np.interp(t.cpu().double().numpy(), self.times, self.timesteps)).float()

    def time(self, timestep: Any) -> np.ndarray[Any, Any]:
        """Convert timesteps to times; the inverse of ``timestep``."""
        order = np.argsort(self.timesteps)
        return np.asarray(np.interp(timestep, self.timesteps[order], self.times[order]))

    def times_of(self, scheduler: Any) -> Tensor:
        """Times (n + 1,), in float64, of a scheduler's own schedule, from noise down to 0."""
        if self.prediction == "flow" and not is_trigflow(scheduler):
            times = _noise_levels(scheduler)
        else:
            times = self.time(_float64(scheduler.timesteps))
        times = times[:: type(scheduler).order]  # without the intermediate times of two-stage schedulers
        return torch.as_tensor(np.append(times[np.append(True, np.diff(times) < 0) & (times > 0)], 0.0))

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Convert the network's output at states x and times t (B,) to dx / dt (B, ...)."""
        if self.prediction == "flow":
            return self.rate * output
        if self.prediction == "epsilon":
            return velocity_from_noise(self.interpolant, output, x, t)
        if self.prediction == "sample":
            return velocity_from_denoised(self.interpolant, output, x, t)
        alpha, sigma = (broadcast_like(of(t), x) for of in (self.interpolant.alpha, self.interpolant.sigma))
        return velocity_from_denoised(self.interpolant, alpha * x - sigma * output, x, t)


def is_flow(scheduler: Any) -> bool:
    """Whether a diffusers scheduler belongs to a flow model."""
    config = scheduler.config
    return (
        "FlowMatch" in type(scheduler).__name__
        or config.get("prediction_type") == "flow_prediction"
        or bool(config.get("use_flow_sigmas"))
        or is_trigflow(scheduler)
    )


def interpolant_of(scheduler: Any) -> Interpolant:
    """Return the interpolant of a scheduler's model.

    Raises:
        RollflowError: If the scheduler belongs to neither a flow nor a diffusion model.
    """
    if is_trigflow(scheduler):
        return Cosine()
    return Linear() if is_flow(scheduler) else discrete(scheduler)


def _float64(values: Tensor) -> np.ndarray[Any, Any]:
    return values.double().cpu().numpy()


def _noise_levels(scheduler: Any) -> np.ndarray[Any, Any]:
    """Times of a flow's schedule, from noise to data; in an increasing schedule, 0 is noise."""
    sigmas = _float64(scheduler.sigmas)
    return (1 - sigmas if sigmas[1] > sigmas[0] else sigmas)[: len(scheduler.timesteps)]


def convention(scheduler: Any) -> Convention:
    """Read the conventions of a pipeline's network off its scheduler.

    Args:
        scheduler: A diffusers scheduler, ready for the first of many steps.

    Raises:
        RollflowError: If the scheduler belongs to neither a flow nor a diffusion model.
    """
    if is_trigflow(scheduler):  # takes the angle, and predicts the derivative by it
        return Convention(Cosine(), "flow", np.array([0.0, 1.0]), np.array([0.0, np.pi / 2]), np.pi / 2)
    if is_flow(scheduler):
        times, timesteps = _noise_levels(scheduler), _float64(scheduler.timesteps)
        if times.max() > 1.001:
            raise RollflowError(
                f"scheduler {type(scheduler).__name__} has noise levels up to {times.max():.3g}; expected those of a "
                "flow, which are at most 1"
            )
        rate = _sign(scheduler, times[1] - times[0])
        line = np.polyfit(times, timesteps, 1)
        if np.abs(np.polyval(line, times) - timesteps).max() <= 1:  # some round to whole timesteps
            slope, start = np.round(line)
            return Convention(Linear(), "flow", np.array([0.0, 1.0]), np.array([start, start + slope]), rate)
        return Convention(Linear(), "flow", times[::-1], timesteps[::-1], rate)
    path = discrete(scheduler)
    ends = np.array([1 / len(path.cumulated), 1.0]), np.array([0.0, len(path.cumulated) - 1.0])
    return Convention(path, scheduler.config.get("prediction_type", "epsilon"), *ends)


def discrete(scheduler: Any) -> Discrete:
    """Return the interpolant of a diffusion model's scheduler.

    Raises:
        RollflowError: If the scheduler does not belong to a diffusion model.
    """
    alphas, prediction = getattr(scheduler, "alphas_cumprod", None), scheduler.config.get("prediction_type", "epsilon")
    if alphas is None or prediction not in PREDICTIONS[1:]:
        raise RollflowError(
            f"scheduler {type(scheduler).__name__} with prediction_type {prediction!r} is not supported; expected a "
            f"flow-matching one, or one with alphas_cumprod and prediction_type {', '.join(PREDICTIONS[1:])}"
        )
    return Discrete(tuple((-np.log(alphas.double().cpu().numpy().clip(1e-12))).tolist()))


def _sign(scheduler: Any, dt: float) -> float:
    """Sign of dx / dt relative to the network's output.

    Computed from the difference of its steps for the outputs 1 and 0, in which the scheduler's own noise cancels.
    """
    states = []
    for output in (torch.ones(1, 1), torch.zeros(1, 1)):
        stepping = copy.deepcopy(scheduler)
        draws = "generator" in inspect.signature(stepping.step).parameters  # leaves the global generator alone
        noise = {"generator": torch.Generator().manual_seed(0)} if draws else {}
        states.append(stepping.step(output, stepping.timesteps[0], torch.zeros(1, 1), return_dict=False, **noise)[0])
    return float(torch.sign((states[0] - states[1]) / dt))

"""Kernels: transitions from x_t to x_s, with t > s."""

from rollflow.dynamics.kernels.base import DiffusionCoefficient, GaussianKernel, Kernel, Moments, VelocityFn
from rollflow.dynamics.kernels.glass import GLASS
from rollflow.dynamics.kernels.ode import Euler, Heun
from rollflow.dynamics.kernels.preserving import DDIM, CoefficientsPreserving, FlowCPS, Renoise
from rollflow.dynamics.kernels.rising import Clipped, Exponential, Sine, Tangent
from rollflow.dynamics.kernels.sde import (
    COEFFICIENTS,
    Constant,
    Converted,
    EulerMaruyama,
    Memoryless,
    Power,
    Sigma,
)
from rollflow.registry import Registry

KERNELS: Registry[Kernel] = Registry(
    "kernel",
    Kernel,
    {
        "ode": Euler,
        "heun": Heun,
        "sde": EulerMaruyama,
        "ddim": DDIM,
        "cps": FlowCPS,
        "stochastic": Renoise,
        "glass": GLASS,
    },
)
"""Every kernel, by its name on the command line."""

__all__ = [
    "COEFFICIENTS",
    "DDIM",
    "GLASS",
    "KERNELS",
    "Clipped",
    "CoefficientsPreserving",
    "Constant",
    "Converted",
    "DiffusionCoefficient",
    "Euler",
    "EulerMaruyama",
    "Exponential",
    "FlowCPS",
    "GaussianKernel",
    "Heun",
    "Kernel",
    "Memoryless",
    "Moments",
    "Power",
    "Renoise",
    "Sigma",
    "Sine",
    "Tangent",
    "VelocityFn",
]

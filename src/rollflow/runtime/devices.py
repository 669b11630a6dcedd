"""Devices by name."""

from __future__ import annotations

import torch

from rollflow.errors import BadSetting


def available() -> list[str]:
    """Names of the devices that there are here, the best one first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def device_named(name: str | torch.device) -> torch.device:
    """The device of a name as PyTorch gives it, whether or not it is here; ``auto`` is the best that is.

    Raises:
        BadSetting: If it is no such name.
    """
    if not isinstance(name, str | torch.device):
        raise BadSetting(f"device must be a text such as cpu or cuda:0, not {name!r:.80}")
    if name == "auto":
        return torch.device(available()[0].partition(":")[0])
    try:
        return torch.device(name)
    except RuntimeError:
        raise _missing(str(name)) from None


def check_device(device: torch.device) -> None:
    """Raise a BadSetting if a device is not here."""
    try:
        there = _there(device)
    except (RuntimeError, AssertionError, NotImplementedError):
        there = False
    if not there:
        raise _missing(str(device))


def _missing(name: str) -> BadSetting:
    return BadSetting(f"there is no device '{name:.80}' here; known: auto, {', '.join(available())}")


def _there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    if device.type == "meta":  # holds no numbers
        return False
    return device.type == "cpu" or torch.empty(0, device=device).device.type == device.type

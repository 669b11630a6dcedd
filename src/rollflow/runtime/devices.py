"""Torch devices by name."""

from __future__ import annotations

import torch

from rollflow.errors import BadSetting


def available() -> list[str]:
    """Names of the available devices, the best one first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def device_named(name: str | torch.device) -> torch.device:
    """Find a device by its name in PyTorch, whether or not it is available; ``auto`` is the best available one.

    Raises:
        BadSetting: If the name is not valid.
    """
    if not isinstance(name, str | torch.device):
        raise BadSetting(f"device must be a string such as cpu or cuda:0, not {name!r:.80}")
    if name == "auto":
        return torch.device(available()[0].partition(":")[0])
    try:
        return torch.device(name)
    except RuntimeError:
        raise _missing(str(name)) from None


def check_device(device: torch.device) -> None:
    """Raise a BadSetting if a device is not available."""
    try:
        present = _is_present(device)
    except (RuntimeError, AssertionError, NotImplementedError):
        present = False
    if not present:
        raise _missing(str(device))


def _missing(name: str) -> BadSetting:
    return BadSetting(f"device '{name:.80}' is not available; choose one of: auto, {', '.join(available())}")


def _is_present(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    if device.type == "meta":  # holds no numbers
        return False
    return device.type == "cpu" or torch.empty(0, device=device).device.type == device.type

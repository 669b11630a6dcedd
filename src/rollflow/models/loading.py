"""Loading of packaged weights into networks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from rollflow import checks
from rollflow.errors import BadWeights

Dtype: TypeAlias = Literal["float32", "bfloat16"]
"""Name of the type in which a packaged network computes."""

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_weights(network: nn.Module, path: Path, device: torch.device | str = "cpu", dtype: Dtype = "float32") -> str:
    """Load a safetensors file into a network, in the network's own dtype, and freeze it.

    Args:
        network: Network to load the weights into.
        path: Path of the file.
        device: Device to move the network to.
        dtype: Type in which the layers of the network compute (``convert``).

    Returns:
        The beginning of the file's SHA-256, which identifies the weights.

    Raises:
        BadSetting: If the dtype is not known.
        BadWeights: If the file is missing, damaged, or of another network.
    """
    checks.one_of("dtype", dtype, DTYPES)
    mend = "reinstall rollflow, or train the network again with the scripts in tools/training/"
    try:
        content = path.read_bytes()
        tensors = load(content)
    except FileNotFoundError:
        raise BadWeights(f"the weights file {path.name} is missing; {mend}") from None
    except (SafetensorError, OSError) as error:
        raise BadWeights(f"the weights file {path.name} cannot be read ({error}); {mend}") from None
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise BadWeights(f"the weights file {path.name} belongs to another network ({first}); {mend}") from None
    network.requires_grad_(False).eval().to(device)
    if dtype != "float32":
        convert(network, DTYPES[dtype])
    return hashlib.sha256(content).hexdigest()[:12]


def convert(network: nn.Module, dtype: torch.dtype) -> None:
    """Convert the layers of a network, except for those named in its attribute ``exact``, and put channels last.

    Parameters and buffers of its own and of its blocks, such as calibrations, remain as they are.
    """
    exact = getattr(network, "exact", ())
    for name, layer in network.named_modules():
        if name not in exact and not any(layer.children()):
            layer.to(dtype, memory_format=torch.channels_last)

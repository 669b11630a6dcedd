"""Loading of packaged weights into networks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from rollflow.errors import BadWeights


def load_weights(network: nn.Module, path: Path, device: torch.device | str = "cpu") -> str:
    """Load a safetensors file into a network, in the network's own dtype, and freeze it.

    Args:
        network: Network to load the weights into.
        path: Path of the file.
        device: Device to move the network to.

    Returns:
        The beginning of the file's SHA-256, which identifies the weights.

    Raises:
        BadWeights: If the file is missing, damaged, or of another network.
    """
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
    return hashlib.sha256(content).hexdigest()[:12]

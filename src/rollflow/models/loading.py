"""Packaged weights into networks."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rollflow.errors import BadWeights


def load_weights(network: nn.Module, path: Path, device: torch.device | str = "cpu") -> None:
    """Load a safetensors file into a network, in the network's own dtype, and freeze it.

    Raises:
        BadWeights: If the file is missing, cut short, or of another network.
    """
    mend = "reinstall rollflow, or train it again with the scripts in training/"
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise BadWeights(f"no weights at {path.name} in the package; {mend}") from None
    except (SafetensorError, OSError) as error:
        raise BadWeights(f"the weights file {path.name} cannot be read ({error}); {mend}") from None
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise BadWeights(f"the weights file {path.name} is of another network ({first}); {mend}") from None
    network.requires_grad_(False).eval().to(device)

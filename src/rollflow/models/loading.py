"""Packaged weights into networks, and what tells the weights of networks from others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from rollflow.errors import BadWeights


def load_weights(network: nn.Module, path: Path, device: torch.device | str = "cpu") -> str:
    """Load a safetensors file into a network, in the network's own dtype, and freeze it.

    Returns:
        The beginning of the file's SHA-256, to tell it from files of other training.

    Raises:
        BadWeights: If the file is missing, cut short, or of another network.
    """
    mend = "reinstall rollflow, or train it again with the scripts in training/"
    try:
        content = path.read_bytes()
        tensors = load(content)
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
    return hashlib.sha256(content).hexdigest()[:12]


def weights_digest(networks: Mapping[str, nn.Module]) -> str:
    """The beginning of a SHA-256 of networks' weights as they are in memory: by name, shape and some of the numbers.

    Training or merging changes nearly all numbers of a weight, and an adapter adds some, so that 64 of each tell;
    reading all would take as long as loading them. Weights that ``accelerate`` keeps elsewhere are looked up there; of
    those whose numbers cannot be read, in whatever format, only names and shapes tell.
    """
    told = hashlib.sha256()
    for part, network in sorted(networks.items()):
        for prefix, module in network.named_modules():
            for name, weight in module.named_parameters(recurse=False):
                whole = f"{part}.{prefix}.{name}".replace("_orig_mod.", "")  # of a compiled module
                told.update(f"{whole} {tuple(weight.shape)}".encode())
                told.update(_numbers(module, name, weight))
    return told.hexdigest()[:12]


def _numbers(module: nn.Module, name: str, weight: Tensor) -> bytes:
    """Some numbers of a weight, or of what a hook of ``accelerate`` puts in its place when the module runs."""
    try:
        kept: Tensor = module._hf_hook.weights_map[name] if weight.is_meta else weight  # type: ignore[union-attr,index]
        values = kept.detach().reshape(-1)
        return values[:: max(1, len(values) // 64)][:64].double().cpu().numpy().tobytes()
    except Exception:  # there are as many ways to pack or park weights as libraries for it: name and shape must do then
        return b""

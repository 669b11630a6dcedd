"""The denoising networks of a pipeline, and temporary changes to them during a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

DENOISERS = ("transformer", "transformer_2", "unet")
"""Names of the components that are denoising networks."""


def denoisers(pipeline: Any) -> dict[str, Any]:
    """The denoisers of a pipeline, by their names in it."""
    named = {name: getattr(pipeline, name, None) for name in DENOISERS}
    return {name: network for name, network in named.items() if network is not None}


def caches(network: Any) -> bool:
    """Whether a network remembers something from step to step (diffusers' cache hooks)."""
    hooks = [getattr(module, "_diffusers_hook", None) for module in network.modules()]
    return any(registry is not None and registry.hooks for registry in hooks)


def _again(block: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a block of a network with checkpointing; unlike diffusers' own function, it takes keyword arguments."""
    return checkpoint(block.__call__, *args, use_reentrant=False, **kwargs)


@contextmanager
def checkpointed(pipeline: Any) -> Iterator[None]:
    """Let denoisers that can keep only the states between their blocks, and run the blocks again for a gradient.

    Does nothing where gradients are off, and for pipelines of perturbed attention, which change their network.
    """
    networks = denoisers(pipeline).values() if torch.is_grad_enabled() else ()
    able = [
        network
        for network in networks
        if not hasattr(pipeline, "set_pag_applied_layers")
        and getattr(network, "_supports_gradient_checkpointing", False)
        and not network.is_gradient_checkpointing
    ]
    for network in able:
        network.enable_gradient_checkpointing(_again)
    try:
        yield
    finally:
        for network in able:
            network.disable_gradient_checkpointing()


@contextmanager
def restored(pipeline: Any, *, reads_prompt: bool) -> Iterator[None]:
    """Undo what a pipeline does to its networks during a call, if the call fails before it does so itself.

    That is perturbed attention, and the scale of a LoRA in text encoders that read the prompt.

    Args:
        pipeline: The pipeline.
        reads_prompt: Whether the call runs the text encoders.
    """
    perturbs = hasattr(pipeline, "set_pag_applied_layers")
    processors = [(network, network.attn_processors) for network in denoisers(pipeline).values() if perturbs]
    scales = list(_scales(pipeline)) if reads_prompt else []
    try:
        yield
    except BaseException:
        for network, own in processors:
            if network.attn_processors != own:
                network.set_attn_processor(dict(own))
        for scaling, own in scales:
            scaling.update(own)
        raise


def _scales(pipeline: Any) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """The strengths of adapters in text encoders, and their present values."""
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder") and hasattr(part, "modules"):
            for module in part.modules():
                scaling = getattr(module, "scaling", None)
                if isinstance(scaling, dict):
                    yield scaling, dict(scaling)

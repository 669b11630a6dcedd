"""Texts that identify the present settings of a pipeline, besides its weights and the arguments of its call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rollflow.canonical import canonical, digest, settings_in

IGNORED = {"gradient_checkpointing", "hf_device_map", "name_or_path", "lora_scale", "is_running", "training"}
"""Attributes of networks that no result depends on, such as devices, paths and remains of a call.

``lora_scale`` is the scale at which adapters were last fused, which their own scales and the weights reflect.
"""

OFFLOADS = ("group_offloading", "lazy_prefetch", "layer_execution")
"""Prefixes of the names of hooks that only move weights."""

RUN_STATE = ("cache", "warning")
"""Parts of the names of attributes that change while a network runs."""


def scheduler_identity(scheduler: Any) -> str:
    """Class of a scheduler, with a digest of its configuration and of attributes set since."""
    since = {name: getattr(scheduler, name, None) for name in ("shift", "sigma_min", "sigma_max")}
    tensors = [getattr(scheduler, name, None) for name in ("betas", "alphas_cumprod")]
    return f"{type(scheduler).__name__} {digest(canonical([settings_in(scheduler.config), since, tensors]))}"


def settings_identity(pipeline: Any, parts: Mapping[str, Any]) -> str:
    """Digest of all settings of a pipeline and its parts.

    They include configurations, plain public attributes of every module (which hold the settings of FreeU, adapters,
    tiling and IP-Adapters), attention processors, caches, hooks, dtypes, classes (which reflect quantization), and
    added tokens.
    """
    texts = [type(pipeline).__qualname__, canonical(_plain_in(vars(pipeline)))]
    texts.append(canonical(_plain_in(settings_in(pipeline.config))))
    texts.append(canonical(vars(pipeline).get("run_safety_checker")))
    for name, part in sorted(parts.items()):
        if name == "scheduler" or part is None:
            continue
        texts.append(name)
        texts.extend(_network(part) if isinstance(part, nn.Module) else _other(part, name, parts))
    texts.extend(
        canonical(value)
        for name, value in sorted(vars(pipeline).items())
        if name.endswith("_processor") and isinstance(getattr(value, "config", None), Mapping)
    )
    return digest(*texts)


def adapters_identity(parts: Mapping[str, Any]) -> str:
    """Adapters of the networks with their strengths, and whether they are off or fused; "" if there are none."""
    texts = []
    for name, part in sorted(parts.items()):
        layers = [_adapter(module) for module in _modules(part) if _adapts(module)]
        if layers:
            [first, *others] = list(dict.fromkeys(layers))
            texts.append(f"{name}: {first}" + (f" and {digest(*layers)}" if others else ""))
    return "; ".join(texts)


def _adapts(module: nn.Module) -> bool:
    """Whether a module is a layer of peft, which may not be installed."""
    return isinstance(getattr(module, "scaling", None), dict) and hasattr(module, "active_adapters")


def _adapter(module: Any) -> str:
    active, scaling = module.active_adapters, module.scaling
    active = active() if callable(active) else active
    names = [active] if isinstance(active, str) else list(active)
    shown = [f"{name}={_round(scaling[name])}" if name in scaling else f"{name}=0" for name in names]
    merged = list(getattr(module, "merged_adapters", ()))
    off = [" off"] if getattr(module, "disable_adapters", False) is True else []
    return "".join(["+".join(shown), *off, *([f" fused {'+'.join(merged)}"] if merged else [])])


def _modules(part: Any) -> Iterator[nn.Module]:
    return getattr(part, "_orig_mod", part).modules() if isinstance(part, nn.Module) else iter(())


def _network(network: nn.Module) -> Iterator[str]:
    network = getattr(network, "_orig_mod", network)  # unwraps a compiled network
    yield _config(network)
    yield ", ".join(sorted({str(weight.dtype) for weight in network.parameters()}))
    for name, module in network.named_modules():
        settings = _plain_in(vars(module))
        if not settings.get("use_tiling"):
            settings = {key: value for key, value in settings.items() if not key.startswith("tile_")}
        yield f"{name} {type(module).__qualname__} {canonical(settings)}"
        if module.training and type(module).__name__.startswith("Dropout"):
            yield "training"
        if _adapts(module):
            yield _adapter(module)
        yield from _attached(module)


def _attached(module: nn.Module) -> Iterator[str]:
    """Describe attachments of a module: attention processor, caches, hooks, a replaced forward, persistent buffers."""
    own = vars(module)
    processor = own.get("processor")
    if processor is not None:
        yield f"{type(processor).__qualname__} {canonical(_plain_in(vars(processor), private=True))}"
    registry = own.get("_diffusers_hook")
    for name, hook in getattr(registry, "hooks", {}).items():
        if not name.startswith(OFFLOADS):
            yield f"{name} {type(hook).__qualname__} {canonical(_plain_in(vars(hook)))}"
    if own.get("_cache_config") is not None:
        yield canonical(own["_cache_config"])
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        yield from (canonical(hook) for hook in hooks.values())
    if "forward" in own and registry is None and "_hf_hook" not in own:
        yield canonical(own["forward"])
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set and not buffer.is_meta:
            yield f"{name} {canonical(buffer.flatten()[:: max(1, buffer.numel() // 64)])}"


def _other(part: Any, name: str, parts: Mapping[str, Any]) -> Iterator[str]:
    """Describe a part that is not a network: a tokenizer, a processor or a function."""
    added: Any = getattr(part, "get_added_vocab", None)
    if added is None:
        yield _config(part) if _configured(part) else canonical(part)
        return
    tokens: dict[str, int] = added()
    limits = [getattr(part, limit, None) for limit in ("model_max_length", "padding_side", "truncation_side")]
    yield canonical([type(part).__qualname__, len(part), tokens, limits])
    encoder: Any = parts.get(name.replace("tokenizer", "text_encoder"))
    if hasattr(encoder, "get_input_embeddings"):
        weight: Tensor | None = getattr(encoder.get_input_embeddings(), "weight", None)
        if weight is not None and not weight.is_meta:
            rows = [row for row in sorted(tokens.values()) if row < len(weight)]
            yield canonical(weight[rows])  # such as embeddings of a textual inversion


def _configured(part: Any) -> bool:
    config = getattr(part, "config", None)
    return isinstance(config, Mapping) or hasattr(config, "to_dict") or hasattr(part, "to_dict")


def _config(part: Any) -> str:
    config = getattr(part, "config", part)
    settings = config if isinstance(config, Mapping) else config.to_dict() if hasattr(config, "to_dict") else {}
    return f"{type(part).__qualname__} {canonical(settings_in(settings))}"


def _plain_in(attributes: Mapping[str, Any], private: bool = False) -> dict[str, Any]:
    """Select the settings among attributes: public ones of numbers and texts, except None, the value if never set."""
    return {
        name: _rounded(value)
        for name, value in attributes.items()
        if (private or not name.startswith("_"))
        and not (name in IGNORED or any(part in name for part in RUN_STATE))
        and value is not None
        and _plain(value)
    }


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _plain(part) for key, part in value.items())
    return value is None or isinstance(value, bool | int | float | str | torch.dtype)


def _rounded(value: Any) -> Any:
    """Round numbers, since a strength may lose its last bits when it is scaled for a call and back."""
    if isinstance(value, float):
        return _round(value)
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return {key: _rounded(part) for key, part in value.items()} if isinstance(value, dict) else value


def _round(value: float) -> float:
    return float(f"{value:.9g}")

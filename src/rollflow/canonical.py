"""Canonical texts of values: equal for equal values in any process, independent of set order and memory addresses."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEEPEST, DEEPEST_OBJECT = 100, 8
"""Deepest nesting, in all and in objects that are neither containers nor settings; beyond it only types are written."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def stable_repr(value: Any) -> str:
    """Return an object's own repr if it is complete, as for settings with plain values, else its ``canonical`` text."""
    return repr(value) if _plain(value) else canonical(value)


def _plain(value: Any) -> bool:
    """Whether the repr of a value identifies it; that of an array or a set does not."""
    if is_dataclass(value) and not isinstance(value, type):
        return all(one.repr and _plain(getattr(value, one.name, None)) for one in fields(value))
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, complex, str, bytes)


def canonical(value: Any) -> str:
    """Describe a value as text: arrays, tensors and pictures by content, callables by name, source and what they read.

    What a function reads is its defaults, its enclosed variables, and the global variables of its module that are plain
    data, tensors, arrays, networks, collections of these, or functions of the same module. Other objects are described
    by their configuration if they have one, and by their attributes otherwise.
    """
    return _described(value, (), 0)


def with_settings(name: str, owner: Any, unimportant: Container[str] = ("device", "batch_size")) -> str:
    """Return a name with the settings of an object that differ from their defaults, as ``name(setting=value, ...)``.

    A setting is a parameter of the constructor that the object keeps as an attribute of the same name.

    Args:
        name: Name of the object.
        owner: Object whose settings are listed.
        unimportant: Settings on which no result depends.
    """
    settings = []
    for setting, parameter in inspect.signature(type(owner)).parameters.items():
        value = vars(owner).get(setting, vars(owner).get(f"_{setting}", parameter.default))
        if setting not in unimportant and canonical(value) != canonical(parameter.default):
            settings.append(f"{setting}={canonical(value)}")
    return f"{name}({', '.join(settings)})" if settings else name


def digest(*contents: bytes | str) -> str:
    """Return the beginning of the SHA-256 of contents."""
    sha = hashlib.sha256()
    for content in contents:
        sha.update(content.encode() if isinstance(content, str) else content)
        sha.update(b"\0")
    return sha.hexdigest()[:16]


def _described(value: Any, within: tuple[int, ...], objects: int) -> str:
    """Describe a value as text.

    Args:
        value: Value to describe.
        within: Ids of the objects that contain it.
        objects: Number of those that are neither containers nor settings.
    """
    if isinstance(value, np.generic) and value.dtype.kind in "biufcSU":
        value = value.item()
    if value is None or (isinstance(value, bool | int | float | complex | str) and not isinstance(value, Enum)):
        return str.__repr__(value) if isinstance(value, str) else repr(value)
    known = _known(value)
    if known is not None:
        return known
    if id(value) in within or len(within) >= DEEPEST or objects >= DEEPEST_OBJECT:
        return _name(type(value))
    describe = functools.partial(_described, within=(*within, id(value)), objects=objects)
    if isinstance(value, Mapping):
        return f"{{{_joined((f'{describe(key)}: {describe(part)}' for key, part in value.items()), True)}}}"
    if isinstance(value, set | frozenset):
        return f"{{{_joined(map(describe, value), True)}}}"
    if isinstance(value, list | tuple):
        return f"[{_joined(map(describe, value))}]"
    if isinstance(value, np.ndarray):  # of objects
        return f"ndarray {value.shape} {describe(value.tolist())}"
    if isinstance(value, functools.partial):
        return f"partial({describe([value.func, value.args, value.keywords])})"
    if isinstance(value, types.MethodType | types.BuiltinMethodType) and value.__self__ is not None:
        return f"{describe(value.__self__)}.{value.__name__} {describe(getattr(value, '__func__', None))}"
    if isinstance(value, types.FunctionType):
        return _function(value, describe)
    if is_dataclass(value) and not _configured(value):
        return f"{_name(type(value))}({describe({one.name: getattr(value, one.name, None) for one in fields(value)})})"
    return _object(value, functools.partial(describe, objects=objects + 1))


def _known(value: Any) -> str | None:
    """Describe a value that contains no others; None if it may contain some."""
    if isinstance(value, np.generic):
        return repr(value)
    if isinstance(value, Enum):
        return f"{_name(type(value))}.{value.name or value.value}"
    if isinstance(value, re.Pattern):
        return f"pattern {value.pattern!r} {value.flags}"
    if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType | None):
        return None  # a method of an object
    if isinstance(value, type | types.BuiltinFunctionType | np.ufunc):
        return _name(value)
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, torch.dtype | torch.device | torch.Size | PurePath | range | slice):
        return repr(value)
    if isinstance(value, bytes | bytearray):
        return f"bytes {digest(bytes(value))}"
    if isinstance(value, nn.Module):
        buffers = [f"{name} {tuple(kept.shape)} {_content(kept)}" for name, kept in value.named_buffers()]
        return f"{_name(type(value))} {weights_digest({'': value})} {digest(_ADDRESS.sub('', repr(value)), *buffers)}"
    if isinstance(value, Tensor):
        return f"Tensor {tuple(value.shape)} {value.dtype} {_content(value)}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"ndarray {value.shape} {value.dtype} {digest(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, torch.Generator):
        return f"Generator {value.device.type} {_content(value.get_state())}"
    if all(hasattr(value, name) for name in ("tobytes", "mode", "size", "getpalette")):  # a picture
        return f"{type(value).__name__} {value.mode} {value.size} {digest(value.tobytes(), repr(value.getpalette()))}"
    return None


def _content(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "meta"
    flat = tensor.detach().cpu().contiguous().flatten()
    try:
        return digest(flat.view(torch.uint8).numpy().tobytes())
    except (RuntimeError, TypeError):  # packed, sparse, or without storage
        return digest(repr(flat))


def _joined(parts: Iterable[str], in_order: bool = False) -> str:
    return ", ".join(sorted(parts) if in_order else parts)


def _name(value: Any) -> str:
    module = getattr(value, "__module__", None) or ""
    module = "__main__" if module == "__mp_main__" else module  # its name in a spawned process
    return f"{module}:{getattr(value, '__qualname__', None) or value.__name__}"


def _function(value: types.FunctionType, describe: Callable[[Any], str]) -> str:
    """Describe a function by name, source and what it reads; a lambda by bytecode, not source."""
    try:
        text = None if value.__name__ == "<lambda>" else inspect.getsource(value)
    except (OSError, TypeError):
        text = None
    held: list[Any] = [value.__defaults__, value.__kwdefaults__]
    for cell in value.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not set yet
            held.append(None)
    read = {name: one for name, one in _globals_read(value).items() if _is_data(one, value.__module__)}
    return f"{_name(value)} {digest(text or _code(value.__code__))}{describe(held)}{describe(read) if read else ''}"


def _globals_read(function: types.FunctionType) -> dict[str, Any]:
    """Return the global variables that a function, or a function within it, reads and does not set."""
    codes, read, written = [function.__code__], set[str](), set[str]()
    for code in codes:
        for one in dis.get_instructions(code):
            if one.opname in ("LOAD_GLOBAL", "STORE_GLOBAL"):
                (read if one.opname == "LOAD_GLOBAL" else written).add(one.argval)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    names = sorted((read - written) & function.__globals__.keys())
    return {name: function.__globals__[name] for name in names if not name.startswith("__")}


def _is_data(value: Any, module: str | None, depth: int = 0) -> bool:
    """Whether a global variable is a value that decides what a function of this module does, rather than a tool."""
    if isinstance(value, types.FunctionType):
        return value.__module__ == module
    if isinstance(value, Mapping):
        return depth < DEEPEST and all(_is_data(one, module, depth + 1) for one in (*value, *value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return depth < DEEPEST and all(_is_data(one, module, depth + 1) for one in value)
    plain = bool | int | float | complex | str | bytes | Enum | np.generic | np.ndarray | Tensor | nn.Module
    return value is None or isinstance(
        value, plain | torch.dtype | torch.device | torch.Size | range | slice | PurePath
    )


def _code(code: types.CodeType) -> str:
    constants = [_code(one) if isinstance(one, types.CodeType) else canonical(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"


def _configured(value: Any) -> bool:
    return isinstance(getattr(value, "config", None), Mapping)


def _object(value: Any, describe: Callable[[Any], str]) -> str:
    name = _name(type(value))
    if _configured(value):
        return f"{name}({describe(settings_in(value.config))})"
    own: Any = type(value).__repr__
    opaque = not callable(value) or type(value).__module__ in ("operator", "_operator")
    if own is not object.__repr__ and opaque and not _ADDRESS.search(repr(value)):
        return f"{name} {value!r}"
    slots = [slot for kind in type(value).__mro__ for slot in _slots(kind) if hasattr(value, slot)]
    held = {slot: getattr(value, slot) for slot in slots} | getattr(value, "__dict__", {})
    return f"{name}({describe(held)})" if held or not slots else name


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [slot for slot in slots if not slot.startswith("__")]


def settings_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a configuration of diffusers or transformers, without its origin and release."""
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in ("transformers_version", "dtype", "torch_dtype", "name_or_path")
    }


def weights_digest(networks: Mapping[str, nn.Module]) -> str:
    """Return the beginning of a SHA-256 of weights as they are in memory: names, shapes and a sample of the numbers.

    Training or merging changes nearly all numbers of a weight, and an adapter adds weights, so 64 numbers of each are
    enough; reading all would take as long as loading them. Weights that ``accelerate`` keeps elsewhere are looked up
    there. If the numbers of a weight cannot be read, only its name and shape count.
    """
    sha = hashlib.sha256()
    for part, network in sorted(networks.items()):
        for prefix, module in network.named_modules():
            for name, weight in module.named_parameters(recurse=False):
                whole = f"{part}.{prefix}.{name}".replace("_orig_mod.", "")  # of a compiled module
                sha.update(f"{whole} {tuple(weight.shape)}".encode())
                sha.update(_numbers(module, name, weight))
    return sha.hexdigest()[:12]


def _numbers(module: nn.Module, name: str, weight: Tensor) -> bytes:
    """Sample the numbers of a weight, or of the one that a hook of ``accelerate`` substitutes when the module runs."""
    try:
        kept: Tensor = module._hf_hook.weights_map[name] if weight.is_meta else weight  # type: ignore[union-attr,index]
        values = kept.detach().reshape(-1)
        return values[:: max(1, len(values) // 64)][:64].double().cpu().numpy().tobytes()
    except Exception:  # packed or offloaded in a way that is not known here: name and shape must suffice
        return b""

"""Values as texts that are the same for the same value, in any process: no order of a set, no address in memory."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import types
from collections.abc import Container, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEEPEST = 8
"""Of what lies deeper within an object only the type is told."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def stable_repr(value: Any) -> str:
    """An object's own repr, or where that holds an address in memory, ``canonical``."""
    text = repr(value)
    return canonical(value) if _ADDRESS.search(text) else text


def canonical(value: Any) -> str:
    """A value as a text: arrays, tensors and pictures by content, callables by name, source and what they hold.

    Objects are told by their configuration, else by their attributes.
    """
    return _told(value, ())


def with_settings(name: str, made: Any, unimportant: Container[str] = ("device", "batch_size")) -> str:
    """A name, and the settings of an object's constructor that it keeps under their names and that are not the usual.

    Args:
        name: Of what it is.
        made: The object.
        unimportant: Settings on which no result depends.
    """
    told = []
    for setting, parameter in inspect.signature(type(made)).parameters.items():
        value = vars(made).get(setting, vars(made).get(f"_{setting}", parameter.default))
        if setting not in unimportant and canonical(value) != canonical(parameter.default):
            told.append(f"{setting}={canonical(value)}")
    return f"{name}({', '.join(told)})" if told else name


def digest(*contents: bytes | str) -> str:
    """The beginning of a SHA-256."""
    told = hashlib.sha256()
    for content in contents:
        told.update(content.encode() if isinstance(content, str) else content)
        told.update(b"\0")
    return told.hexdigest()[:16]


def _told(value: Any, within: tuple[int, ...]) -> str:
    if value is None or (isinstance(value, bool | int | float | complex | str) and not isinstance(value, Enum)):
        return str.__repr__(value) if isinstance(value, str) else repr(value)
    known = _known(value)
    if known is not None:
        return known
    if id(value) in within or len(within) >= DEEPEST:
        return _name(type(value))
    inside = (*within, id(value))
    if isinstance(value, Mapping):
        return f"{{{_joined((f'{_told(key, inside)}: {_told(part, inside)}' for key, part in value.items()), True)}}}"
    if isinstance(value, set | frozenset):
        return f"{{{_joined((_told(part, inside) for part in value), True)}}}"
    if isinstance(value, list | tuple):
        return f"[{_joined(_told(part, inside) for part in value)}]"
    if isinstance(value, functools.partial):
        return f"partial({_told([value.func, value.args, value.keywords], inside)})"
    if isinstance(value, types.MethodType):
        return f"{_told(value.__self__, inside)}.{_told(value.__func__, inside)}"
    if isinstance(value, types.FunctionType):
        return _function(value, inside)
    return _object(value, inside)


def _known(value: Any) -> str | None:
    """What needs no look inside."""
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, Enum):
        return f"{_name(type(value))}.{value.name}"
    if isinstance(value, type | types.BuiltinFunctionType | np.ufunc):
        return _name(value)
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, torch.dtype | torch.device | torch.Size | PurePath | range | slice):
        return repr(value)
    if isinstance(value, bytes | bytearray):
        return f"bytes {digest(bytes(value))}"
    if isinstance(value, nn.Module):
        from rollflow.models.loading import weights_digest  # where models' own identities are made of this

        return f"{_name(type(value))} {weights_digest({'': value})}"
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
    flat = tensor.detach().cpu().contiguous().flatten()
    try:
        return digest(flat.view(torch.uint8).numpy().tobytes())
    except (RuntimeError, TypeError):  # packed, sparse, or without storage
        return digest(repr(flat))


def _joined(parts: Iterable[str], in_order: bool = False) -> str:
    return ", ".join(sorted(parts) if in_order else parts)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', None) or ''}:{getattr(value, '__qualname__', None) or value.__name__}"


def _function(value: types.FunctionType, inside: tuple[int, ...]) -> str:
    """By name, source, defaults and the variables that it encloses; a lambda's source is its code."""
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
    return f"{_name(value)} {digest(text or _code(value.__code__))}{_told(held, inside)}"


def _code(code: types.CodeType) -> str:
    constants = [_code(one) if isinstance(one, types.CodeType) else canonical(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"


def _object(value: Any, inside: tuple[int, ...]) -> str:
    name = _name(type(value))
    config = getattr(value, "config", None)
    if isinstance(config, Mapping):
        return f"{name}({_told(settings_in(config), inside)})"
    if is_dataclass(value):
        return f"{name}({_told({one.name: getattr(value, one.name, None) for one in fields(value)}, inside)})"
    own: Any = type(value).__repr__
    if own is not object.__repr__ and not callable(value) and not _ADDRESS.search(repr(value)):
        return f"{name} {value!r}"
    slots = [slot for kind in type(value).__mro__ for slot in _slots(kind) if hasattr(value, slot)]
    held = {slot: getattr(value, slot) for slot in slots} | getattr(value, "__dict__", {})
    return f"{name}({_told(held, inside)})" if held or not slots else name


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [slot for slot in slots if not slot.startswith("__")]


def settings_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration of diffusers or transformers sets: not where it was read, nor by which release."""
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in ("transformers_version", "dtype", "torch_dtype", "name_or_path")
    }

"""Packing of states: a tree of JSON types, which names their classes, and separate tensors."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

import safetensors.torch
import torch
from jaxtyping import AbstractArray
from torch import Tensor


def class_names(states: Iterable[type]) -> dict[str, type]:
    """Map classes by their names in a file, without the module for classes of this package, which may be moved."""
    return {_name(kind): kind for kind in states}


def _name(kind: type) -> str:
    own = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return kind.__qualname__ if own else f"{kind.__module__}:{kind.__qualname__}"


class Packing:
    """Converts states to trees.

    Args:
        states: Classes of the states, by name.

    Attributes:
        tensors: Tensors of the states, by the names that the trees have for them.
    """

    def __init__(self, states: dict[str, type]) -> None:
        self._names = {kind: name for name, kind in states.items()}
        self.tensors: dict[str, Tensor] = {}

    def tree(self, value: Any) -> Any:
        """Convert a value to a tree.

        Raises:
            TypeError: If the value contains anything but states, tensors and plain values.
        """
        kind = type(value)
        if kind in self._names:
            named = {f: self.tree(getattr(value, f)) for f in _fields(kind)}
            return {"class": self._names[kind], "fields": named}
        if (is_dataclass(value) and not isinstance(value, type)) or hasattr(value, "_asdict"):
            raise TypeError(
                f"{kind.__name__} cannot be saved: name it in the 'states' of the search that keeps it in its state"
            )
        if isinstance(value, Tensor):
            name = str(len(self.tensors))
            self.tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name, "host": value.device.type == "cpu"}
        if isinstance(value, tuple | list):
            return [self.tree(part) for part in value]
        if isinstance(value, dict):
            return {"dict": [[self.tree(key), self.tree(part)] for key, part in value.items()]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{kind.__name__} cannot be saved; a state holds declared classes, tensors and plain values")


class Unpacking:
    """Converts trees back to states.

    Args:
        states: Classes that may be created, by name.
        tensors: Tensors of the trees, in the safetensors format.
        device: Device of the tensors that were not in the host's memory; None leaves them there.
    """

    def __init__(self, states: dict[str, type], tensors: bytes, device: torch.device | None) -> None:
        self._states, self._tensors, self._device = states, safetensors.torch.load(tensors), device

    def value(self, tree: Any) -> Any:
        """Convert a tree to its value.

        Raises:
            ValueError: If it contains anything that ``Packing`` does not write.
        """
        if isinstance(tree, list):
            return tuple(map(self.value, tree))
        if not isinstance(tree, dict):
            return tree
        if tree.keys() == {"class", "fields"} and isinstance(tree["fields"], dict):
            return self._state(tree["class"], tree["fields"])
        if tree.keys() == {"tensor", "host"}:
            return self._tensor(tree["tensor"], tree["host"])
        if tree.keys() == {"dict"}:
            return {self.value(key): self.value(part) for key, part in tree["dict"]}
        raise ValueError(f"it holds an entry of {', '.join(sorted(tree)) or 'nothing'}")

    def _state(self, name: Any, parts: dict[str, Any]) -> Any:
        kind = self._states.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ValueError(f"it holds a {name!r:.80}, which is not a state of its search")
        known = _fields(kind)
        missing = [f for f, has_default in known.items() if not has_default and f not in parts]
        wrong = [*(f for f in parts if f not in known), *missing]
        if wrong:
            raise ValueError(f"the fields of its {kind.__name__} are not that class's: {', '.join(wrong)[:80]}")
        annotations, values = _annotations(kind), {f: self.value(part) for f, part in parts.items()}
        for f, value in values.items():
            if not _fits(value, annotations.get(f, Any)):
                raise ValueError(f"'{f}' of its {kind.__name__} is a {type(value).__name__}")
        return kind(**values)

    def _tensor(self, name: Any, host: Any) -> Tensor:
        if not isinstance(name, str) or name not in self._tensors:
            raise ValueError(f"it names a tensor {name!r:.80} that it does not hold")
        return self._tensors[name] if host is True else self._tensors[name].to(self._device or "cpu")


def _fields(kind: Any) -> dict[str, bool]:
    """Whether each field of a dataclass or named tuple has a default, by name."""
    if is_dataclass(kind):
        of_constructor = [f for f in fields(kind) if f.init]
        return {f.name: f.default is not MISSING or f.default_factory is not MISSING for f in of_constructor}
    return {name: name in kind._field_defaults for name in kind._fields}


def _annotations(kind: type) -> dict[str, Any]:
    """Annotations of a class's fields; none if they name something that only type checkers import."""
    try:
        return get_type_hints(kind)
    except Exception:
        return {}


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value has the annotated type, as far as annotations of states go."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(part, inner[0]) for part in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if annotation is Any:
        return True
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return isinstance(value, annotation.array_type)  # its shape is compared with the model's later
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return type(value) in (int, float)
    if annotation in (int, bool, str):
        return type(value) is annotation
    return not isinstance(annotation, type) or origin is not None or isinstance(value, annotation)

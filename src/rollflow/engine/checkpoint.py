"""Where a job stands between two steps as a file, so that a killed run goes on inside a prompt."""

from __future__ import annotations

import importlib
import io
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rollflow.engine.standing import Checkpoint
from rollflow.errors import BadCheckpoint
from rollflow.prompts import Prompt
from rollflow.sharing import mark

if TYPE_CHECKING:
    from rollflow.engine.job import Job

_VERSION = 2


def fingerprint(job: Job) -> dict[str, str]:
    """What must be the same for a checkpoint to fit a job."""
    asked = {"asked": str(job.task.prompt.ask)} if isinstance(job.task.prompt, Prompt) else {}
    return {
        "prompt": str(job.task.prompt),
        **asked,
        "model": job.task.model.identity,
        "reward": job.task.reward.identity,
        "search": repr(job.search),
        "sampler": repr(job.sampler),
        "nfe": str(job.nfe),
        "seed": str(job.seed),
    }


def save_checkpoint(job: Job, checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all: tensors and plain values, no pickled objects.

    Raises:
        OSError: If the file cannot be written.
    """
    content = {"version": _VERSION, "job": fingerprint(job), "checkpoint": _packed(checkpoint)}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    part = path.with_name(f"{path.name}.{mark()}.part")
    try:
        part.write_bytes(buffer.getvalue())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(job: Job, path: Path) -> Checkpoint:
    """Read the checkpoint of a job.

    Raises:
        BadCheckpoint: If the file is missing or damaged, or another job's, whose differences are named.
    """
    try:
        content = torch.load(path, weights_only=True)
        version, theirs = content["version"], content["job"]
    except FileNotFoundError:
        raise BadCheckpoint(f"there is no '{path}' to go on from: no run was stopped there") from None
    except Exception as error:
        raise BadCheckpoint(f"'{path}' is no checkpoint that can be read: {error}") from error
    if version != _VERSION:
        raise BadCheckpoint(f"'{path}' has version {version}; this release reads version {_VERSION}")
    ours = fingerprint(job)
    keys = dict.fromkeys([*ours, *theirs])
    different = [f"{key} was {theirs.get(key)}, is {ours.get(key)}" for key in keys if theirs.get(key) != ours.get(key)]
    if different:
        raise BadCheckpoint(f"'{path}' belongs to another job: {'; '.join(different)}")
    checkpoint = _unpacked(content["checkpoint"], ("rollflow", type(job.search).__module__))
    assert isinstance(checkpoint, Checkpoint)
    return checkpoint


def _packed(value: Any) -> Any:
    """A tree of dataclasses and named tuples as plain dicts that name their class."""
    if is_dataclass(value) and not isinstance(value, type):
        return _tagged(value, {field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _tagged(value, value._asdict())
    if isinstance(value, tuple | list):
        return [_packed(part) for part in value]
    if isinstance(value, dict):
        return {"": "dict", "items": [[_packed(key), _packed(part)] for key, part in value.items()]}
    if value is None or isinstance(value, Tensor | bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot be saved; a state holds dataclasses, named tuples and tensors")


def _tagged(value: Any, parts: dict[str, Any]) -> dict[str, Any]:
    kind = type(value)
    return {"": f"{kind.__module__}:{kind.__qualname__}"} | {name: _packed(part) for name, part in parts.items()}


def _unpacked(value: Any, modules: tuple[str, ...]) -> Any:
    """The tree again; only classes of the given modules, or modules within them, are made."""
    if isinstance(value, list):
        return tuple(_unpacked(part, modules) for part in value)
    if not isinstance(value, dict):
        return value
    if value[""] == "dict":
        return {_unpacked(key, modules): _unpacked(part, modules) for key, part in value["items"]}
    module, _, name = value[""].partition(":")
    if not any(module == known or module.startswith(f"{known}.") for known in modules):
        raise BadCheckpoint(f"the checkpoint holds a {name} of {module}, which its search does not use")
    kind: Any = importlib.import_module(module)
    for part in name.split("."):
        kind = getattr(kind, part)
    return kind(**{field: _unpacked(part, modules) for field, part in value.items() if field})

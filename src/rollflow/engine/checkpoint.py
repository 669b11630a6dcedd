"""Where a job stands between two steps as a file, so that a killed run goes on inside a prompt.

The file holds no code and names none that is run. Its first line says what it is and the version of its format, its
second is the SHA-256 of all that follows: a JSON text of the job and the state, preceded by its length in 8 bytes, and
the tensors in the safetensors format. A class is looked up by its name among those that the search declares
(``Search.states``) and those of the engine, and nowhere else; its fields must be the class's own and of their types.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import safetensors.torch
import torch
from torch import Tensor

from rollflow.canonical import stable_repr
from rollflow.engine.meter import Spending
from rollflow.engine.state import Checkpoint, Point, PopulationState
from rollflow.errors import BadCheckpoint
from rollflow.files.atomic import open_regular, write
from rollflow.prompts import Prompt
from rollflow.search.propagator import Finished, Particles, Progress

if TYPE_CHECKING:
    from rollflow.engine.job import Job

_VERSION = 3
_TITLE = b"rollflow checkpoint "
_HEAD = re.compile(rb"rollflow checkpoint ([0-9]{1,9})\n([0-9a-f]{64})\n")
_HEAD_BYTES = 128
_MOST_TEXT, _MOST_BYTES, _PIECE = 1 << 26, 1 << 34, 1 << 20
_MOST_SPENT = 1 << 53
_STATES: tuple[type, ...] = (Checkpoint, PopulationState, Spending, Point, Progress, Particles, Finished)


def fingerprint(job: Job) -> dict[str, str]:
    """What must be the same for a checkpoint to fit a job."""
    asked = {"asked": str(job.task.prompt.ask)} if isinstance(job.task.prompt, Prompt) else {}
    return {
        "prompt": str(job.task.prompt),
        **asked,
        "model": job.task.model.identity,
        "reward": job.task.reward.identity,
        "search": stable_repr(job.search),
        "sampler": stable_repr(job.sampler),
        "nfe": str(job.nfe),
        "seed": str(job.seed),
    }


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Where the fingerprints of two jobs differ, in words."""
    keys = dict.fromkeys([*ours, *theirs])
    return [f"{key} was {theirs.get(key)}, is {ours.get(key)}" for key in keys if theirs.get(key) != ours.get(key)]


def save_checkpoint(job: Job, checkpoint: Checkpoint, path: Path, of: Mapping[str, str] | None = None) -> None:
    """Write a checkpoint, whole or not at all; it is on disk when this returns.

    Args:
        job: Whose it is.
        checkpoint: Where the job stands.
        path: Of the file.
        of: ``fingerprint`` of the job, for who saves it many times: that of a model may take a digest of its weights.
            None asks for it.

    Raises:
        OSError: If the file cannot be written.
        TypeError: If the state holds what no checkpoint can, such as a class that the search does not declare.
    """
    packing = _Packing(_states(job))
    told = {"job": dict(of or fingerprint(job)), "checkpoint": packing.tree(checkpoint)}
    text = json.dumps(told).encode()
    if len(text) > _MOST_TEXT:
        raise TypeError(f"the state's plain values take {len(text):,} bytes of {_MOST_TEXT:,}; keep them in tensors")
    body = len(text).to_bytes(8, "little") + text + safetensors.torch.save(packing.tensors)
    head = b"%s%d\n%s\n" % (_TITLE, _VERSION, hashlib.sha256(body).hexdigest().encode())
    write(path.parent, {path.name: head + body})


def read_job(path: Path) -> dict[str, str]:
    """The fingerprint of the job whose checkpoint a file is.

    Raises:
        BadCheckpoint: If the file is missing or damaged, or not a checkpoint of this release.
    """
    return _read(path)[0]


def load_checkpoint(job: Job, path: Path) -> Checkpoint:
    """Read the checkpoint of a job.

    Nothing but states of the engine and of the job's search is made, whatever the file says; a file that was changed
    after it was written, by a single bit, is refused.

    Raises:
        BadCheckpoint: If the file is missing or damaged, or another job's, whose differences are named.
    """
    theirs, tree, tensors = _read(path, tensors=True)
    different = differences(theirs, fingerprint(job))
    if different:
        raise BadCheckpoint(f"'{path}' belongs to another job: {'; '.join(different)}")
    try:
        checkpoint = _Unpacking(_states(job), tensors, job.task.model.device).value(tree)
        if not isinstance(checkpoint, Checkpoint):
            raise ValueError(f"it holds a {type(checkpoint).__name__}, not a Checkpoint")
        _check(job, checkpoint)
    except Exception as error:
        raise BadCheckpoint(f"'{path}' is no checkpoint that can be used: {error}") from error
    return checkpoint


def _read(path: Path, *, tensors: bool = False) -> tuple[dict[str, str], Any, bytes]:
    """The fingerprint of a checkpoint's job, its state as JSON, and its tensors if asked for, not yet unpacked.

    The file is read piece by piece for its checksum, and only what that vouches for is held in memory.
    """
    try:
        with open_regular(path, _MOST_BYTES) as file:
            head = _head(file.read(_HEAD_BYTES))
            file.seek(head.end())
            digest, length = hashlib.sha256(), 0
            while piece := file.read(_PIECE):
                digest.update(piece)
                length += len(piece)
            if digest.hexdigest().encode() != head[2]:
                raise ValueError("it was cut short or changed after it was written, as its checksum tells")
            file.seek(head.end())
            size = int.from_bytes(file.read(8), "little")
            if size > min(length - 8, _MOST_TEXT):
                raise ValueError(f"its text would have {size:,} bytes")
            told = json.loads(file.read(size))
            content = file.read() if tensors else b""
        job, tree = told["job"], told["checkpoint"]
        if not isinstance(job, dict) or not all(isinstance(part, str) for part in (*job, *job.values())):
            raise ValueError("its description of the job is not a mapping of texts")
    except FileNotFoundError:
        raise BadCheckpoint(f"there is no '{path}' to go on from: no run was stopped there") from None
    except Exception as error:
        raise BadCheckpoint(
            f"'{path}' is no checkpoint that can be read: {error}; without it the run begins anew"
        ) from error
    return job, tree, content


def _head(content: bytes) -> re.Match[bytes]:
    """The first two lines of a checkpoint.

    Raises:
        ValueError: If they are not those of this version.
    """
    head = _HEAD.match(content)
    if head is None and content.startswith(b"PK"):
        raise ValueError("an earlier release of rollflow wrote it (version 2), or another program")
    if head is None:
        raise ValueError("it is damaged, or no file of rollflow")
    if int(head[1]) != _VERSION:
        raise ValueError(f"it has version {int(head[1])}, and this release reads version {_VERSION}")
    return head


def is_checkpoint(path: Path) -> bool:
    """Whether a file begins as a checkpoint does, of any version of this format."""
    try:
        with open_regular(path, _MOST_BYTES) as file:
            return _HEAD.match(file.read(_HEAD_BYTES)) is not None
    except (OSError, ValueError):
        return False


def _states(job: Job) -> dict[str, type]:
    """Every class that a checkpoint of a job may hold, by its name in the file."""
    own = [state for kind in type(job.search).__mro__ for state in vars(kind).get("states", ())]
    return {f"{kind.__module__}:{kind.__qualname__}": kind for kind in (*_STATES, *own)}


def _check(job: Job, checkpoint: Checkpoint) -> None:
    """Whether the populations are the job's in number, shape and type, and their accounts could be true.

    Raises:
        ValueError: If they are not.
    """
    shares = job.search.shares(job.dynamics, job.nfe)
    if len(checkpoint.populations) != len(shares):
        raise ValueError(f"it holds {len(checkpoint.populations)} populations, not {len(shares)}")
    if not 0 <= checkpoint.seconds < math.inf:
        raise ValueError(f"it took {checkpoint.seconds} seconds")
    for one, share in zip(checkpoint.populations, shares, strict=True):
        _check_account(one, share)
        _check_best(job, one)
        if isinstance(one.state, Finished):
            _check_finished(job, one.state)
        elif one.state is not None:
            _check_progress(job, one.state, share - one.spent.nfe)


def _check_account(one: PopulationState, share: int) -> None:
    """Whether a population can have spent and counted that."""
    if not 0 <= one.spent.nfe <= share:
        raise ValueError(f"a population has spent {one.spent.nfe} of {share} NFE")
    for name, amount in (*vars(one.spent).items(), *one.ineligible.items()):
        if not 0 <= amount <= _MOST_SPENT:
            raise ValueError(f"its account has {amount} of '{name:.50}'")


def _check_best(job: Job, one: PopulationState) -> None:
    """Whether the best sample is the last of its rises, which are rises."""
    if (one.best is None) != (not one.rises):
        raise ValueError("a best sample has no place in the account")
    before = Point(0, -math.inf)
    for point in one.rises:
        if not (before.nfe <= point.nfe <= one.spent.nfe and before.reward < point.reward < math.inf):
            raise ValueError(f"the reward rises from {before.reward} to {point.reward} at {point.nfe} NFE")
        before = point
    if one.best is not None:
        _check_finished(job, one.best)
        if one.best.reward != before.reward:
            raise ValueError(f"the reward of its best sample is {one.best.reward}, not {before.reward}")
        if not one.best.x0.isfinite().all():
            raise ValueError("its best sample has values that are not finite")
    if one.seen is not None and (one.seen.ndim != 2 or one.seen.shape[1] != len(job.task.reward.parts)):
        raise ValueError(f"scores of shape {tuple(one.seen.shape)} are not of {len(job.task.reward.parts)} rewards")


def _check_finished(job: Job, finished: Finished) -> None:
    _check_tensor(job, "a sample", finished.x0, ())
    if not -math.inf <= finished.reward < math.inf or not 0 <= finished.noise_level <= 1:
        raise ValueError(f"a sample has reward {finished.reward} and noise level {finished.noise_level}")


def _check_progress(job: Job, state: Progress, left: int) -> None:
    """Whether particles are of the model, and may go on for as long as they say."""
    if not 0 <= state.nfe_left <= left or not 0 <= state.nfe_spent <= _MOST_SPENT or state.step < 0:
        raise ValueError(f"a population at step {state.step} has {state.nfe_left} NFE left, of {left}")
    particles, rows = state.particles, len(state.particles.reward)
    for name, part in particles._asdict().items():
        if name == "reward":
            if part.shape != (rows,) or part.dtype != torch.float64 or (part == math.inf).any():
                raise ValueError(f"rewards of shape {tuple(part.shape)} and {part.dtype}, or that are infinite")
        elif part is not None:
            _check_tensor(job, f"'{name}' of its particles", part, (rows,))
    if state.ancestors is not None and (state.ancestors.shape != (rows,) or state.ancestors.dtype != torch.int64):
        raise ValueError(f"ancestors of shape {tuple(state.ancestors.shape)} are not those of {rows} particles")


def _check_tensor(job: Job, what: str, tensor: Tensor, rows: tuple[int, ...]) -> None:
    model = job.task.model
    if tuple(tensor.shape) != (*rows, *model.shape) or tensor.dtype != model.dtype:
        raise ValueError(
            f"{what} has shape {tuple(tensor.shape)} and {tensor.dtype}, not {(*rows, *model.shape)} and {model.dtype}"
        )


class _Packing:
    """A tree of states as JSON's own types, which name their classes, and its tensors apart.

    Args:
        states: Classes that may be in it, by name.

    Attributes:
        tensors: Those found, by the names that the tree has for them.
    """

    def __init__(self, states: Mapping[str, type]) -> None:
        self._names = {kind: name for name, kind in states.items()}
        self.tensors: dict[str, Tensor] = {}

    def tree(self, value: Any) -> Any:
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


class _Unpacking:
    """The states of a tree again.

    Args:
        states: Classes that may be in it, by name.
        tensors: Its tensors, as safetensors.
        device: Where those go that were not in the host's memory; None keeps them there.
    """

    def __init__(self, states: Mapping[str, type], tensors: bytes, device: torch.device | None) -> None:
        self._states, self._tensors, self._device = states, safetensors.torch.load(tensors), device

    def value(self, tree: Any) -> Any:
        """What a tree stands for.

        Raises:
            ValueError: If it holds anything that ``_Packing`` does not write.
        """
        if isinstance(tree, list):
            return tuple(map(self.value, tree))
        if not isinstance(tree, dict):
            return tree
        if tree.keys() == {"class", "fields"} and isinstance(tree["fields"], dict):
            return self._made(tree["class"], tree["fields"])
        if tree.keys() == {"tensor", "host"}:
            return self._tensor(tree["tensor"], tree["host"])
        if tree.keys() == {"dict"}:
            return {self.value(key): self.value(part) for key, part in tree["dict"]}
        raise ValueError(f"it holds an entry of {', '.join(sorted(tree)) or 'nothing'}")

    def _made(self, name: Any, told: dict[str, Any]) -> Any:
        kind = self._states.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ValueError(f"it holds a {name!r:.80}, which is no state of its search")
        known = _fields(kind)
        odd = [*(f for f in told if f not in known), *(f for f, given in known.items() if not given and f not in told)]
        if odd:
            raise ValueError(f"the fields of its {kind.__name__} are not that class's: {', '.join(odd)[:80]}")
        annotations, made = _annotations(kind), {f: self.value(part) for f, part in told.items()}
        for f, value in made.items():
            if not _fits(value, annotations.get(f, Any)):
                raise ValueError(f"'{f}' of its {kind.__name__} is a {type(value).__name__}")
        return kind(**made)

    def _tensor(self, name: Any, host: Any) -> Tensor:
        if not isinstance(name, str) or name not in self._tensors:
            raise ValueError(f"it names a tensor {name!r:.80} that it does not hold")
        return self._tensors[name] if host is True else self._tensors[name].to(self._device or "cpu")


def _fields(kind: Any) -> dict[str, bool]:
    """Fields of a dataclass or named tuple; whether each has a default."""
    if is_dataclass(kind):
        made = [f for f in fields(kind) if f.init]
        return {f.name: f.default is not MISSING or f.default_factory is not MISSING for f in made}
    return {name: name in kind._field_defaults for name in kind._fields}


def _annotations(kind: type) -> dict[str, Any]:
    """Annotations of a class's fields; none where they name what is only imported for type checkers."""
    try:
        return get_type_hints(kind)
    except Exception:
        return {}


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of the annotated type, as far as states' annotations go."""
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
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return type(value) in (int, float)
    if annotation in (int, bool, str):
        return type(value) is annotation
    return not isinstance(annotation, type) or origin is not None or isinstance(value, annotation)

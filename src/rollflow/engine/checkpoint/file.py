"""Checkpoint files: the state of a job between two steps, from which a killed run continues within a prompt.

The file contains no code and names none to run. Its first line states its kind and the version of its format, its
second is the SHA-256 of all that follows: a JSON text of the job and the state, preceded by its length in 8 bytes, and
the tensors in the safetensors format. A class is looked up by its name among those that the search declares
(``Search.states``) and those of the engine, and nowhere else; its fields must have the class's names and types.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch

from rollflow.canonical import stable_repr
from rollflow.engine.checkpoint.checks import check_fits
from rollflow.engine.checkpoint.packing import Packing, Unpacking, class_names
from rollflow.engine.checkpoint.version3 import upgraded
from rollflow.engine.final_choice import FinalChoice, Shortlist
from rollflow.engine.meter import Spending
from rollflow.engine.state import Checkpoint, Point, PopulationState
from rollflow.errors import BadCheckpoint
from rollflow.files.atomic import open_regular, write
from rollflow.prompts import Prompt
from rollflow.search.propagator import Finished, Particles, Progress

if TYPE_CHECKING:
    from rollflow.engine.job import Job

_VERSION, _READ = 4, (3, 4)
_TITLE = b"rollflow checkpoint "
_HEAD = re.compile(rb"rollflow checkpoint ([0-9]{1,9})\n([0-9a-f]{64})\n")
_HEAD_BYTES = 128
_MOST_TEXT, _MOST_BYTES, _PIECE = 1 << 26, 1 << 34, 1 << 20
_STATES: tuple[type, ...] = (Checkpoint, PopulationState, Shortlist, Spending, Point, Progress, Particles, Finished)
_MODULE = re.compile(r"\brollflow(\.\w+)+:")  # of a class of this package, which may be moved


def fingerprint(job: Job) -> dict[str, str]:
    """Describe everything that must be the same for a checkpoint to fit a job."""
    surrogate = {} if job.task.surrogate is None else {"surrogate": job.task.surrogate.identity}
    choice = {} if job.task.choice is None else {"choice": _choice_text(job.task.choice)}
    asked = {"asked": str(job.task.prompt.ask)} if isinstance(job.task.prompt, Prompt) else {}
    return {
        "prompt": str(job.task.prompt),
        **asked,
        "model": job.task.model.identity,
        "reward": job.task.reward.identity,
        **surrogate,
        **choice,
        "search": setting_text(job.search),
        "sampler": setting_text(job.sampler),
        "nfe": str(job.nfe),
        "seed": str(job.seed),
    }


def _choice_text(choice: FinalChoice) -> str:
    return f"{choice.reward.identity} among {choice.shortlist}"


LATER = (", noises=True", ", keep=EachStream()", ", best_seen=False", ", finalists=1", ", recombine=False")
"""Settings that earlier releases did not have, at the values that stand for what they did."""


def setting_text(value: object) -> str:
    """Describe a search or a sampler; without such settings, so that checkpoints of earlier releases are recognized."""
    text = stable_repr(value)
    for setting in LATER:
        text = text.replace(setting, "")
    return text


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Describe the differences between the fingerprints of two jobs."""
    keys = dict.fromkeys([*ours, *theirs])
    different = [key for key in keys if _without_modules(theirs.get(key)) != _without_modules(ours.get(key))]
    return [f"{key} was {theirs.get(key)}, is {ours.get(key)}" for key in different]


def _without_modules(text: str | None) -> str | None:
    return None if text is None else _MODULE.sub("", text)


def save_checkpoint(job: Job, checkpoint: Checkpoint, path: Path, of: Mapping[str, str] | None = None) -> None:
    """Write a checkpoint, completely or not at all; it is on disk when this returns.

    Args:
        job: Job that the checkpoint belongs to.
        checkpoint: The checkpoint.
        path: Path of the file.
        of: ``fingerprint`` of the job, if it was computed before; computing it may digest the model's weights.

    Raises:
        OSError: If the file cannot be written.
        TypeError: If the state holds a value that cannot be saved, such as one of a class that the search does not
            declare.
    """
    packing = Packing(_states(job))
    content = {"job": dict(of or fingerprint(job)), "checkpoint": packing.tree(checkpoint)}
    text = json.dumps(content).encode()
    if len(text) > _MOST_TEXT:
        raise TypeError(f"the state's plain values take {len(text):,} bytes of {_MOST_TEXT:,}; keep them in tensors")
    body = len(text).to_bytes(8, "little") + text + safetensors.torch.save(packing.tensors)
    head = b"%s%d\n%s\n" % (_TITLE, _VERSION, hashlib.sha256(body).hexdigest().encode())
    write(path.parent, {path.name: head + body})


def read_job(path: Path) -> dict[str, str]:
    """Read the fingerprint of the job that a checkpoint belongs to.

    Raises:
        BadCheckpoint: If the file is missing or damaged, or is not a checkpoint that this release can read.
    """
    return _read(path)[0]


def load_checkpoint(job: Job, path: Path) -> Checkpoint:
    """Read the checkpoint of a job.

    Only states of the engine and of the job's search are created, whatever the file contains. A file in which a single
    bit was changed after it was written is refused.

    Raises:
        BadCheckpoint: If the file is missing or damaged, or belongs to another job.
    """
    theirs, tree, tensors = _read(path, tensors=True)
    different = differences(theirs, fingerprint(job))
    if different:
        raise BadCheckpoint(f"'{path}' belongs to another job: {'; '.join(different)}")
    try:
        checkpoint = Unpacking(_states(job), tensors, job.task.model.device).value(tree)
        if not isinstance(checkpoint, Checkpoint):
            raise ValueError(f"it holds a {type(checkpoint).__name__}, not a Checkpoint")
        check_fits(job, checkpoint)
    except Exception as error:
        raise BadCheckpoint(f"the checkpoint '{path}' cannot be used: {error}") from error
    return checkpoint


def _read(path: Path, *, tensors: bool = False) -> tuple[dict[str, str], Any, bytes]:
    """Read the fingerprint of the job, the tree of the state, and on request the packed tensors.

    The file is read in pieces to compute its checksum, and is held in memory only after it has passed.
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
                raise ValueError("it was truncated or changed after it was written: its checksum is wrong")
            file.seek(head.end())
            size = int.from_bytes(file.read(8), "little")
            if size > min(length - 8, _MOST_TEXT):
                raise ValueError(f"its text would have {size:,} bytes")
            text = json.loads(file.read(size))
            content = file.read() if tensors else b""
        job, tree = text["job"], text["checkpoint"]
        tree = upgraded(tree) if int(head[1]) == 3 else tree
        if not isinstance(job, dict) or not all(isinstance(part, str) for part in (*job, *job.values())):
            raise ValueError("its description of the job is not a mapping of texts")
    except FileNotFoundError:
        raise BadCheckpoint(
            f"there is no checkpoint '{path}' to resume from: the folder holds no stopped run; leave out --resume"
        ) from None
    except Exception as error:
        raise BadCheckpoint(
            f"the checkpoint '{path}' cannot be read: {error}; remove it to start the run again"
        ) from error
    return job, tree, content


def _head(content: bytes) -> re.Match[bytes]:
    """Parse the first two lines of a checkpoint.

    Raises:
        ValueError: If they are not those of a checkpoint of a known version.
    """
    head = _HEAD.match(content)
    if head is None and content.startswith(b"PK"):
        raise ValueError("it was written by an earlier release of rollflow (version 2), or by another program")
    if head is None:
        raise ValueError("it is damaged, or was not written by rollflow")
    if int(head[1]) not in _READ:
        versions = " and ".join(map(str, _READ))
        raise ValueError(f"it has version {int(head[1])}, and this release reads versions {versions}")
    return head


def is_checkpoint(path: Path) -> bool:
    """Whether a file begins like a checkpoint of any version of this format."""
    try:
        with open_regular(path, _MOST_BYTES) as file:
            return _HEAD.match(file.read(_HEAD_BYTES)) is not None
    except (OSError, ValueError):
        return False


def _states(job: Job) -> dict[str, type]:
    """List every class that a checkpoint of a job may contain, by its name in the file."""
    own = [state for kind in type(job.search).__mro__ for state in vars(kind).get("states", ())]
    return class_names((*_STATES, *own))

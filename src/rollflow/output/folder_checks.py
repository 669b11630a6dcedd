"""Checks of an output folder before a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from rollflow.engine import Job
from rollflow.engine.checkpoint.file import differences, is_checkpoint, read_job, setting_text
from rollflow.engine.result import IMAGE, job_digest, refuse_foreign
from rollflow.errors import BadCheckpoint, BadSetting
from rollflow.files.run_folder import RESULT, RunFolder
from rollflow.models import FlowModel, Source
from rollflow.output.outputs import BASELINE, FILMSTRIP, TRACE
from rollflow.rewards.base import RewardModel
from rollflow.sampler import Sampler
from rollflow.search import Search

CHECKPOINT = "checkpoint.pt"


class Planned(Protocol):
    """The part of a ``Plan`` that a run needs: its settings and its jobs."""

    @property
    def prompt(self) -> str: ...
    @property
    def nfe(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def max_grad_rows(self) -> int: ...
    @property
    def search(self) -> Search: ...
    @property
    def sampler(self) -> Sampler: ...
    @property
    def declared_model(self) -> FlowModel | type[FlowModel] | Source: ...
    @property
    def declared_reward(self) -> RewardModel | type[RewardModel]: ...
    def job(self) -> Job: ...
    def baseline(self) -> Job: ...


def check_files(out: RunFolder, plan: Planned, *, compare: bool, resume: bool) -> None:
    """Refuse a folder in which the run would replace files that are not its own, or cannot be resumed.

    Raises:
        BadSetting: If files of the user have the names of a run's files or, unless the run is resumed, if there is the
            checkpoint of a stopped run.
        BadCheckpoint: If the run is to be resumed and there is no checkpoint, or it is clear before anything is loaded
            that it belongs to another job.
    """
    folder, path = out.path, out.path / CHECKPOINT
    names = [IMAGE, TRACE, FILMSTRIP, RESULT, *([BASELINE] if compare else [])]
    unknown = os.path.lexists(path) and not is_checkpoint(path) and not resume
    refuse_foreign(out, names, [CHECKPOINT] if unknown else [])
    if resume:
        _check_resumed(out, plan)
        return
    if not os.path.lexists(path):
        return
    try:
        theirs = read_job(path)
    except BadCheckpoint as error:
        raise BadSetting(f"{error}; remove it, or choose another folder (--out)") from None
    if is_finished(out) and out.earlier is not None and out.earlier.get("job") == job_digest(theirs):
        return  # killed after its result was written: the checkpoint is no longer needed
    different = _differences(theirs, plan)
    if different:
        raise BadSetting(
            f"'{folder}' holds the checkpoint of another run that was stopped ({'; '.join(different)}); continue that "
            f"run with its own options and --resume, remove '{path}', or choose another folder (--out)"
        )
    raise BadSetting(
        f"'{folder}' holds the checkpoint of a stopped run with these options (model {theirs.get('model', '')[:80]}, "
        f"reward {theirs.get('reward', '')[:80]}); continue it with --resume, remove '{path}' to start over, or "
        "choose another folder (--out)"
    )


def _check_resumed(out: RunFolder, plan: Planned) -> None:
    """Check that a checkpoint belongs to the plan; its weights are compared later.

    Raises:
        BadCheckpoint: If the checkpoint is missing, damaged or another job's.
    """
    path, earlier = out.path / CHECKPOINT, out.earlier or {}
    ours = (str(plan.prompt), plan.seed, plan.nfe)
    if is_finished(out) and (earlier.get("prompt"), earlier.get("seed"), earlier.get("nfe_budget")) == ours:
        return  # apparently nothing is left to do
    different = _differences(read_job(path), plan)
    if different:
        raise BadCheckpoint(f"'{path}' belongs to another job: {'; '.join(different)}")


def _differences(theirs: Mapping[str, str], plan: Planned) -> list[str]:
    """List the differences between a checkpoint's job and a plan's that are known before anything is loaded."""
    ours = {
        "prompt": str(plan.prompt),
        "search": setting_text(plan.search),
        "sampler": setting_text(plan.sampler),
        "nfe": str(plan.nfe),
        "seed": str(plan.seed),
    }
    different = differences({key: theirs.get(key, "") for key in ours}, ours)
    for key, choice in (("model", plan.declared_model), ("reward", plan.declared_reward)):
        name = _own_name(choice)
        if name is not None and theirs.get(key, "").partition("(")[0] != name:
            different.append(f"{key} was {theirs.get(key, '')[:80]}, is {name}")
    return different


def _own_name(choice: Any) -> str | None:
    """Return the name at the start of the identity of rollflow's own model or reward; None if it is not known."""
    kind = choice if isinstance(choice, type) else type(choice)
    known = kind.__module__.startswith("rollflow.") and not getattr(choice, "remote", False)
    name = getattr(choice, "name", None)
    return name if known and isinstance(name, str) and not isinstance(choice, Source) else None


def is_finished(out: RunFolder) -> bool:
    """Whether the folder holds the result of a finished run."""
    earlier = out.earlier
    if earlier is None or earlier.get("interrupted", True):
        return False
    image = str(earlier.get("image"))
    return (out.path / image).exists() and not out.foreign([image])

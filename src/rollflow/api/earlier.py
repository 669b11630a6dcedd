"""Earlier runs, read from their ``result.json`` to be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rollflow import checks
from rollflow.engine import JobRecord
from rollflow.engine.record import versions
from rollflow.errors import RollflowError
from rollflow.files.documents import read_json, read_text
from rollflow.files.run_folder import RESULT

_MOST_THREADS = 1 << 10


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run, as its ``result.json`` describes it.

    Args:
        path: Path of the file.
        record: Record of the job; its plan is not empty.
        job: Digest of the job, including model and rewards; None if it is not known.
        interrupted: Whether its search ended early, so that its sample is not the one that the plan leads to.
    """

    path: Path
    record: JobRecord
    job: str | None
    interrupted: bool = False

    @contextmanager
    def as_it_ran(self) -> Iterator[None]:
        """Use the number of CPU threads of the earlier run, on which the bits of matrix products depend."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.record.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def differences(self, content: Mapping[str, Any]) -> str | None:
        """Explain why a run with the same options gave another sample; None if it gave the same, to the last bit.

        Args:
            content: Content of its ``result.json``.
        """
        if content["sha256"] == self.record.sha256:
            return None
        if self.job is not None and content["job"] != self.job:
            return "the model or one of the rewards has changed since"
        then, now = self.record.versions, versions()
        changed = [f"{name} was {then.get(name)}, is {now[name]}" for name in now if then.get(name) != now[name]]
        device = content.get("device")
        if device != self.record.device:
            changed.append(f"the device was {self.record.device}, is {device}")
        return "; ".join(changed) or "nothing else has changed, so it was probably made on another processor"


def read_run(path: Path) -> EarlierRun:
    """Read the ``result.json`` of a run, or of a folder; it may come from anyone.

    Raises:
        RollflowError: If it cannot be read, does not hold the plan of its run, or is of a version that is not known.
    """
    file = path / RESULT if path.is_dir() else path
    try:
        content = read_json(read_text(file))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or ("it is not text" if isinstance(error, UnicodeError) else error)
        raise RollflowError(f"cannot read '{file}': {why}; expected the result.json of a run") from None
    if not isinstance(content, dict):
        raise RollflowError(f"'{file}' is not the result.json of a run: expected a JSON object")
    if "version" not in content and "nfe_used" in content:
        raise RollflowError(
            f"'{file}' was written by an earlier release, which did not record all options of the run; give them "
            "yourself: prompt, model, method, reward and seed are in the file"
        )
    if "sha256" not in content:
        raise RollflowError(f"'{file}' is not the result.json of a run: it has no 'sha256'")
    try:
        record = JobRecord.from_json(content)
        plan = checks.instance("plan", record.plan, Mapping, what="an object of options by name")
        checks.whole("threads", record.threads, at_least=1, at_most=_MOST_THREADS)
        checks.instance("versions", record.versions, Mapping, what="an object of versions by name")
    except RollflowError as error:
        raise RollflowError(f"'{file}' cannot be used: {error}") from None
    if not plan:
        raise RollflowError(
            f"'{file}' does not contain the options of its run, since the job was made in Python without a Plan; "
            "repeat it in Python"
        )
    record = replace(record, plan={"surrogate": False} | dict(plan))  # earlier releases had no surrogates
    job = content.get("job")
    return EarlierRun(file, record, job if isinstance(job, str) else None, bool(content.get("interrupted", False)))

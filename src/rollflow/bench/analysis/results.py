"""Results of an experiment, finished or not: its jobs and what each of them measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from rollflow.bench.run.records import DiversityMeasurement, FailedJob, TrialRecord
from rollflow.bench.run.stored import read_stored
from rollflow.engine import JobRecord
from rollflow.errors import RollflowError
from rollflow.files.printable import printable
from rollflow.rewards import REWARDS

Cells: TypeAlias = dict[tuple[str, int], float]
"""Values of a measure by (prompt, seed)."""


class Measure(NamedTuple):
    """A quantity measured for every job.

    Args:
        name: Name of the reward, or of what was spent.
        kind: One of given, part, held out and spent.
        of: Function that returns the value of a job; None if it is missing.
        accuracy: Whether the value is 1 or 0 for a perfect or an imperfect sample, so that its mean is a share.
    """

    name: str
    kind: str
    of: Callable[[JobRecord], float | None]
    accuracy: bool = False

    @property
    def title(self) -> str:
        """Name without the kind; the same in every experiment."""
        return f"share of {self.name} = 0" if self.accuracy else self.name

    @property
    def label(self) -> str:
        """Heading of its column in a table."""
        return self.title if self.kind == "spent" else f"{self.title} ({self.kind})"


def prompt_of(record: JobRecord | TrialRecord) -> str:
    """Return a key of the job's prompt, the same in every experiment."""
    return json.dumps([record.prompt, record.ask], sort_keys=True)


@dataclass(frozen=True)
class ExperimentResults:
    """Results of an experiment.

    Args:
        name: Name of the folder or packed file.
        config: Configuration of the experiment.
        done: Records of finished jobs, in the experiment's order.
        failed: Last record of each job that failed and has not finished since.
        diversity: Measurements of diversity.
        command: Command that began the experiment; None if it was begun from Python.
        pictures: Folder that contains ``images/``; None if no pictures are kept.
    """

    name: str
    config: dict[str, Any]
    done: tuple[JobRecord, ...]
    failed: tuple[FailedJob, ...] = ()
    diversity: tuple[DiversityMeasurement, ...] = ()
    command: str | None = None
    pictures: Path | None = None

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of the tables."""
        return [arm["name"] for arm in self.config["arms"]]

    @property
    def budgets(self) -> dict[str, int]:
        """Budget in NFE of every arm that searches."""
        return {arm["name"]: arm["nfe"] for arm in self.config["arms"] if arm["nfe"] is not None}

    @property
    def first_search(self) -> str:
        """Arm that the others are compared with: the first one that searches, else the first one."""
        return [*self.budgets, *self.arms][0]

    @cached_property
    def devices(self) -> list[str]:
        """Devices that jobs ran on, if their records name them."""
        return list(dict.fromkeys(str(record.device) for record in self.done if record.device))

    @property
    def ended(self) -> list[JobRecord | FailedJob]:
        """Records of all jobs that have finished or failed."""
        return [*self.done, *self.failed]

    @property
    def expected(self) -> int:
        """Number of jobs of each arm."""
        return int(self.config["suite"]["prompts"] * self.config["seeds"])

    @cached_property
    def categories(self) -> list[str]:
        """Categories of the prompts that have finished jobs."""
        return list(dict.fromkeys(record.category for record in self.done))

    @cached_property
    def _by_arm(self) -> dict[str, list[JobRecord]]:
        by_arm: dict[str, list[JobRecord]] = {arm: [] for arm in self.arms}
        for record in self.done:
            by_arm.setdefault(record.arm, []).append(record)
        return by_arm

    def of(self, arm: str) -> list[JobRecord]:
        """Return the records of an arm's finished jobs."""
        return self._by_arm.get(arm, [])

    def cells(self, measure: Measure, arm: str, category: str | None = None) -> Cells:
        """Return the values of a measure for an arm's jobs, of one category or of all."""
        values = {
            (prompt_of(record), int(record.seed)): measure.of(record)
            for record in self.of(arm)
            if category is None or record.category == category
        }
        return {key: value for key, value in values.items() if value is not None}

    def account(self, arm: str) -> str:
        """Return how many jobs of an arm have finished and how many have failed, as text."""
        failed = sum(record.arm == arm for record in self.failed)
        return f"{len(self.of(arm))} of {self.expected}" + (f", {failed} failed" if failed else "")

    @property
    def missing(self) -> str:
        """Sentence that names the arms with unfinished jobs."""
        lacking = {arm: self.account(arm) for arm in self.arms if len(self.of(arm)) < self.expected}
        if not lacking:
            return "All jobs are done."
        alike = len(lacking) == len(self.arms) > 1 and len(set(lacking.values())) == 1
        accounts = {"each arm": lacking[self.arms[0]]} if alike else lacking
        return f"Unfinished; jobs done: {'; '.join(f'{arm} ({account})' for arm, account in accounts.items())}."

    @cached_property
    def given(self) -> Measure:
        """Reward that searches optimised."""
        return Measure(self.config["reward"], "given", lambda record: record.reward)

    @cached_property
    def held_out(self) -> list[Measure]:
        """Held-out rewards, which no search saw."""
        return self._rewards_in("held_out", "held out")

    @cached_property
    def rewards(self) -> list[Measure]:
        """All rewards, each followed by its accuracy if it has one."""
        every = [self.given, *self._rewards_in("parts", "part"), *self.held_out]
        return [one for measure in every for one in (measure, *_accuracy(measure))]

    @cached_property
    def spent(self) -> list[Measure]:
        """Costs of a job; backward passes are included if any job made some."""
        names = {"nfe": "NFE", "network_rows": "network rows", "reward_calls": "reward calls"}
        if any(record.backward_passes for record in self.done):
            names["backward_passes"] = "backward passes"
        return [Measure(name, "spent", _field(key)) for key, name in (names | {"seconds": "seconds"}).items()]

    def _rewards_in(self, where: str, kind: str) -> list[Measure]:
        names = dict.fromkeys(name for record in self.done for name in getattr(record, where))
        return [Measure(name, kind, _field(where, name)) for name in names]


def read(path: Path) -> ExperimentResults:
    """Read the results of an experiment.

    Args:
        path: A folder of ``rollflow bench run`` or a file of ``rollflow bench pack``; it need not be
            trusted.

    Raises:
        RollflowError: If it is neither, anything in it is malformed, or none of its jobs has finished.
    """
    stored = read_stored(path)
    config, index = _printable(stored.config), stored.index
    places = {arm["name"]: place for place, arm in enumerate(config["arms"])}
    if not index.done:
        raise RollflowError(f"no job of '{path}' has finished yet; resume it with 'rollflow bench run'")

    def order(record: JobRecord | TrialRecord) -> tuple[int, ...]:
        return record.seed, record.place, places[record.arm]

    done = [_without_some_steps(JobRecord.from_json(_printable(record))) for record in index.done.values()]
    over = {*index.done, *index.rounds}
    failed = [
        FailedJob.from_json(_printable(one))
        for name, one in index.failed.items()
        if over.isdisjoint((name, name.partition("-")[0]))  # a round's job may have ended with its other rounds
    ]
    measured = [DiversityMeasurement.from_json(_printable(one)) for one in index.diversity.values()]
    command = None if stored.command is None else printable(stored.command)
    return ExperimentResults(
        stored.name,
        config,
        tuple(sorted(done, key=order)),
        tuple(sorted(failed, key=order)),
        tuple(sorted(measured, key=order)),
        command,
        stored.pictures,
    )


def _printable(content: Any) -> Any:
    """Return a JSON value with control characters escaped in every string, so that no table, figure or page has any."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, dict):
        return {printable(key): _printable(part) for key, part in content.items()}
    return [_printable(part) for part in content] if isinstance(content, list) else content


def _without_some_steps(record: JobRecord) -> JobRecord:
    """Drop the steps of a resumed job: only the last ones are known, so that shares cannot be computed."""
    return replace(record, ancestors=None, quota=()) if record.resumed else record


def _field(*path: str) -> Callable[[JobRecord], float | None]:
    def of(record: JobRecord) -> float | None:
        value = getattr(record, path[0])
        for name in path[1:]:
            value = value.get(name)
        return value  # type: ignore[no-any-return]

    return of


def _accuracy(measure: Measure) -> list[Measure]:
    def of(record: JobRecord) -> float | None:
        value = measure.of(record)
        return None if value is None else float(value == 0)

    return [measure._replace(of=of, accuracy=True)] if _zero_is_perfect(measure.name) else []


def _zero_is_perfect(reward: str) -> bool:
    """Return whether a reward of 0 means a perfect sample; only the library's own rewards are looked up."""
    try:
        kind = REWARDS.named(reward.partition("(")[0].strip(), plugins=False).kind
        return bool(getattr(kind, "zero_is_perfect", False))
    except RollflowError:
        return False

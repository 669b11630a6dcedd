"""An experiment folder, finished or not, as what is asked of it: which jobs there are, and what each measured."""

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
"""A number for each (prompt, seed)."""


class Measure(NamedTuple):
    """A number that every job has.

    Args:
        name: Of the reward, or of what was spent.
        kind: given, part, held out or spent.
        of: The number of a job; None where it could not be had.
        accuracy: Whether it says if all is as asked for: its mean is a share.
    """

    name: str
    kind: str
    of: Callable[[JobRecord], float | None]
    accuracy: bool = False

    @property
    def title(self) -> str:
        """Its name alone, which the same number has in another experiment."""
        return f"share of {self.name} = 0" if self.accuracy else self.name

    @property
    def label(self) -> str:
        """As over a column."""
        return self.title if self.kind == "spent" else f"{self.title} ({self.kind})"


def prompt_of(record: JobRecord | TrialRecord) -> str:
    """What tells the prompt of a job from all others, in this experiment and in any other."""
    return json.dumps([record.prompt, record.ask], sort_keys=True)


@dataclass(frozen=True)
class ExperimentResults:
    """What a folder holds.

    Args:
        name: Of the folder.
        config: How it was set up.
        done: Entries of the jobs that are done, in the experiment's order.
        failed: The last entry of each that failed and was not done since.
        diversity: Entries of what was measured beside the jobs.
        command: That began it; None where it was none.
        pictures: Folder with ``images/``; None if no pictures are kept.
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
        """Names, in the order of the tables."""
        return [arm["name"] for arm in self.config["arms"]]

    @property
    def budgets(self) -> dict[str, int]:
        """Of these, those that search, each with its budget in NFE."""
        return {arm["name"]: arm["nfe"] for arm in self.config["arms"] if arm["nfe"] is not None}

    @property
    def first_search(self) -> str:
        """The arm that the others are held against: the first that searches, if any does."""
        return [*self.budgets, *self.arms][0]

    @cached_property
    def devices(self) -> list[str]:
        """That jobs ran on, as far as their entries say."""
        return list(dict.fromkeys(str(record.device) for record in self.done if record.device))

    @property
    def ended(self) -> list[JobRecord | FailedJob]:
        """Records of all jobs that are done or have failed."""
        return [*self.done, *self.failed]

    @property
    def expected(self) -> int:
        """Jobs of an arm."""
        return int(self.config["suite"]["prompts"] * self.config["seeds"])

    @cached_property
    def categories(self) -> list[str]:
        """Of prompts, as far as any job of theirs is done."""
        return list(dict.fromkeys(record.category for record in self.done))

    @cached_property
    def _by_arm(self) -> dict[str, list[JobRecord]]:
        found: dict[str, list[JobRecord]] = {arm: [] for arm in self.arms}
        for record in self.done:
            found.setdefault(record.arm, []).append(record)
        return found

    def of(self, arm: str) -> list[JobRecord]:
        """The jobs of an arm that are done."""
        return self._by_arm.get(arm, [])

    def cells(self, measure: Measure, arm: str, category: str | None = None) -> Cells:
        """What a measure says of an arm's jobs, of one category or of all."""
        told = {
            (prompt_of(record), int(record.seed)): measure.of(record)
            for record in self.of(arm)
            if category is None or record.category == category
        }
        return {key: value for key, value in told.items() if value is not None}

    def account(self, arm: str) -> str:
        """How many jobs of an arm are done, and how many have failed."""
        failed = sum(record.arm == arm for record in self.failed)
        return f"{len(self.of(arm))} of {self.expected}" + (f", {failed} failed" if failed else "")

    @property
    def missing(self) -> str:
        """The arms that lack jobs, in a sentence."""
        lacking = {arm: self.account(arm) for arm in self.arms if len(self.of(arm)) < self.expected}
        if not lacking:
            return "All jobs are done."
        alike = len(lacking) == len(self.arms) > 1 and len(set(lacking.values())) == 1
        told = {"each arm": lacking[self.arms[0]]} if alike else lacking
        return f"Unfinished; jobs done: {'; '.join(f'{arm} ({account})' for arm, account in told.items())}."

    @cached_property
    def given(self) -> Measure:
        """The reward that searches optimised."""
        return Measure(self.config["reward"], "given", lambda record: record.reward)

    @cached_property
    def held_out(self) -> list[Measure]:
        """Those that none saw."""
        return self._rewards_in("held_out", "held out")

    @cached_property
    def rewards(self) -> list[Measure]:
        """All rewards, each with its accuracy where it has one."""
        every = [self.given, *self._rewards_in("parts", "part"), *self.held_out]
        return [one for measure in every for one in (measure, *_accuracy(measure))]

    @cached_property
    def spent(self) -> list[Measure]:
        """What a job costs; backward passes where there are any."""
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
        path: A folder of ``rollflow bench run`` or a file of ``rollflow bench pack``; it may be anyone's.

    Raises:
        RollflowError: If it is neither, anything in it is malformed, or no job of it is done yet.
    """
    stored = read_stored(path)
    config, index = _printable(stored.config), stored.index
    places = {arm["name"]: place for place, arm in enumerate(config["arms"])}
    if not index.done:
        raise RollflowError(f"no job of '{path}' is done yet; resume it with 'rollflow bench run'")

    def order(record: JobRecord | TrialRecord) -> tuple[int, ...]:
        return record.seed, record.place, places[record.arm]

    done = [_without_some_steps(JobRecord.from_json(_printable(record))) for record in index.done.values()]
    failed = [FailedJob.from_json(_printable(one)) for name, one in index.failed.items() if name not in index.done]
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
    """The same with every text printable; no table, figure or page then holds control characters of a folder."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, dict):
        return {printable(key): _printable(part) for key, part in content.items()}
    return [_printable(part) for part in content] if isinstance(content, list) else content


def _without_some_steps(record: JobRecord) -> JobRecord:
    """Drop the steps of a job that was resumed: only the last are known, of which no share can be computed."""
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
    """Whether a reward of the library says by 0 that all is as asked for; of others nothing is looked up."""
    try:
        kind = REWARDS.named(reward.partition("(")[0].strip(), plugins=False).kind
        return bool(getattr(kind, "zero_is_perfect", False))
    except RollflowError:
        return False

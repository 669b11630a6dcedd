"""The record of a finished job, from which journals, ``result.json``, reports and replays are made."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

import rollflow
from rollflow.engine.meter import Spending
from rollflow.engine.pool import Round
from rollflow.engine.state import Origin, Point
from rollflow.errors import RollflowError


class UnknownVersion(RollflowError):
    """A record has a version that this release does not read."""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """The settings of a job, its result and its spending, in values that JSON can represent.

    Args:
        prompt: Text of the prompt.
        ask: Counts that were given with the prompt, by thing; None if they are read from its words.
        seed: Seed that the user chose. Within an experiment, prompts of one seed have different noise.
        noise: Seed of the noise; outside experiments, ``seed`` itself.
        plan: Options of the job, by the name of their field of ``Plan``; empty if unknown (version 1, or a job that was
            made without a plan).
        reward: Reward of the sample; NaN, which is null in JSON, if it is not finite.
        surrogate: Score of the sample by the surrogate that the search optimised in place of the reward; None if it
            optimised the reward.
        chosen: Score of the sample by the reward of the final choice; None if there was nothing to choose.
        parts: Parts of a mixed reward, by name; None if not finite.
        held_out: Held-out rewards, by name; None if missing or not finite.
        missing: Reasons why held-out rewards are missing, by name.
        ineligible: Number of samples that could not be chosen, by reason (``Result.ineligible``).
        warnings: Warnings about the result, one sentence each.
        nfe: Guided velocity evaluations (``Spending``).
        network_rows: Rows passed through the network.
        reward_calls: Samples scored by the reward.
        decodes: Samples decoded.
        backward_passes: Samples differentiated through.
        noise_level: 0 for a fully denoised sample, else the linear noise level of the estimate.
        origin: Population and row that the sample came from (``Result.origin``); None if unknown.
        seconds: Time in calls of model, decoder and reward.
        trace: Best reward so far against NFE; only the last point if the search optimised a surrogate.
        diagnostics: Diagnostics of the search, for each population.
        sha256: Digest of the decoded sample (``digest``).
        device: Device of the model; None if the model does not state it.
        threads: Number of CPU threads, on which the bits of matrix products depend.
        versions: Versions of all software that the bits depend on.
        quota: NFE of each step, for each population.
        ancestors: Parents of the particles after each step, for each population: None for a step after which every
            particle kept its row, and None altogether if no population resampled.
        resumed: Whether the job was resumed, so that ``quota`` and ``ancestors`` lack the earlier steps.
        quota_steps: Numbers of the steps in ``quota``, for each population, if the job was resumed.
        rounds: Rounds of a job that shared a pool; the plan, the seed of the noise, the origin, the diagnostics and the
            steps are those of the round that found the sample.
        id: Identifier within an experiment; empty outside one.
        arm: Name of the arm within an experiment; empty outside one.
        category: Category of the prompt in its suite.
        place: Index of the prompt in its suite.
    """

    version: ClassVar[int] = 2

    prompt: str
    ask: Mapping[str, int] | None = None
    seed: int
    noise: int | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    reward: float
    surrogate: float | None = None
    chosen: float | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    held_out: Mapping[str, float | None] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    ineligible: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    nfe: int
    network_rows: int
    reward_calls: int
    decodes: int = 0
    backward_passes: int
    noise_level: float = 0.0
    origin: Origin | None = None
    seconds: float
    trace: Sequence[Point]
    diagnostics: Sequence[Mapping[str, Any]] = ()
    sha256: str
    device: str | None = None
    threads: int
    versions: Mapping[str, str]
    quota: Sequence[Sequence[int]] = ()
    ancestors: Sequence[Sequence[Sequence[int] | None]] | None = None
    resumed: bool = False
    quota_steps: Sequence[Sequence[int]] | None = None
    rounds: Sequence[Round] = ()
    id: str = ""
    arm: str = ""
    category: str = ""
    place: int = 0

    @property
    def spent(self) -> Spending:
        """The account of the job."""
        return Spending(self.nfe, self.network_rows, self.reward_calls, self.decodes, self.backward_passes)

    def to_json(self) -> dict[str, Any]:
        """Return the record in JSON types, with its version; fields that have their default are left out."""
        content: dict[str, Any] = {"version": self.version}
        for one in fields(self):
            value = getattr(self, one.name)
            default = one.default_factory() if one.default_factory is not MISSING else one.default
            if value != default:
                content[one.name] = plain(_by_field(value))
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> JobRecord:
        """Read a record of any known version; unknown keys are ignored.

        Raises:
            UnknownVersion: If its version is not known.
            RollflowError: If a field is missing or malformed.
        """
        content = migrated(content)
        given = {one.name: content[one.name] for one in fields(cls) if one.name in content}
        missing = [one.name for one in fields(cls) if _is_required(one) and one.name not in given]
        if missing:
            raise RollflowError(f"the record of a job has no '{missing[0]}'")
        try:
            given["trace"] = tuple(Point(nfe, _number(reward)) for nfe, reward in given["trace"])
            given["reward"] = _number(given["reward"])
            if given.get("origin") is not None:
                given["origin"] = Origin(given["origin"]["population"], given["origin"]["row"])
            if "rounds" in given:
                given["rounds"] = tuple(Round(**one | {"reward": _number(one["reward"])}) for one in given["rounds"])
        except (TypeError, ValueError, KeyError) as error:
            raise RollflowError(f"the record of a job is malformed: {error}") from None
        for name, value in given.items():
            if not _fits(value, _KINDS[name]):
                raise RollflowError(f"the record of a job is malformed: '{name}' is {value!r:.40}")
        for name in ("warnings", "diagnostics"):
            given[name] = tuple(given.get(name, ()))
        return cls(**given)


_KINDS = get_type_hints(JobRecord)
"""Type of every field."""


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; the items of containers are not checked."""
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if isinstance(value, str) or kind is str:
        return isinstance(value, str) and kind is str
    return isinstance(value, int | float if kind is float else get_origin(kind) or kind)


def _is_required(one: Any) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def migrated(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the JSON of a record to the current version.

    Raises:
        UnknownVersion: If its version is not known.
    """
    version = content.get("version", 1)  # version 1 has no such key
    if type(version) is not int or version not in (*_NEXT, JobRecord.version):
        known = ", ".join(map(str, (*_NEXT, JobRecord.version)))
        raise UnknownVersion(
            f"the record of a job has version {version!r:.20}; this release of rollflow reads {known}; install a newer "
            "one"
        )
    while version != JobRecord.version:
        content, version = _NEXT[version](content), version + 1
    return {**content, "version": version}


def _from_1(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Upgrade version 1: lines of journals without version, plan and origin, the oldest also without threads."""
    names = {"steps": "quota_steps"}  # ``result.json`` has an option with the old name
    return {"threads": 1, **{names.get(key, key): value for key, value in content.items()}}


_NEXT: dict[int, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {1: _from_1}
"""Functions that upgrade each version to the next."""


def digest(sample: Tensor) -> str:
    """Return the SHA-256 of a sample's bytes."""
    return hashlib.sha256(sample.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of all software that the bits of a result depend on."""
    return {"rollflow": rollflow.__version__, "torch": torch.__version__, "python": platform.python_version()}


def plain(value: Any) -> Any:
    """Convert a value to JSON types: tensors and tuples to lists, numbers that are not finite to None."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _by_field(value: Any) -> Any:
    """Convert an origin, or rounds, to mappings by the names of their fields."""
    if isinstance(value, Origin):
        return value._asdict()
    return [one._asdict() if isinstance(one, Round) else one for one in value] if isinstance(value, tuple) else value


def _number(value: Any) -> float:
    return math.nan if value is None else value

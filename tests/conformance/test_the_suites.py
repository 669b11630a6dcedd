"""Every check of every suite fails where what it checks is broken, and only there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import broken_kernels
import broken_models
import broken_rewards
import broken_searches
import pytest

import rollflow
from rollflow.dynamics.kernels import Euler
from rollflow.errors import RollflowError, RollflowWarning, UnknownName
from rollflow.sampler import Dynamics
from rollflow.search import Cost
from rollflow.testing import KernelSuite, ModelSuite, RewardSuite, SearchSuite
from rollflow.testing.jobs import SAMPLERS

FAILURES = (AssertionError, UnknownName, pytest.fail.Exception)
CASES: dict[Any, list[tuple[Any, Any, tuple[Any, ...]]]] = {
    SearchSuite: broken_searches.CASES,
    KernelSuite: broken_kernels.CASES,
    ModelSuite: broken_models.CASES,
    RewardSuite: broken_rewards.CASES,
}
SOUND: dict[Any, Any] = {
    SearchSuite: broken_searches.Meddled(),
    KernelSuite: Euler(),
    ModelSuite: broken_models.Meddled(),
    RewardSuite: broken_rewards.Meddled(),
}
ELSEWHERE = {"test_it_goes_on_from_checkpoint_files"}
every_case = pytest.mark.parametrize(
    ("suite", "check", "broken", "arguments"),
    [
        pytest.param(suite, *case, id=f"{case[0].__name__}-{type(case[1]).__name__}")
        for suite, cases in CASES.items()
        for case in cases
    ],
)


@every_case
@pytest.mark.slow
def test_what_is_broken_fails(suite: Any, check: Any, broken: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(FAILURES):
        check(suite(), broken, *arguments)


@pytest.mark.parametrize("suite", CASES, ids=lambda suite: suite.__name__)
def test_what_is_sound_passes_where_the_broken_fails(suite: Any) -> None:
    for check, arguments in {case[0]: case[2] for case in CASES[suite]}.items():
        check(suite(), SOUND[suite], *arguments)


@pytest.mark.parametrize("suite", CASES, ids=lambda suite: suite.__name__)
def test_every_check_is_seen_to_fail(suite: Any) -> None:
    checks = {name for name in vars(suite) if name.startswith("test_")}
    assert checks - ELSEWHERE == {case[0].__name__ for case in CASES[suite]}


def test_a_state_that_no_file_can_hold_fails(tmp_path: Path) -> None:
    with pytest.raises(RollflowWarning, match="TypeError: set cannot be saved"):
        SearchSuite().test_it_goes_on_from_checkpoint_files(broken_searches.UNWRITABLE, SAMPLERS["linear"], tmp_path)


class Unguided(broken_searches.Meddled):
    """Refuses guidance, as it may."""

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        if dynamics.guidance_nfe:
            raise RollflowError("no guidance here")
        return super().cost(dynamics, nfe)


def test_a_search_that_refuses_guidance_is_not_tested_with_it() -> None:
    with pytest.raises(pytest.skip.Exception, match="no guidance here"):
        SearchSuite().test_what_is_declared_is_spent(Unguided(), SAMPLERS["guided"])
    SearchSuite().test_what_is_declared_is_spent(Unguided(), SAMPLERS["linear"])


def test_nothing_else_in_the_package_needs_pytest() -> None:
    source = Path(rollflow.__file__).parent
    users = [path for path in source.rglob("*.py") if re.search(r"\bpytest\b|rollflow\.testing", path.read_text())]
    assert {path.parent for path in users} == {source / "testing"}

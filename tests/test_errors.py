"""Errors survive pickling and process pools, and foreign exceptions are named."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE

import rollflow
from rollflow.api import Plan
from rollflow.engine import Interrupted, JobsFailed
from rollflow.errors import BadReward, BadSetting, BudgetTooSmall, RollflowError, UnknownName, blamed, described


def every_error() -> Iterator[type[BaseException]]:
    """The errors of all modules that define one."""
    root = Path(rollflow.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if re.search(r"^class \w+\([^)]*(Error|Bad\w+|Refus\w+|Unavailable|Exception)", path.read_text(), re.MULTILINE):
            importlib.import_module(".".join(["rollflow", *path.relative_to(root).with_suffix("").parts]))
    found = [RollflowError]
    for kind in found:
        found += [sub for sub in kind.__subclasses__() if sub not in found]
    yield from (kind for kind in found if kind.__module__.startswith("rollflow"))


MADE: dict[str, tuple[Any, ...]] = {
    "BudgetTooSmall": ("rbf", 20, 68),
    "JobsFailed": ([None, None], {1: BadSetting("x")}),
    "Interrupted": ([None], {}),
    "Refusal": (422, "no such thing"),
}
"""Arguments of the errors that do not take a text alone."""


def copies(error: BaseException) -> list[BaseException]:
    return [
        *(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)),
        copy.copy(error),
        copy.deepcopy(error),
    ]


def test_every_error_survives_pickling_and_copying() -> None:
    kinds = list(every_error())
    assert {"BudgetTooSmall", "JobsFailed", "Interrupted", "UnknownName", "PromptError"} <= {k.__name__ for k in kinds}
    for kind in kinds:
        error = kind(*MADE.get(kind.__name__, ("what went wrong",)))
        for again in copies(error):
            assert type(again) is kind
            assert str(again) == str(error)
            assert repr(vars(again)) == repr(vars(error)), kind


def test_attributes_survive() -> None:
    error = BudgetTooSmall("rbf", 20, 68)
    assert str(error) == "rbf cannot run in 20 NFE with these settings; the smallest budget is 68 NFE"
    for again in copies(error):
        assert isinstance(again, BudgetTooSmall)
        assert (again.method, again.nfe, again.smallest) == ("rbf", 20, 68)
    for again in copies(JobsFailed([None], {0: error})):
        assert isinstance(again, JobsFailed)
        assert str(again) == f"1 of 1 jobs failed; job 0: {error}"
        [failure] = again.failures.values()
        assert isinstance(failure, BudgetTooSmall)
        assert failure.smallest == 68
    for again in copies(Interrupted([None], {0: error})):
        assert isinstance(again, Interrupted)
        assert again.results == (None,)


class Numbered(BadSetting):
    """As a plug-in may write one."""

    def __init__(self, number: int, /, *, why: str) -> None:
        super().__init__(f"number {number}: {why}")
        self.number = number


def test_an_error_of_a_plug_in_survives() -> None:
    for again in copies(Numbered(3, why="odd")):
        assert isinstance(again, Numbered)
        assert (str(again), again.number) == ("number 3: odd", 3)


def planned(nfe: int) -> int:
    return Plan("three cats", method="rbf", nfe=nfe).cost().nfe


@pytest.mark.subprocess
def test_a_process_pool_brings_the_error_back() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(BudgetTooSmall) as refused:
            pool.submit(planned, 20).result(timeout=PATIENCE)
        assert refused.value.smallest == 68
        assert pool.submit(planned, 68).result(timeout=PATIENCE) == 68  # the pool lives


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (KeyError("x"), RollflowError, "it: KeyError: 'x'"),
        (ValueError("a\nb"), BadSetting, "it: a b"),
        (AssertionError(), RollflowError, "it: AssertionError"),
        (SystemExit(0), RollflowError, "it: it called exit(0), which must not end the program"),
        (MemoryError(), RollflowError, "it: out of memory; ask for less at once, such as a smaller batch"),
        (ModuleNotFoundError("No module named 'scipy'", name="scipy"), RollflowError, "rollflow[bench]"),
        (RecursionError("maximum"), RollflowError, "it: RecursionError: maximum"),
    ],
    ids=repr,
)
def test_a_foreign_exception_is_blamed(error: BaseException, kind: type[RollflowError], told: str) -> None:
    with pytest.raises(kind) as blamed_error, blamed("it"):
        raise error
    assert told in str(blamed_error.value)
    assert blamed_error.value.__cause__ is error


def test_own_errors_and_interruptions_pass() -> None:
    own = BadSetting("x")
    with pytest.raises(BadSetting) as passed, blamed("it", BadReward):
        raise own
    assert passed.value is own
    with pytest.raises(KeyboardInterrupt), blamed("it"):
        raise KeyboardInterrupt


def test_an_unknown_name_of_any_length_is_shown_in_a_few_words() -> None:
    with pytest.raises(UnknownName) as refused:
        Plan("three cats", reward="x" * 10**6)
    assert len(str(refused.value)) < 800
    assert described(RuntimeError("CUDA out of memory. Tried")).startswith("out of memory: CUDA")

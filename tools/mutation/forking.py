"""Running tests in forks of one process with everything loaded: a mutant costs a fork and the tests that kill it."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
import types
import warnings
from collections.abc import Callable, Generator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import hypothesis
import hypothesis.strategies
import pytest
import swapping
from _pytest.runner import runtestprotocol
from _pytest.warnings import catch_warnings_for_item
from mutants import Mutant, mutated

ROOT = Path(__file__).parents[2]
PRELOADED = (
    "numpy",
    "torch",
    "scipy.stats",
    "PIL.Image",
    "safetensors.torch",
    "hypothesis.strategies",
    "typer",
    "rich",
)
"""Packages that the library and its tests import, loaded once."""
SECONDS_MORE = 5
"""CPU time that each test of a mutant has in addition to three times that of the test without a mutant."""
WALL = 200
"""Seconds that a mutant has for each second of CPU time: on a busy machine it may wait long for its turn."""


class Outcome(NamedTuple):
    """The outcome of a mutant.

    Args:
        status: One of "killed", "timeout" and "survived".
        by: Id of the test that failed; empty if none did.
        seconds: CPU time.
    """

    status: str
    by: str
    seconds: float


class Baseline(NamedTuple):
    """The results of the tests for the unchanged module.

    Args:
        seconds: CPU time of each passing test, by its id.
        covered: Ids of the tests that run each line.
    """

    seconds: dict[str, float]
    covered: dict[int, set[str]]

    def of(self, mutant: Mutant) -> list[str]:
        """List the tests of a mutant's statement, the quickest first; all tests if it runs on import."""
        first, last = mutant.lines
        covering = {name for line in range(first, last + 1) for name in self.covered.get(line, ())}
        names = covering & self.seconds.keys() if mutant.function else self.seconds.keys()
        return sorted(names, key=self.seconds.__getitem__)


def forked(work: Callable[[int], None], cpu: float, wall: float) -> tuple[bytes, bool, float]:
    """Call ``work`` with a file to write to in a fork; return what it wrote, whether it ended, and its CPU seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, int(cpu) + 2))
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1):
                os.dup2(nothing, stream)
            work(writing)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    output, ended, deadline = b"", False, time.monotonic() + wall
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([reading], [], [], left)[0]:
            break
        part = os.read(reading, 1 << 20)
        if not part:
            ended = True
            break
        output += part
    os.close(reading)
    if not ended:
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return output, ended and status == 0, usage.ru_utime + usage.ru_stime


class Loop:
    """A pytest plugin that replaces the loop over the tests.

    Args:
        module: Path of the module in the repository.
        mutants: Mutants to try.
        known: Baseline; None to measure it.
        tell: Function called with each mutant of a function and its outcome.
        keep: Function called with the baseline once it is measured.
        over: Function that returns whether to stop.
    """

    def __init__(
        self,
        module: str,
        mutants: list[Mutant],
        known: Baseline | None,
        tell: Callable[[Mutant, Outcome], None],
        keep: Callable[[Baseline], None],
        over: Callable[[], bool],
    ) -> None:
        self.path, self.mutants, self.known = str(ROOT / module), mutants, known
        self.tell, self.keep, self.over = tell, keep, over
        self.baseline: Baseline | None = None
        self.caches: list[Any] = []

    def pytest_collection(self) -> None:
        """Let hypothesis not shrink failing examples, to save time."""
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        given = {"phases": phases, "report_multiple_bugs": False}
        hypothesis.settings.register_profile("mutation", hypothesis.settings(), **given)
        hypothesis.settings.load_profile("mutation")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        items = {item.nodeid: item for item in session.items}
        _warm_up()
        self.caches, functions = swapping.caches(), swapping.functions_of(self.path)
        if self.known is None:
            measured, ended, _ = forked(lambda out: _write(out, self._measure(items)), 3600, 3600)
            if not ended:
                raise session.Interrupted("the tests end the process even without a mutant")
            self.baseline = Baseline(*pickle.loads(measured))
            for name in items.keys() - self.baseline.seconds.keys():
                print(f"{name} fails without a mutant and is left out", flush=True)
            self.keep(self.baseline)
        else:
            self.baseline = self.known
        gc.freeze()  # so that forks share unchanged memory
        for mutant in self.mutants:
            if self.over():
                break
            names = self.baseline.of(mutant)
            if mutant.function and names:
                self.tell(mutant, self._outcome(mutant, [items[name] for name in names], functions))
        return True

    def _measure(self, items: dict[str, pytest.Item]) -> Baseline:
        lines = coverage.Coverage(data_file=None, include=[self.path], config_file=False)
        seconds = {}
        for name, item in items.items():
            self._forget()
            before = time.process_time()
            lines.start()
            lines.switch_context(name)
            passed = _passes(item, None)
            lines.stop()
            if passed:
                seconds[name] = time.process_time() - before
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", coverage.exceptions.CoverageWarning)  # for a module without functions
            data = lines.get_data()
        covered = data.contexts_by_lineno(self.path)
        return Baseline(seconds, {line: set(names) for line, names in covered.items()})

    def _forget(self) -> None:
        for cache in self.caches:
            cache.cache_clear()

    def _outcome(self, mutant: Mutant, items: list[pytest.Item], functions: list[Any]) -> Outcome:
        assert self.baseline is not None
        seconds, source = (
            self.baseline.seconds,
            mutated(Path(self.path).read_text(), mutant.operator, mutant.occurrence),
        )

        def work(out: int) -> None:
            if not swapping.swap(functions, source, self.path):
                os.write(out, b"?")
                return
            self._forget()
            items[0].config.pluginmanager.register(First(out))
            for item, after in zip(items, [*items[1:], None], strict=True):
                _limit(3 * seconds[item.nodeid] + SECONDS_MORE)
                _reports(item, after)

        cpu = 3 * sum(seconds[item.nodeid] for item in items) + SECONDS_MORE
        failed, ended, spent = forked(work, cpu, WALL * cpu)
        if failed == b"?":
            return imported(mutant, [item.nodeid for item in items], cpu)
        return Outcome("timeout" if not ended else "killed" if failed else "survived", failed.decode(), spent)


def _limit(cpu: float) -> None:
    """Let this process have so many more seconds of CPU time."""
    spent, hard = time.process_time(), resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (min(int(spent + cpu) + 1, hard), hard))


def _warm_up() -> None:
    """Let hypothesis search all loaded modules for constants now instead of once per mutant."""

    @hypothesis.given(hypothesis.strategies.lists(hypothesis.strategies.floats() | hypothesis.strategies.integers()))
    def draw(values: list[float]) -> None:
        return None

    draw()


def _write(out: int, value: object) -> None:
    with os.fdopen(out, "wb", closefd=False) as file:
        pickle.dump(value, file)


def _passes(item: pytest.Item, after: pytest.Item | None) -> bool:
    return all(report.passed or report.skipped for report in _reports(item, after))


def _reports(item: pytest.Item, after: pytest.Item | None) -> list[pytest.TestReport]:
    """Run a test with the warnings that its marks ignore."""
    with catch_warnings_for_item(config=item.config, ihook=item.ihook, when="runtest", item=item):
        return runtestprotocol(item, log=False, nextitem=after)


def collected(module: str, tests: list[str], loop: Loop) -> None:
    """Collect a module's tests and pass them to the loop."""
    code = pytest.main([*_OPTIONS, *(str(ROOT / test) for test in tests)], plugins=[loop])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"{module}: pytest ends with {code!r}")


def imported(mutant: Mutant, tests: list[str], cpu: float) -> Outcome:
    """Return the outcome of a mutant that is imported again, with its tests collected again."""
    source = mutated((ROOT / mutant.module).read_text(), mutant.operator, mutant.occurrence)

    def work(out: int) -> None:
        for name, loaded in list(sys.modules.items()):
            if str(getattr(loaded, "__file__", None) or "").startswith((str(ROOT / "src"), str(ROOT / "tests"))):
                del sys.modules[name]
        names = execute_from(source, ROOT / mutant.module)
        files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        code = pytest.main([*_OPTIONS, "-x", *files], plugins=[First(out)])
        if code != pytest.ExitCode.OK:
            os.write(out, f"{code!r}".encode())
        elif not names:
            os.write(out, b"?")

    failed, ended, seconds = forked(work, cpu + 30, WALL * (cpu + 30))
    assert failed != b"?", f"{mutant.module} was not imported by its tests"
    return Outcome("timeout" if not ended else "killed" if failed else "survived", failed.decode(), seconds)


class First:
    """A pytest plugin that ends the process at the first failing test, before a report is made.

    Args:
        out: File descriptor that the test's id is written to.
    """

    def __init__(self, out: int) -> None:
        self.out = out

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # before hypothesis', which spends a second on a failure
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            os.write(self.out, item.nodeid.encode())
            os._exit(0)
        return (yield)


def execute_from(source: str, path: Path) -> set[str]:
    """Have a module executed from another source when it is imported next.

    It is given to the loader and not to a finder of its own, since the tests put finders of theirs before all others.

    Args:
        source: The other source.
        path: Of the module.

    Returns:
        Names under which it was imported: empty as long as it was not.
    """
    names, get_code = set[str](), SourceFileLoader.get_code

    def changed(loader: SourceFileLoader, name: str) -> types.CodeType | None:
        if Path(loader.path) != path:
            return get_code(loader, name)
        names.add(name)
        code: types.CodeType = compile(source, str(path), "exec", dont_inherit=True)
        return code

    SourceFileLoader.get_code = changed  # type: ignore[method-assign,assignment]
    return names


_OPTIONS = (
    *("-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-o", "addopts="),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)


def preload() -> None:
    """Import slow packages, and let torch use a single thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    for name in PRELOADED:
        importlib.import_module(name)

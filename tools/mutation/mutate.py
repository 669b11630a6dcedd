"""Mutants of the core, and the tests that kill them: python tools/mutation/mutate.py run; then ... report

``run`` makes every mutant of every module of the core (``core.py``) that is not in the database yet and puts it to the
module's tests, the quickest first; it can be ended at any time and goes on where it ended. ``survivors`` shows what
lives. ``report`` writes docs/design/mutation.md and ``scores.json``; modules that stand there with all their mutants
and have not changed since are not run again. This is no part of the ordinary tests: all mutants take an
hour on one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

from core import CORE
from forking import ROOT, Loop, Outcome, collected, imported, preload
from mutants import Mutant, mutants_of
from scores import is_done, score, write_report
from store import Store, digest


def run(modules: list[str], minutes: float) -> None:
    """Try what has not been tried, module by module."""
    preload()
    deadline = time.monotonic() + 60 * minutes
    for module in modules:
        trial, begun = Trial(module, CORE[module], deadline), time.monotonic()
        for part in (trial.functions, trial.imports):  # each in its own process, so that nothing is imported here
            if in_a_fork(part):
                print(f"{module}: failed", flush=True)
                break
        made = score(module, Store())
        print(f"{module}: {made.line}, in {time.monotonic() - begun:.0f} s", flush=True)
        if time.monotonic() > deadline:
            break


def in_a_fork(work: Callable[[], None]) -> int:
    """Call in a process of its own; its exit status."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


class Trial(NamedTuple):
    """The mutants of one module, put to its tests.

    Args:
        module: The module.
        tests: Its tests.
        deadline: When to begin no further mutant.
    """

    module: str
    tests: list[str]
    deadline: float

    def functions(self) -> None:
        """Those that can be put into functions that are loaded."""
        store = Store()
        if is_done(self.module, store):
            return
        pending = store.pending(mutants_of(ROOT, self.module), self.tests)
        if not pending:
            return
        loop = Loop(self.module, pending, store.baseline(self.module, self.tests), self._teller(store), self._over)
        collected(self.module, self.tests, loop)
        assert loop.baseline is not None
        store.keep(self.module, self.tests, loop.baseline)

    def imports(self) -> None:
        """Those that change what happens when the module is imported, and those in functions that no test runs then."""
        store = Store()
        baseline = store.baseline(self.module, self.tests)
        if baseline is None:
            return
        tell, every = self._teller(store), sorted(baseline.seconds, key=baseline.seconds.__getitem__)
        for mutant in store.pending(mutants_of(ROOT, self.module), self.tests):
            if self._over():
                break
            if mutant.function is None or not baseline.of(mutant):
                tell(mutant, imported(mutant, every, 3 * sum(baseline.seconds.values())))

    def _teller(self, store: Store) -> Callable[[Mutant, Outcome], None]:
        tests = digest(self.tests)  # as they are collected, whatever is written to them later

        def tell(mutant: Mutant, outcome: Outcome) -> None:
            store.tell(mutant, outcome, tests)
            if outcome.status == "survived":
                print(f"{self.module}:{mutant.line}: {mutant.before}\n    -> {mutant.after}", flush=True)

        return tell

    def _over(self) -> bool:
        return time.monotonic() > self.deadline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "survivors", "report"))
    parser.add_argument("modules", nargs="*", help="Parts of the names of modules; all of the core by default.")
    parser.add_argument("--minutes", type=float, default=600.0, help="Begin no further mutant after this time.")
    given = parser.parse_args()
    modules = [one for one in CORE if not given.modules or any(part in one for part in given.modules)]
    if given.command == "run":
        run(modules, given.minutes)
    elif given.command == "report":
        print(write_report(Store()))
    else:
        for module in modules:
            made = score(module, Store())
            for before, after in made.survivors:
                print(f"{module}\n    {before}\n    {after}")
            print(f"{module}: {made.line}")


if __name__ == "__main__":
    main()

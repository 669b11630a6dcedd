"""Test the tests of the core by mutation: python tools/mutation/mutate.py run; then ... report

``run`` makes every mutant of every module of the core (``core.py``) that is not in the database yet, and runs the
module's tests on it, the quickest first; it can be stopped at any time and continues from there. ``survivors`` lists
the mutants that no test kills. ``report`` writes docs/design/mutation.md and ``scores.json``; modules that were
completed there and have not changed since are not run again. This is not part of the ordinary tests: all mutants take
an hour on one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from core import CORE
from forking import ROOT, Loop, Outcome, collected, imported, preload
from mutants import Mutant, mutants_of
from scores import equivalents, is_done, score, write_report
from store import Store, digest


def run(modules: list[str], minutes: float) -> None:
    """Run the mutants that have not been run yet, module by module."""
    preload()
    deadline = time.monotonic() + 60 * minutes
    for module in modules:
        trial, begun = Trial(module, CORE[module], deadline), time.monotonic()
        for part in (trial.functions, trial.imports):  # each in a fork, so that nothing is imported here
            if in_a_fork(part):
                print(f"{module}: failed", flush=True)
                break
        module_score = score(module, Store())
        print(f"{module}: {module_score.line}, in {time.monotonic() - begun:.0f} s", flush=True)
        if time.monotonic() > deadline:
            break


def in_a_fork(work: Callable[[], None]) -> int:
    """Call a function in a fork and return the exit status."""
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
    """A run of the mutants of one module.

    Args:
        module: Path of the module in the repository.
        tests: Paths of its tests.
        deadline: Time after which no further mutant is started.
    """

    module: str
    tests: list[str]
    deadline: float

    def functions(self) -> None:
        """Run the mutants that can be inserted into loaded functions."""
        store = Store()
        if is_done(self.module, store):
            return
        pending = self._pending(store)
        if not pending:
            return
        known, state = store.baseline(self.module, self.tests), digest([self.module, *self.tests])
        keep = partial(store.keep, self.module, state)
        collected(self.module, self.tests, Loop(self.module, pending, known, self._teller(store), keep, self._over))

    def imports(self) -> None:
        """Run the mutants that change the import of the module, or functions that no test runs after it."""
        store = Store()
        baseline = store.baseline(self.module, self.tests)
        if baseline is None:
            return
        tell, every = self._teller(store), sorted(baseline.seconds, key=baseline.seconds.__getitem__)
        for mutant in self._pending(store):
            if self._over():
                break
            if mutant.function is None or not baseline.of(mutant):
                tell(mutant, imported(mutant, every, 3 * sum(baseline.seconds.values())))

    def _pending(self, store: Store) -> list[Mutant]:
        same = equivalents()
        pending = store.pending(mutants_of(ROOT, self.module), self.tests)
        return [one for one in pending if (one.module, one.before, one.after) not in same]

    def _teller(self, store: Store) -> Callable[[Mutant, Outcome], None]:
        tests = digest(self.tests)  # now, since the files may change later

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
    parser.add_argument("--minutes", type=float, default=600.0, help="Start no further mutant after this time.")
    given = parser.parse_args()
    modules = [one for one in CORE if not given.modules or any(part in one for part in given.modules)]
    if given.command == "run":
        run(modules, given.minutes)
    elif given.command == "report":
        print(write_report(Store()))
    else:
        for module in modules:
            module_score = score(module, Store())
            for before, after in module_score.survivors:
                print(f"{module}\n    {before}\n    {after}")
            print(f"{module}: {module_score.line}")


if __name__ == "__main__":
    main()

"""Scores of the core's modules, from the database or the committed ``scores.json``, and the report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import tomllib
from core import CORE
from forking import ROOT
from mutants import mutants_of
from store import Store, code_digest

REPORT = ROOT / "docs/design/mutation.md"
SCORES, EQUIVALENT = (Path(__file__).parent / name for name in ("scores.json", "equivalent.toml"))

HEAD = """\
# Mutants of the core

Written by `python tools/mutation/mutate.py report`. Each mutant is one small change of the mathematics or the
bookkeeping, for which some test must fail: a number is increased or decreased by 1, an operator or comparison is
replaced by a similar or opposite one, a condition is negated, `True` and `False` or `and` and `or` are exchanged, a
loop is skipped, or two arguments of a call are exchanged. All operators but the last are cosmic-ray's. Annotations,
error messages, assertions, `__repr__`, decorators, imports, and the `strict` of `zip` are not changed.

    python tools/mutation/mutate.py run [--minutes 30] [MODULE ...]     # continues where it ended
    python tools/mutation/mutate.py survivors [MODULE ...]
    python tools/mutation/mutate.py report

A module's mutants are run on its own tests only (`tools/mutation/core.py`), the quickest first. The score is the share
of killed mutants among those that are not equivalent; `tools/mutation/equivalent.toml` explains for each equivalent one
why no test can distinguish it from the module. Modules with a dash, or with pending mutants, have changed or were not
run to the end; only the mutants that were run count.
"""


@dataclass(frozen=True)
class Score:
    """The score of a module.

    Args:
        code: Digest of the module's code.
        killed: Number of mutants for which a test fails or exceeds its time.
        survivors: Lines before and after the change, for each mutant for which no test fails.
        equivalent: Number of mutants for which no test can fail.
        pending: Number of mutants that were not run.
    """

    code: str
    killed: int
    survivors: list[list[str]]
    equivalent: int
    pending: int

    @property
    def tried(self) -> int:
        """Number of mutants that were run and are not equivalent."""
        return self.killed + len(self.survivors)

    @property
    def percent(self) -> str:
        """The score as a text."""
        return f"{100 * self.killed / self.tried:.1f} %" if self.tried else "-"

    @property
    def line(self) -> str:
        """All numbers as a text."""
        return f"{self.percent} of {self.tried}, {self.equivalent} equivalent, {self.pending} pending"


def score(module: str, store: Store) -> Score:
    """Return the score of a module, from the database or the committed file, whichever has fewer pending mutants."""
    known, equivalent = store.results(module), equivalents()
    killed, survivors, same, pending = 0, list[list[str]](), 0, 0
    for mutant in mutants_of(ROOT, module):
        status = known.get(mutant.key, ("pending", ""))[0]
        if status in ("killed", "timeout"):
            killed += 1
        elif (module, mutant.before, mutant.after) in equivalent:
            same += 1
        elif status == "survived":
            survivors.append([mutant.before, mutant.after])
        else:
            pending += 1
    now, kept = Score(code_digest(module), killed, survivors, same, pending), committed().get(module)
    return kept if kept is not None and kept.code == now.code and kept.pending < now.pending else now


def is_done(module: str, store: Store) -> bool:
    """Whether all mutants of the current module are killed or equivalent."""
    now = score(module, store)
    return not (now.pending or now.survivors)


def committed() -> dict[str, Score]:
    """Read the scores of the last report, by module."""
    content = json.loads(SCORES.read_text()) if SCORES.exists() else {}
    return {module: Score(**one) for module, one in content.items()}


def equivalents() -> dict[tuple[str, str, str], str]:
    """Read the reason why a mutant is equivalent, by its module and its line before and after the change."""
    content = tomllib.loads(EQUIVALENT.read_text())
    return {
        (f"src/rollflow/{one['module']}.py", one["line"], mutant): one["reason"]
        for one in content["equivalent"]
        for mutant in one["mutants"]
    }


def write_report(store: Store) -> str:
    """Write the report and the scores; return the total as a text."""
    scores = {module: score(module, store) for module in CORE}
    killed, tried = (sum(getattr(one, name) for one in scores.values()) for name in ("killed", "tried"))
    same, pending = (sum(getattr(one, name) for one in scores.values()) for name in ("equivalent", "pending"))
    total = f"{100 * killed / max(1, tried):.1f} %"
    rows = ["| module | mutants | killed | survived | equivalent | pending | score |", "|---|--:|--:|--:|--:|--:|--:|"]
    for module, one in scores.items():
        name, left = module.removeprefix("src/rollflow/").removesuffix(".py"), len(one.survivors)
        rows.append(
            f"| {name} | {one.tried} | {one.killed} | {left} | {one.equivalent} | {one.pending} | {one.percent} |"
        )
    rows.append(f"| **all** | {tried} | {killed} | {tried - killed} | {same} | {pending} | **{total}** |")
    lives = [
        f"\n{module.removeprefix('src/rollflow/')}:\n\n" + _listed(one)
        for module, one in scores.items()
        if one.survivors
    ]
    text = "\n".join([HEAD, *rows, "", "## Survivors", *lives]) if lives else "\n".join([HEAD, *rows])
    REPORT.write_text(text + "\n")
    SCORES.write_text(json.dumps({module: asdict(one) for module, one in scores.items()}, indent=1) + "\n")
    return f"{total} of {tried}, {same} equivalent, {pending} pending"


def _listed(one: Score) -> str:
    return "\n".join(f"    - {before}\n    + {after}" for before, after in one.survivors)

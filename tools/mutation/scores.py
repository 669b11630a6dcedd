"""Scores of the core's modules: from the database, else from ``scores.json``, which is committed; and the report."""

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
bookkeeping, which some test must fail for: numbers plus and minus 1, operators and comparisons for their neighbours and
opposites, conditions negated, `True` and `False`, `and` and `or`, loops never entered, two arguments of a call
exchanged. The operators are cosmic-ray's, but for the last. Nothing is changed in annotations, error messages,
assertions, `__repr__`, decorators, imports, or the `strict` of `zip`.

    python tools/mutation/mutate.py run [--minutes 30] [MODULE ...]     # goes on where it ended
    python tools/mutation/mutate.py survivors [MODULE ...]
    python tools/mutation/mutate.py report

A module's mutants are put to its own tests alone (`tools/mutation/core.py`), the quickest first. The score is the share
of killed mutants in those that are not equivalent; `tools/mutation/equivalent.toml` says of each that is why no test
can tell it from the module. Modules with a dash, or with mutants pending, have changed or were not run to the end; they
count with what was tried.
"""


@dataclass(frozen=True)
class Score:
    """What came of a module's mutants.

    Args:
        code: Digest of the module's code.
        killed: Number that a test fails for, by time, too.
        survivors: Lines as they are and as they become, of those that no test fails for.
        equivalent: Number of those that no test can fail for.
        pending: Number of those that were not tried.
    """

    code: str
    killed: int
    survivors: list[list[str]]
    equivalent: int
    pending: int

    @property
    def tried(self) -> int:
        """Mutants that were tried and are not equivalent."""
        return self.killed + len(self.survivors)

    @property
    def percent(self) -> str:
        """The score in words."""
        return f"{100 * self.killed / self.tried:.1f} %" if self.tried else "-"

    @property
    def line(self) -> str:
        """All of it in words."""
        return f"{self.percent} of {self.tried}, {self.equivalent} equivalent, {self.pending} pending"


def score(module: str, store: Store) -> Score:
    """What came of a module's mutants, by the database or by what is committed, whichever knows more of them."""
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
    """Whether all mutants of a module as it is now are dead or equivalent."""
    now = score(module, store)
    return not (now.pending or now.survivors)


def committed() -> dict[str, Score]:
    """The scores of the last report, by module."""
    content = json.loads(SCORES.read_text()) if SCORES.exists() else {}
    return {module: Score(**one) for module, one in content.items()}


def equivalents() -> dict[tuple[str, str, str], str]:
    """Why a mutant cannot be told from the module, by its module, the line as it is, and the line as it becomes."""
    content = tomllib.loads(EQUIVALENT.read_text())
    return {
        (f"src/rollflow/{one['module']}.py", one["line"], mutant): one["reason"]
        for one in content["equivalent"]
        for mutant in one["mutants"]
    }


def write_report(store: Store) -> str:
    """Write the report and the scores; the total in words."""
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

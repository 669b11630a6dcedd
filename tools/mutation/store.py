"""A database of the outcomes of mutants, so that a run continues where the last one ended."""

from __future__ import annotations

import ast
import hashlib
import pickle
import sqlite3
from pathlib import Path

from forking import ROOT, Baseline, Outcome
from mutants import Key, Mutant

DATABASE = ROOT / "runs/mutation.sqlite"


class Store:
    """The outcomes of mutants of the current modules, and the baselines of their tests.

    Args:
        path: Path of the database.
    """

    def __init__(self, path: Path = DATABASE) -> None:
        path.parent.mkdir(exist_ok=True)
        self.database = sqlite3.connect(path, timeout=60)
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS results (module, code, before, after, number, tests, status, by, seconds, "
            "PRIMARY KEY (module, code, before, after, number))"
        )
        self.database.execute("CREATE TABLE IF NOT EXISTS baselines (module PRIMARY KEY, state, content)")

    def results(self, module: str) -> dict[Key, tuple[str, str]]:
        """Return the status of each mutant of a module's current code, and the digest of the tests it was run on."""
        query = "SELECT before, after, number, status, tests FROM results WHERE module = ? AND code = ?"
        rows = self.database.execute(query, (module, code_digest(module)))
        return {(before, after, number): (status, tests) for before, after, number, status, tests in rows}

    def pending(self, mutants: list[Mutant], tests: list[str]) -> list[Mutant]:
        """List the mutants that are not killed and were not run on the current tests."""
        if not mutants:
            return []
        known, now = self.results(mutants[0].module), digest(tests)
        return [
            one for one in mutants if (past := known.get(one.key)) is None or (past[0] == "survived" and past[1] != now)
        ]

    def tell(self, mutant: Mutant, outcome: Outcome, tests: str) -> None:
        """Store the outcome of a mutant that was run on tests with this digest."""
        row = (mutant.module, code_digest(mutant.module), *mutant.key, tests, *outcome)
        self.database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.database.commit()

    def baseline(self, module: str, tests: list[str]) -> Baseline | None:
        """Return the baseline of the current tests; None if it is not known."""
        state = digest([module, *tests])
        query = "SELECT content FROM baselines WHERE module = ? AND state = ?"
        row = self.database.execute(query, (module, state)).fetchone()
        return Baseline(*pickle.loads(row[0])) if row else None

    def keep(self, module: str, state: str, baseline: Baseline) -> None:
        """Store the baseline of the tests; ``state`` is the digest of the module and its tests."""
        row = (module, state, pickle.dumps(tuple(baseline)))
        self.database.execute("INSERT OR REPLACE INTO baselines VALUES (?, ?, ?)", row)
        self.database.commit()


class _Bare(ast.NodeTransformer):
    """Empties texts and removes annotations, which no mutant changes and no result depends on."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        return ast.Constant("")

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant("")
        return self.generic_visit(node)


def code_digest(module: str) -> str:
    """Return a digest of a module's code without its comments, texts and annotations."""
    tree = ast.parse((ROOT / module).read_text())
    tree.body = [one for one in tree.body if not isinstance(one, ast.Import | ast.ImportFrom) and not is_alias(one)]
    return hashlib.sha256(ast.dump(_Bare().visit(tree)).encode()).hexdigest()[:16]


def is_alias(node: ast.stmt) -> bool:
    """Whether a statement names a type."""
    return isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation)


def digest(paths: list[str]) -> str:
    """Return a digest of the contents of files, and of the Python files in folders."""
    sha = hashlib.sha256()
    for path in (ROOT / path for path in paths):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            sha.update(file.read_bytes())
    return sha.hexdigest()[:16]

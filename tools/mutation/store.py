"""What came of the mutants so far: a database, so that a run goes on where the last one ended."""

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
    """Outcomes of the mutants of modules as they are now, and what their tests do without any.

    Args:
        path: Of the database.
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
        """Status of each mutant of a module's code as it is now, and the digest of the tests that it was put to."""
        query = "SELECT before, after, number, status, tests FROM results WHERE module = ? AND code = ?"
        found = self.database.execute(query, (module, code_digest(module)))
        return {(before, after, number): (status, tests) for before, after, number, status, tests in found}

    def pending(self, mutants: list[Mutant], tests: list[str]) -> list[Mutant]:
        """Those that are not killed, and were not put to these tests as they are now."""
        if not mutants:
            return []
        known, now = self.results(mutants[0].module), digest(tests)
        return [
            one for one in mutants if (told := known.get(one.key)) is None or (told[0] == "survived" and told[1] != now)
        ]

    def tell(self, mutant: Mutant, outcome: Outcome, tests: str) -> None:
        """Keep what came of a mutant that was put to tests of this digest."""
        row = (mutant.module, code_digest(mutant.module), *mutant.key, tests, *outcome)
        self.database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.database.commit()

    def baseline(self, module: str, tests: list[str]) -> Baseline | None:
        """What the tests do with the module as it is, if that is known."""
        state = digest([module, *tests])
        query = "SELECT content FROM baselines WHERE module = ? AND state = ?"
        found = self.database.execute(query, (module, state)).fetchone()
        return Baseline(*pickle.loads(found[0])) if found else None

    def keep(self, module: str, tests: list[str], baseline: Baseline) -> None:
        """Keep what the tests do."""
        row = (module, digest([module, *tests]), pickle.dumps(tuple(baseline)))
        self.database.execute("INSERT OR REPLACE INTO baselines VALUES (?, ?, ?)", row)
        self.database.commit()


class _Bare(ast.NodeTransformer):
    """Empties texts, and takes annotations away: what no mutant changes, nor any result hangs on."""

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
    """Of what a module does, whatever its comments, texts and annotations are."""
    tree = ast.parse((ROOT / module).read_text())
    tree.body = [one for one in tree.body if not isinstance(one, ast.Import | ast.ImportFrom) and not is_alias(one)]
    return hashlib.sha256(ast.dump(_Bare().visit(tree)).encode()).hexdigest()[:16]


def is_alias(node: ast.stmt) -> bool:
    """Whether a statement names a type."""
    return isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation)


def digest(paths: list[str]) -> str:
    """Of the contents of files, and of the Python files in folders."""
    told = hashlib.sha256()
    for path in (ROOT / path for path in paths):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            told.update(file.read_bytes())
    return told.hexdigest()[:16]

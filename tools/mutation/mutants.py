"""The mutants of a module: by the meaningful operators of cosmic-ray, and by exchange of two arguments."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

OPERATORS = (
    *(f"core/ReplaceBinaryOperator_{pair}" for pair in (
        "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul",
        "BitAnd_BitOr", "BitOr_BitAnd",
    )),
    *(f"core/ReplaceComparisonOperator_{pair}" for pair in (
        "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is",
        "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "GtE_Lt", "Gt_LtE", "LtE_Gt",
    )),
    "core/ReplaceUnaryOperator_USub_UAdd",
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/AddNot",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/ReplaceBreakWithContinue",
    "core/ReplaceContinueWithBreak",
    "core/ZeroIterationForLoop",
    "core/NumberReplacer",
    "SwapArguments",
)  # fmt: skip
"""Operators: arithmetic to its inverse, each comparison to the one with or without equality and to its opposite, ...

Not used are the other operators of cosmic-ray: other pairs, which are cruder; exceptions, whose types tests name;
removal of decorators, which either breaks everything or only removes a cache; and insertion of names.
"""


SYMMETRIC = {"max", "min", "logaddexp", "isclose", "maximum", "minimum", "equal"}
"""Functions whose arguments can be exchanged."""


class SwapArguments(Operator):  # type: ignore[misc]
    """Exchanges two adjacent positional arguments of a call: f(a, b) becomes f(b, a)."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        for one, other in self._pairs(node):
            yield one.start_pos, other.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        one, other = self._pairs(node)[index]
        i, j = node.children.index(one), node.children.index(other)
        first, second = _text(one), _text(other)
        node.children[i] = _parsed(one.get_first_leaf().prefix + second)
        node.children[j] = _parsed(other.get_first_leaf().prefix + first)
        return node

    @staticmethod
    def _pairs(node: Any) -> list[tuple[Any, Any]]:
        called = node.type == "arglist" and node.parent.type == "trailer" and node.parent.children[0].value == "("
        if not called or node.parent.get_previous_leaf().value in SYMMETRIC:
            return []
        plain = [one for one in node.children[::2] if one.type != "argument"]  # neither named nor starred
        return [pair for pair in itertools.pairwise(plain) if _text(pair[0]) != _text(pair[1])]

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


Key = tuple[str, str, int]
"""The line before and after the change, and the number among identical changes in a module."""


def _text(node: Any) -> str:
    code: str = node.get_code(include_prefix=False)
    return code


def _parsed(code: str) -> Any:
    return parso.parse(code)  # type: ignore[no-untyped-call]


class Mutant(NamedTuple):
    """A change of one module.

    Args:
        module: Path of the module in the repository.
        operator: Name of the operator.
        occurrence: Number of the change among those that the operator can make in the module.
        line: Line of the change, from 1.
        function: Name of the function whose body is changed; None if the change is made when the module is imported.
        lines: First and last line of the statement; one of the tests that run it must fail.
        before: Line before the change.
        after: Line after the change.
        number: Number among the mutants with the same two lines.
    """

    module: str
    operator: str
    occurrence: int
    line: int
    function: str | None
    lines: tuple[int, int]
    before: str
    after: str
    number: int

    @property
    def key(self) -> Key:
        """Key that distinguishes it from the other mutants of its module, even if lines are moved."""
        return self.before, self.after, self.number


def operator_of(name: str) -> Any:
    """Find an operator by its name."""
    return SwapArguments() if name == "SwapArguments" else get_operator(name)()


@lru_cache(maxsize=64)
def mutated(source: str, operator: str, occurrence: int) -> str:
    """Return the source of a mutant."""
    text: str = mutate_code(source, operator_of(operator), occurrence)
    return text


def mutants_of(root: Path, module: str) -> list[Mutant]:
    """List every mutant of a module, in the order of its lines."""
    source = (root / module).read_text()
    lines, tree, map_ = source.splitlines(), get_ast(source), Map.of(source)
    mutants, numbers = [], Counter[tuple[str, str]]()
    for name in OPERATORS:
        operator = operator_of(name)
        places = [(place, node) for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        for occurrence, ((start, _), node) in enumerate(places):
            bare_star = node.type == "operator" and node.parent.type in ("parameters", "param")  # of a signature
            if map_.is_skipped(start) or bare_star or (name == "core/AddNot" and _compares(node)):
                continue
            text = mutated(source, name, occurrence)
            line = start[0]
            ast.parse(text)  # a mutant with a syntax error would count as killed
            after = text.splitlines()[line - 1].strip()
            where = map_.function(start), map_.statement(line)
            change = lines[line - 1].strip(), after
            numbers[change] += 1
            mutants.append(Mutant(module, name, occurrence, line, *where, *change, numbers[change]))
    return sorted(mutants, key=lambda one: (one.line, one.operator, one.occurrence))


def _compares(node: Any) -> bool:
    """Whether a condition is a single comparison, whose negation is a separate mutant."""
    condition = node.children[2 if node.type == "test" else 1]
    return condition.type == "comparison" and len(condition.children) == 3


Span = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Map:
    """Positions in a source.

    Args:
        skipped: Spans in which nothing is changed.
        functions: Spans of the bodies of functions, with their qualified names.
        statements: First and last lines of statements; for those with a body, of their heads only.
    """

    skipped: list[Span]
    functions: list[tuple[Span, str]]
    statements: list[tuple[int, int]]

    @staticmethod
    def of(source: str) -> Map:
        """Make the map of a module's source."""
        positions = Map([], [], [])
        positions._visit(ast.parse(source), "")
        return positions

    def is_skipped(self, at: tuple[int, int]) -> bool:
        """Whether nothing is changed at a position."""
        return any(start <= at < stop for start, stop in self.skipped)

    def function(self, at: tuple[int, int]) -> str | None:
        """Return the qualified name of the outermost function whose body contains a position."""
        return next((name for (start, stop), name in self.functions if start <= at < stop), None)

    def statement(self, line: int) -> tuple[int, int]:
        """Return the first and last line of the innermost statement at a line."""
        return min((one for one in self.statements if one[0] <= line <= one[1]), key=lambda one: one[1] - one[0])

    def _visit(self, node: ast.AST, within: str) -> None:
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno
            self.statements.append((node.lineno, max(node.lineno, end or 0)))
        if isinstance(node, ast.FunctionDef):
            name = f"{within}{node.name}"
            if not within.endswith("<locals>."):
                self.functions.append((((node.body[0].lineno, 0), _end(node)), name))
            self._skip(node.returns, *node.decorator_list, *(one.annotation for one in _arguments(node.args)))
            if node.name in ("__repr__", "__str__"):
                self._skip(node)
            within = f"{name}.<locals>."
        elif isinstance(node, ast.ClassDef):
            self._skip(*node.decorator_list)
            within = f"{within}{node.name}."
        elif isinstance(node, ast.AnnAssign):
            self._skip(node.annotation, node if "TypeAlias" in ast.unparse(node.annotation) else None)
        elif isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: an assertion
            self._skip(node.value)
        elif isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            self._skip(node)
        for child in ast.iter_child_nodes(node):
            self._visit(child, within)

    def _skip(self, *nodes: ast.expr | ast.stmt | None) -> None:
        self.skipped.extend(((node.lineno, node.col_offset), _end(node)) for node in nodes if node is not None)


def _end(node: ast.expr | ast.stmt) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or 0


def _arguments(of: ast.arguments) -> list[ast.arg]:
    more = [one for one in (of.vararg, of.kwarg) if one is not None]
    return [*of.posonlyargs, *of.args, *of.kwonlyargs, *more]

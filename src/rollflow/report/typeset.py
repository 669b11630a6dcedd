"""Tables and their forms in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from rollflow.bench.intervals import Interval
from rollflow.files.printable import printable

Cell: TypeAlias = Interval | int | str | None
"""Content of a cell; None for an empty one."""


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Args:
        title: Title of the table.
        columns: Names of the columns.
        rows: Rows, each with one cell per column.
        notes: Notes below the table.
        labels: Number of columns, from the left, that name the row.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    labels: int = 1


def shown(cell: Cell) -> str:
    """Return a cell as text; an interval is rounded to two digits of its width."""
    if not isinstance(cell, Interval):
        return "-" if cell is None else str(cell)
    width = cell.high - cell.low
    if not width > 0:
        return cell.text(f"{cell.mean:.6g}", f"{cell.low:.6g}, {cell.high:.6g}")
    digits = min(max(1 - math.floor(math.log10(width)), 0), 8)
    return cell.text(f"{cell.mean:.{digits}f}", f"{cell.low:.{digits}f}, {cell.high:.{digits}f}")


def markdown(tables: Iterable[Table]) -> str:
    """Return tables in GitHub's Markdown, each under its title."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *([shown(cell) for cell in row] for row in table.rows)]
    lines = ["| " + " | ".join(map(plain, row)) + " |" for row in rows]
    return "\n".join([f"## {plain(table.title)}", "", *lines, "", *map(plain, table.notes), ""])


def plain(text: str) -> str:
    """Return text on one line, escaped for Markdown."""
    return re.sub(r"([\\|<`]|\](?=[(\[:]))", r"\\\1", " ".join(printable(text).split()))


def quoted(text: str) -> str:
    """Return text on one line as a Markdown code span, between more backticks than it has in a row."""
    line = " ".join(printable(text).split())
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


_FORMULA = re.compile(
    r"(?:^|(?<!^)[;\t\n])(?![+-]?[\d.]+(?:[;,)\s]|$))"
    r"(?=[\s\u200b-\u200d\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])"
)
"""Start of a spreadsheet formula, possibly with a full-width sign.

It may stand at the beginning of a cell, or after a semicolon or tab, where some programs begin a new cell.
"""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"{{{sign}}}" for sign in "[]"},  # a row that begins with a bracket would be an argument of \\
}


def escaped(text: str) -> str:
    """Return text on one line, escaped for LaTeX."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(printable(text).split()))


def latex(tables: Iterable[Table]) -> str:
    r"""Return tables in LaTeX, for ``\usepackage{booktabs}``."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    def row(cells: Iterable[Cell]) -> str:
        return " & ".join(escaped(shown(cell)) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(' '.join((table.title + '.', *table.notes)))}}}",
            rf"\begin{{tabular}}{{{'l' * table.labels}{'r' * (len(table.columns) - table.labels)}}}",
            r"\toprule",
            row(table.columns),
            r"\midrule",
            *map(row, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def comma_separated(tables: Iterable[Table]) -> str:
    """Return tables as CSV with one line per cell: its interval in full digits, or a note of why it has none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", "row", "column", "value", "low", "high", "note"])
    for table in tables:
        for row in table.rows:
            name = " / ".join(map(shown, row[: table.labels]))
            for column, cell in list(zip(table.columns, row, strict=True))[table.labels :]:
                writer.writerow(map(_inert, [table.title, name, column, *_values(cell)]))
    return file.getvalue()


def _inert(value: object) -> object:
    """Return a value that spreadsheets show rather than compute; numbers are unchanged."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\g<0>'", text)


def _values(cell: Cell) -> tuple[object, ...]:
    if not isinstance(cell, Interval):
        return ("" if cell is None else cell, "", "", "")
    return (cell.mean, *(("", "") if cell.lacking else (cell.low, cell.high)), cell.lacking)

"""Text files with the tables of an experiment."""

from __future__ import annotations

from collections.abc import Sequence

from rollflow.bench.analysis.results import ExperimentResults
from rollflow.report.typeset import Table, comma_separated, latex, markdown, plain, quoted

SUFFIXES = (".md", ".csv", ".tex")


def texts(results: ExperimentResults, tables: Sequence[Table]) -> tuple[str, str, str]:
    """Return the contents of the Markdown, CSV and LaTeX files of an experiment, in the order of ``SUFFIXES``."""
    head = f"# {plain(results.config['name'])}\n\n"
    origin = f"Of the experiment that {quoted(results.command)} ran; w" if results.command else "W"
    return (
        f"{head}{origin}ritten by `rollflow report`.\n\n{markdown(tables)}",
        comma_separated(tables),
        f"% Written by rollflow report\n{latex(tables)}",
    )

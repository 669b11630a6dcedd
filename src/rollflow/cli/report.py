"""``rollflow report`` and ``rollflow compare``: reports and comparisons of experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rollflow.cli.errors import refusing
from rollflow.errors import RollflowError
from rollflow.files.printable import printable

_FOLDER_OR_FILE = "Folder of 'rollflow bench run' or file of 'rollflow bench pack'"


def report(
    experiment: Annotated[Path, typer.Argument(help=f"{_FOLDER_OR_FILE}.", metavar="EXPERIMENT")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, NAME.html; tables are written beside it.  [default: report.html in the folder]"
        ),
    ] = None,
    gallery: Annotated[int, typer.Option(min=0, help="Number of rows of pictures, one row per prompt and seed.")] = 8,
) -> None:
    """Write a self-contained HTML report of an experiment, and its tables as Markdown, CSV and LaTeX."""

    with refusing(2):
        from rollflow.bench.analysis.results import read
        from rollflow.files.atomic import check_folder, using, write
        from rollflow.files.own import check_own
        from rollflow.report.page import page
        from rollflow.report.tables import tables
        from rollflow.report.texts import SUFFIXES, texts

        results = read(experiment)
        target = out or (
            experiment / "report.html" if results.pictures else experiment.with_name(f"{results.name}.html")
        )
        if target.suffix.lower() != ".html":
            raise RollflowError(f"a report is an HTML file; got '{target}', expected a name that ends in .html")
        beside = [f"{target.stem}{suffix}" for suffix in SUFFIXES]
        check_own(target.parent, beside if out else [target.name, *beside])
        tabulated = tables(results)
        written = dict(zip(beside, texts(results, tabulated), strict=True))
        files = {target.name: page(results, tabulated, gallery), **written}
        check_folder(target.parent)
        contents = {name: text.encode() for name, text in files.items()}
        with using(target.parent):
            write(target.parent, contents)
    wrote = ", ".join(str(target.parent / name) for name in files)
    print(f"{printable(f'wrote {wrote}')}\n{results.missing}")


def compare(
    first: Annotated[Path, typer.Argument(help=f"{_FOLDER_OR_FILE}, to compare with.", metavar="FIRST")],
    second: Annotated[Path, typer.Argument(help=f"{_FOLDER_OR_FILE}, to compare.", metavar="SECOND")],
    out: Annotated[Path | None, typer.Option(help="Markdown file to also write the comparison to.")] = None,
) -> None:
    """Compare two experiments: settings that differ, and paired reward differences of the arms that both have."""

    with refusing(2):
        from rollflow.bench.analysis.results import read
        from rollflow.files.atomic import check_folder, using, write
        from rollflow.report.comparison import compared
        from rollflow.report.typeset import markdown, plain

        results = read(first), read(second)
        head = f"# {plain(results[0].name)} and {plain(results[1].name)}\n\n"
        text = head + markdown(compared(*results))
        if out is not None:
            check_folder(out.parent)
            with using(out.parent):
                write(out.parent, {out.name: text.encode()})
    print(text, end="")

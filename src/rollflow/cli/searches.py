"""``rollflow bench searches``: searches of an experiment at several budgets, as a page and a figure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from rollflow.cli.errors import refusing
from rollflow.files.printable import printable


def searches(
    experiment: Annotated[
        Path,
        typer.Argument(help="Folder of 'rollflow bench run' or file of 'rollflow bench pack'.", metavar="EXPERIMENT"),
    ],
    out: Annotated[Path, typer.Option(help="Output folder for the page and the figure.")] = Path("."),
) -> None:
    """Compare the searches of an experiment at equal budgets, and the NFE that each needs for best of N's reward.

    Arms are called by their search and their budget, as those of the preset hard.
    """
    with refusing(2):
        from rollflow.bench.analysis.results import read
        from rollflow.files.atomic import check_folder, using, write
        from rollflow.files.own import check_own
        from rollflow.output.plots import figure_png
        from rollflow.report.searches_figure import searches_plot
        from rollflow.report.searches_page import searches_markdown

        results = read(experiment)
        name = re.sub(r"[^\w.-]+", "-", f"searches-{results.name}")[:100]
        files = [f"{name}.md", f"{name}.png"]
        check_own(out, files)
        text = searches_markdown(results, files[1])
        check_folder(out)
        with using(out):
            write(out, dict(zip(files, (text.encode(), figure_png(searches_plot(results))), strict=True)))
    typer.echo(printable(f"wrote {out / name}.md and .png\n{results.missing}"))

"""``rollflow report`` and ``rollflow compare``: what is made of experiment folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rollflow.cli.errors import refusing
from rollflow.errors import RollflowError
from rollflow.files.printable import printable

ExperimentArgument = Annotated[Path, typer.Argument(help="Folder of 'rollflow bench run'.", metavar="DIR")]


def report(
    folder: ExperimentArgument,
    out: Annotated[
        Path | None, typer.Option(help="The file, NAME.html; the tables go beside it.  [default: DIR/report.html]")
    ] = None,
    gallery: Annotated[int, typer.Option(min=0, help="Prompts and seeds shown in pictures.")] = 8,
) -> None:
    """Write one self-contained HTML file of an experiment, and its tables as Markdown, CSV and LaTeX."""

    with refusing(2):
        from rollflow.bench.analysis import results
        from rollflow.bench.run.folder import using
        from rollflow.files.atomic import check_folder, write
        from rollflow.files.own import check_own
        from rollflow.report import tables, typeset
        from rollflow.report.page import page

        target = out or folder / "report.html"
        if target.suffix.lower() != ".html":
            raise RollflowError(f"a report is an HTML file; got '{target}', expected a name that ends in .html")
        told = results.read(folder)
        beside = [f"{target.stem}{suffix}" for suffix in (".md", ".csv", ".tex")]
        check_own(target.parent, beside if out else [target.name, *beside])
        found = tables.tables(told)
        head = f"# {typeset.plain(told.config['name'])}\n\n"
        of = f"Of the experiment that {typeset.quoted(told.command)} ran; w" if told.command else "W"
        head += f"{of}ritten by `rollflow report`.\n\n"
        texts = (
            f"{head}{typeset.markdown(found)}",
            typeset.comma_separated(found),
            f"% Written by rollflow report\n{typeset.latex(found)}",
        )
        files = {target.name: page(told, found, folder, gallery), **dict(zip(beside, texts, strict=True))}
        check_folder(target.parent)
        contents = {name: text.encode() for name, text in files.items()}
        with using(target.parent):
            write(target.parent, contents)
    wrote = ", ".join(str(target.parent / name) for name in files)
    print(f"{printable(f'wrote {wrote}')}\n{told.missing}")


def compare(
    first: ExperimentArgument,
    second: ExperimentArgument,
    out: Annotated[Path | None, typer.Option(help="Write it to this Markdown file, too.")] = None,
) -> None:
    """Compare two experiments: the settings that differ, and the rewards of arms that both have, pair by pair."""

    with refusing(2):
        from rollflow.bench.analysis import results
        from rollflow.bench.run.folder import using
        from rollflow.files.atomic import check_folder, write
        from rollflow.report import tables, typeset

        studies = results.read(first), results.read(second)
        head = f"# {typeset.plain(studies[0].name)} and {typeset.plain(studies[1].name)}\n\n"
        text = head + typeset.markdown(tables.compared(*studies))
        if out is not None:
            check_folder(out.parent)
            with using(out.parent):
                write(out.parent, {out.name: text.encode()})
    print(text, end="")

"""``rollflow bench composition``: searches on the compositional toy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rollflow.cli.errors import refusing
from rollflow.errors import BadSetting

NAME = "composition"


def composition(
    seeds: Annotated[int, typer.Option(min=1, max=100_000, help="Number of seeds per cell.")] = 200,
    budgets: Annotated[str, typer.Option(help="Budgets in NFE, separated by commas.")] = "25,50,100,200,400,800",
    trajectories: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Number of trajectories without selection per dynamics.")
    ] = 10_000,
    out: Annotated[
        Path, typer.Option(help="Output folder for the plot and its tables, written after every budget.")
    ] = Path("."),
    resume: Annotated[bool, typer.Option(help="Continue a comparison that was begun in the output folder.")] = False,
) -> None:
    """Compare all searches at equal budgets on a closed-form model whose many parts have to come right together."""
    from rollflow.bench.probes.composition import compositional_toy
    from rollflow.bench.probes.composition_table import (
        PLATEAUED,
        SMOOTH,
        CellsByReward,
        composition_markdown,
        exact_right,
        measure_composition,
        plain_trajectories,
        resumed,
        saved,
    )
    from rollflow.bench.probes.outcomes import curves
    from rollflow.bench.probes.plots import shares_plot
    from rollflow.cli.bench import budgets_of
    from rollflow.files.atomic import check_folder, discard, using, write
    from rollflow.files.documents import read_text
    from rollflow.files.own import check_own
    from rollflow.output.plots import figure_png

    wanted, setting, part = budgets_of(budgets), compositional_toy(), out / f"{NAME}.part.json"
    known: CellsByReward = {SMOOTH: {}, PLATEAUED: {}}
    with refusing(2):
        check_own(out, [f"{NAME}.md", f"{NAME}.png", part.name])
        check_folder(out)
        if part.exists() and not resume:
            raise BadSetting(f"'{part}' is the beginning of a comparison; add --resume to continue it, or remove it")
        if part.exists():
            known = resumed(read_text(part), setting, seeds)
    with refusing(1):
        plain = plain_trajectories(setting, trajectories)
        for nfe in wanted:
            if nfe not in known[SMOOTH]:
                for reward, column in measure_composition(setting, nfe, seeds).items():
                    known[reward][nfe] = column
            shown: CellsByReward = {name: {n: known[name][n] for n in wanted if n in known[name]} for name in known}
            command = f"rollflow bench {NAME} --seeds {seeds} --budgets {','.join(map(str, shown[SMOOTH]))}"
            if trajectories != 10_000:
                command += f" --trajectories {trajectories}"
            text = composition_markdown(setting, shown, plain, command, seeds)
            panels = {f"{name} reward": curves(column, lambda cell: cell.hits) for name, column in shown.items()}
            figure = shares_plot(panels, {"exact: best of NFE / 10 samples": exact_right(setting, list(shown[SMOOTH]))})
            files = {f"{NAME}.md": text.encode(), f"{NAME}.png": figure_png(figure), part.name: saved(known, seeds)}
            with using(out):
                write(out, files)
            typer.echo(f"{nfe} NFE: wrote {out / NAME}.md and .png")
        with using(out):
            discard(part)

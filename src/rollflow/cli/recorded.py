"""``rollflow bench recorded``: searches on recorded rewards."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from rollflow.cli.errors import refusing
from rollflow.errors import BadSetting


def recorded(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="Profile of 'rollflow bench profile', or NumPy array (.npy, .npz) of rewards (prompts, trajectories, "
            "steps + 1), the finished reward last.",
            metavar="FILE",
        ),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(help="Search that does not branch, such as bon or halving(brackets=4); may be given repeatedly."),
    ] = None,
    budgets: Annotated[
        str | None, typer.Option(help="Budgets in NFE, separated by commas.  [default: 2, 4, 8, ... trajectories]")
    ] = None,
    reference: Annotated[
        int | None, typer.Option(help="Budget of best of N whose reward is to be reached.  [default: the largest]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100_000, help="Number of seeds per prompt and budget.")] = 20,
    out: Annotated[Path, typer.Option(help="Output folder for the table and the plot.")] = Path("."),
) -> None:
    """Compare searches that do not branch on recorded rewards, without a model."""
    from rollflow.bench.intervals import interval
    from rollflow.bench.probes.plots import budgets as budgets_plot
    from rollflow.bench.probes.recorded import Recording, check_replayable
    from rollflow.bench.probes.recorded_table import (
        DESIGNED,
        ReplayedCurve,
        best_of_n,
        recorded_markdown,
        replayed,
        replayed_designed,
    )
    from rollflow.cli.bench import budgets_of
    from rollflow.files.atomic import check_folder, using, write
    from rollflow.files.own import check_own
    from rollflow.output.plots import figure_png
    from rollflow.search import SEARCHES

    with refusing(2):
        recording = Recording.load(file)
        counts = [2**i for i in range(1, 20) if 2**i <= recording.trajectories]
        wanted = sorted(budgets_of(budgets)) if budgets else [n * recording.steps for n in counts or [1]]
        exact = best_of_n(recording, wanted)
        last = max(exact.values, default=0) if reference is None else reference
        if last not in exact.values:
            raise BadSetting(
                f"best of N has no value at {last or wanted[-1]} NFE; choose a budget of {recording.steps} to "
                f"{recording.steps * recording.trajectories} NFE"
            )
        searches = {text: SEARCHES.make(text) for text in method or ("halving", "halving(brackets=4)")}
        for search in searches.values():
            check_replayable(search)
        name = re.sub(r"[^\w.-]+", "-", f"recorded-{file.stem}")[:100]
        check_own(out, [f"{name}.md", f"{name}.png"])
        check_folder(out)
    with refusing(1):
        curves = [exact]
        for text, search in searches.items():
            curves.append(ReplayedCurve(text, replayed(recording, search, wanted, seeds)))
        if method is None and recording.prompts > 1:
            curves.append(ReplayedCurve(DESIGNED, replayed_designed(recording, wanted, seeds)))
        text = recorded_markdown(recording, curves, wanted, last, shlex.join(["rollflow", *context.obj]))
        shown = {curve.label: {nfe: interval(v) for nfe, v in curve.values.items()} for curve in curves}
        with using(out):
            write(out, {f"{name}.md": text.encode(), f"{name}.png": figure_png(budgets_plot(shown, {}))})
    typer.echo(f"wrote {out / name}.md and .png")

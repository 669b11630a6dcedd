"""``rollflow replay``: run one job of an experiment again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rollflow.cli.errors import complain, refusing
from rollflow.files.printable import printable


def replay(
    experiment: Annotated[
        Path,
        typer.Argument(help="Folder of 'rollflow bench run' or file of 'rollflow bench pack'.", metavar="EXPERIMENT"),
    ],
    job: Annotated[
        str,
        typer.Argument(help="Id of the job, or a prefix of it; an unknown id lists some known ones.", metavar="JOB"),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, or .webp for every frame of a film.  [default: none]")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Allow modules, files, models and servers that the experiment names."),
    ] = False,
) -> None:
    """Run one job of an experiment again and check that its sample is the same to the last bit."""
    from rollflow.bench.replay import replay as again
    from rollflow.errors import BadSetting
    from rollflow.files.atomic import check_folder, using, write
    from rollflow.files.pictures import ENCODERS

    with refusing(2):
        if out is not None and out.suffix.lower() not in ENCODERS:
            raise BadSetting(f"'{out}' is neither a .png nor a .webp file, which keep every bit; choose another name")
        if out is not None:
            check_folder(out.parent)
        replayed = again(experiment, job, trusted=trust)
        if out is not None:
            picture = ENCODERS[out.suffix.lower()](replayed.result.sample)
            with using(out.parent):
                write(out.parent, {out.name: picture})
    record = replayed.record
    line = f"{record.arm}, '{record.prompt}', seed {record.seed}: reward {replayed.result.reward:.6g}"
    print(printable(" ".join(line.split())))
    if not replayed.same:
        why = "; ".join([*replayed.provenance, *replayed.versions]) or "all else is the same, so the processor differs"
        complain(f"the sample differs from the recorded one, whose reward is {record.reward:.6g}: {why}")
        raise typer.Exit(1)
    print("the same to the last bit")

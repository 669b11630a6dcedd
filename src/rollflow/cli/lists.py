"""``rollflow methods``, ``models`` and ``rewards``: lists of everything that can be chosen by name, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from rollflow.cli import catalogue, tables
from rollflow.cli.catalogue import Entry
from rollflow.errors import install_command

AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON list with everything that is known of each.")]


def methods(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show the update rule, reference, cost and settings of each."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the search methods; with --verbose, also kernels, grids, look-aheads and guidance."""
    kinds = ("methods", "kernels", "interpolants", "grids", "lookaheads", "guidance") if verbose else ("methods",)
    _show([catalogue.entries(kind) for kind in kinds], verbose=verbose, as_json=as_json)


def models(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the settings of each, and every tested pipeline.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models that have a name, and what diffusers adds."""
    pipeline = _diffusers()
    if as_json or not verbose:
        _show([[*catalogue.entries("models"), pipeline]], verbose=verbose, as_json=as_json)
        return
    _show([catalogue.entries("models")], verbose=True, as_json=False)
    print(f"\n{pipeline.name}\n    {pipeline.description}\n    {pipeline.doc}".replace("\n    \n", "\n\n"))


def rewards(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show the range, size, memory, licence, reference and settings of each."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the rewards."""
    _show([catalogue.entries("rewards")], verbose=verbose, as_json=as_json)


def _show(kinds: Sequence[Sequence[Entry]], *, verbose: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps([entry._asdict() for entries in kinds for entry in entries], indent=2))
    elif verbose:
        print("\n\n".join(map(tables.explained, kinds)))
    else:
        print("\n\n".join(map(tables.listed, kinds)))


def _diffusers() -> Entry:
    """The entry that stands for all pipelines of diffusers."""
    try:
        how = f"diffusers {metadata.version('diffusers')} is installed"
    except metadata.PackageNotFoundError:
        how = f"needs: {install_command(['diffusers'], 'diffusers')}"
    tested = catalogue.pipelines()
    families = "FLUX, SD3, SDXL, SANA, Qwen-Image, Wan, ..."
    return Entry(
        "model",
        "owner/name",
        f"any text-to-image or text-to-video pipeline of diffusers, from the hub or a folder: {families} ({how})",
        facts={"tested": ", ".join(tested)},
        doc=f"{len(tested)} pipelines are tested: {', '.join(tested)}.",
    )

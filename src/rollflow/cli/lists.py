"""``rollflow methods``, ``models`` and ``rewards``: lists of everything that can be chosen by name."""

from __future__ import annotations

from typing import Annotated

import typer


def methods(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show the update rule, reference, cost and settings of each."),
    ] = False,
) -> None:
    """List the search methods; with --verbose, also kernels, grids, look-aheads and guidance."""
    from rollflow.cli import tables
    from rollflow.dynamics.grids import GRIDS
    from rollflow.dynamics.guidance import GUIDANCE
    from rollflow.dynamics.interpolants import INTERPOLANTS
    from rollflow.dynamics.kernels import KERNELS
    from rollflow.dynamics.lookahead import LOOKAHEADS
    from rollflow.search import SEARCHES

    if verbose:
        registries = (SEARCHES, KERNELS, INTERPOLANTS, GRIDS, LOOKAHEADS, GUIDANCE)
        print("\n\n".join(tables.explained(registry) for registry in registries))
    else:
        print(tables.listed(SEARCHES))


def models() -> None:
    """List the models that have a name; --model also takes any diffusers pipeline."""
    from rollflow.cli import tables
    from rollflow.models import MODELS

    print(tables.listed(MODELS))


def rewards(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show the range, size, memory, licence, reference and settings of each."),
    ] = False,
) -> None:
    """List the rewards."""
    from rollflow.cli import tables
    from rollflow.rewards import REWARDS

    print(tables.explained_rewards(REWARDS) if verbose else tables.listed(REWARDS))

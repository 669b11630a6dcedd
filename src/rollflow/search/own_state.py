"""Searches must keep no state in themselves, since all populations and jobs share them and no checkpoint saves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from rollflow.canonical import canonical
from rollflow.errors import RollflowError


def settings_of(search: object) -> dict[str, str]:
    """Describe the attributes of a search by name, without cached properties, which follow from the others."""
    return {
        name: canonical(value)
        for name, value in vars(search).items()
        if not isinstance(getattr(type(search), name, None), cached_property)
    }


def changed_settings(search: object, before: Mapping[str, str]) -> list[str]:
    """Return the names of the attributes that are not as ``settings_of`` described them before."""
    now = settings_of(search)
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def own_state(method: str, changed: Sequence[str]) -> str:
    """Say what is wrong with a search that changes itself while it runs."""
    return (
        f"method '{method}' changes its own {', '.join(changed)} while it runs, which all populations and jobs share "
        "and no checkpoint saves; keep what a population needs in a local variable, and give it to propagator.save as "
        "extra"
    )


def drew(method: str) -> RollflowError:
    """Make the error for a search that draws numbers which depend on what else was drawn."""
    return RollflowError(f"method '{method}' drew from torch's own generator; draw only from propagator.noise")

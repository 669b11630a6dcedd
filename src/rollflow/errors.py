"""Errors whose text says what was got, what was expected and what to do; the command line prints them in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RollflowError(Exception):
    """Root of every error that a user can cause and mend."""


class UnknownName(RollflowError, ValueError):
    """A name that no registry holds."""


class BudgetTooSmall(RollflowError, ValueError):
    """A budget that the method cannot run in; ``smallest`` is the least that it can.

    Args:
        method: Name of the search.
        nfe: The budget given.
        smallest: The smallest budget that works with the same settings.
    """

    def __init__(self, method: str, nfe: int, smallest: int) -> None:
        super().__init__(f"{method} cannot run in {nfe} NFE with these settings; the smallest budget is {smallest} NFE")
        self.smallest = smallest


class BudgetExceeded(RollflowError):
    """A request beyond a cap of the meter; it was refused before anything was evaluated."""


class BadReward(RollflowError):
    """A reward that is not one finite number a sample, or that refuses the sample."""


class RewardUnavailable(RollflowError):
    """A reward that does not answer, for now; a job ends with the best that it has, and can be gone on with."""


class BadWeights(RollflowError):
    """A weights file that is missing, cut short or not what the network expects."""


class BadCheckpoint(RollflowError):
    """A checkpoint that cannot be read, or that another job wrote."""


class NotDifferentiable(RollflowError, ValueError):
    """Guidance was asked for by a reward that no gradient flows through."""


def unknown(what: str, name: str, known: Iterable[str]) -> UnknownName:
    """The error for an unknown name, with the nearest known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UnknownName(f"unknown {what} '{name}'; {hint}known: {', '.join(names)}")

"""Arms of the comparison of rewards to search by and to choose by."""

from __future__ import annotations

from rollflow.bench.run.experiment import Arm
from rollflow.bench.run.preset_arms import PLAIN

SURROGATES: dict[str, str | bool] = {
    "the reward itself": False,
    "5 shifted views": "augmented(reward=caption, mirror=false)",
    "2 mirrored views": "augmented(reward=caption, shift=0)",
    "10 views": "augmented(reward=caption)",
    "10 views, pessimistic": "augmented(reward=caption, penalty=0.5)",
    "count-smooth": "count-smooth",
}
"""What the default search optimises in place of ``caption``, by the name of the arm."""
CHOICE = "augmented(reward=caption)"
"""Second reward that chooses among the last candidates."""


def surrogate_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the default search by several rewards, and by the reward itself with a final choice.

    At the noise levels of ``auto`` finishing is free, so that the choice is among all children of the last step.
    """
    arms = [Arm(name, "auto", nfe, surrogate=surrogate) for name, surrogate in SURROGATES.items()]
    return PLAIN, *arms, Arm("chosen by 10 views", "auto", nfe, choose_by=CHOICE)

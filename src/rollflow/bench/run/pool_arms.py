"""Arms of the comparison of a shared budget with an even split."""

from __future__ import annotations

from rollflow.bench.run.experiment import Arm
from rollflow.bench.run.preset_arms import PLAIN

EVEN = (40, 60, 80, 100, 150)
"""Budgets in NFE of an even split."""
POOLED = (40, 60, 80)
"""Mean budgets in NFE of a shared one."""
UNTIL = 0.9
"""Reward ``caption`` at which a prompt leaves the rest to the others."""


def pool_arms(nfe: int) -> tuple[Arm, ...]:
    """Return the default search with the budgets up to ``nfe``, and with those that the prompts of a seed share."""
    even = [Arm(f"auto, {one}", "auto", one) for one in EVEN if one <= nfe]
    shared = [Arm(f"auto pooled, {one}", "auto", one, pool_until=UNTIL) for one in POOLED if one <= nfe]
    return PLAIN, *even, *shared

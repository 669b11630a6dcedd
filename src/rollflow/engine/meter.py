"""Exact accounting of what a job spends."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from rollflow.checks import MOST_SEED, whole
from rollflow.errors import BudgetExceeded
from rollflow.models.base import FlowModel
from rollflow.requests import Decode, Grad, Request, Reward, Velocity


@dataclass(frozen=True)
class Spending:
    """Amounts of everything that has a cost.

    Args:
        nfe: Guided velocity evaluations of one sample, the unit of budgets.
        network_rows: Rows passed through the network; with classifier-free guidance, two for each NFE.
        reward_calls: Samples scored by the reward that is optimised, and by that of the final choice.
        decodes: Samples decoded, to be scored or returned.
        backward_passes: Samples that were differentiated through.
    """

    nfe: int = 0
    network_rows: int = 0
    reward_calls: int = 0
    decodes: int = 0
    backward_passes: int = 0

    def __add__(self, other: Spending) -> Spending:
        return Spending(
            self.nfe + other.nfe,
            self.network_rows + other.network_rows,
            self.reward_calls + other.reward_calls,
            self.decodes + other.decodes,
            self.backward_passes + other.backward_passes,
        )


def price(request: Request, model: FlowModel) -> Spending:
    """Return the cost of answering a request."""
    match request:
        case Velocity(x):
            return Spending(nfe=len(x), network_rows=len(x) * model.rows_per_nfe)
        case Grad(x):
            n = len(x)
            return Spending(n, n * model.rows_per_nfe, n, n, n)
        case Reward(x0):
            return Spending(reward_calls=len(x0), decodes=len(x0))
        case Decode(x0):
            return Spending(decodes=len(x0))
    return Spending()


@dataclass(frozen=True)
class Caps:
    """Limits on the amounts of ``Spending``; None sets no limit."""

    nfe: int | None = None
    network_rows: int | None = None
    reward_calls: int | None = None
    decodes: int | None = None
    backward_passes: int | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            cap = getattr(self, f.name)
            if cap is not None:
                object.__setattr__(self, f.name, whole(f"{f.name} of Caps", cap, at_least=0, at_most=MOST_SEED))


@dataclass
class Meter:
    """Counts spending up to the caps: a debit that would exceed one of them is refused as a whole.

    Args:
        caps: Limits.
        spent: Amounts so far.
    """

    caps: Caps
    spent: Spending = field(default_factory=Spending)

    def debit(self, amount: Spending) -> None:
        """Add the cost of a request before it is evaluated.

        Raises:
            BudgetExceeded: If a cap would be exceeded; nothing is added then.
        """
        after = self.spent + amount
        for f in fields(Caps):
            cap, wanted = getattr(self.caps, f.name), getattr(after, f.name)
            if cap is not None and wanted > cap:
                raise BudgetExceeded(f"{f.name}: {wanted} would exceed the cap of {cap}; raise the cap or ask for less")
        self.spent = after

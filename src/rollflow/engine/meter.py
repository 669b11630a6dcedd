"""The exact account of what a job spends."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from rollflow.checks import MOST_SEED, whole
from rollflow.errors import BudgetExceeded


@dataclass(frozen=True)
class Spending:
    """Amounts of everything that costs.

    Args:
        nfe: Guided velocity evaluations of one sample, the paper's unit.
        network_rows: Rows through the network; classifier-free guidance takes two a NFE.
        reward_calls: Samples scored by the reward that is optimised.
        decodes: Samples decoded, to be scored or to be returned.
        backward_passes: Samples differentiated through.
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


@dataclass(frozen=True)
class Caps:
    """The most of each that may be spent; None is no limit."""

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
    """Counts up to the caps and never beyond: a debit that would pass one is refused whole.

    Args:
        caps: Limits.
    """

    caps: Caps
    spent: Spending = field(default_factory=Spending)

    def debit(self, amount: Spending) -> None:
        """Account for a request before it is evaluated.

        Raises:
            BudgetExceeded: If any cap would be passed; nothing is debited then.
        """
        after = self.spent + amount
        for f in fields(Caps):
            cap, wanted = getattr(self.caps, f.name), getattr(after, f.name)
            if cap is not None and wanted > cap:
                raise BudgetExceeded(f"{f.name}: {wanted} would pass the cap of {cap}; raise the cap or ask for less")
        self.spent = after

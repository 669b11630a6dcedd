"""When a chain that draws children one at a time has found one that is good enough."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rollflow.checks import Settings, real, whole
from rollflow.registry import Registry


class Drawn(NamedTuple):
    """What is known after a draw.

    Args:
        rewards: Of the children of this parent, in the order drawn; at least one above -inf, which is the reward of a
            child that must not be chosen.
        parent: Reward of the parent.
        best: The best reward among all that the chain has taken.
    """

    rewards: tuple[float, ...]
    parent: float
    best: float


class Acceptance(Settings, ABC):
    """Whether to stop drawing, asked after every child; the best child drawn is then taken.

    Attributes:
        name: As on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def accepts(self, drawn: Drawn) -> bool:
        """A pure function of what was drawn."""


@dataclass(frozen=True)
class BestSoFar(Acceptance):
    """A child beats the best so far: r > r* (Kim et al. 2025, arXiv 2503.19385, algorithm 1)."""

    name = "best"

    def accepts(self, drawn: Drawn) -> bool:
        return max(drawn.rewards) > drawn.best


@dataclass(frozen=True)
class OverParent(Acceptance):
    """A child beats its parent: easier than ``BestSoFar`` where the best so far was lost on the way."""

    name = "parent"

    def accepts(self, drawn: Drawn) -> bool:
        return max(drawn.rewards) > drawn.parent


@dataclass(frozen=True)
class OverQuantile(Acceptance):
    """The child just drawn beats a share q of the children of its parent, itself counted among them.

    Only children of one parent are compared, whose rewards are of one noise level. The first that can be accepted is
    number 1 / (1 - q), rounded up; from there on a child is, with probability about 1 - q, unless rewards are equal.

    Args:
        q: In [0, 1); 0 takes the first child.
    """

    q: float = 0.8
    name = "quantile"

    def __post_init__(self) -> None:
        super().__post_init__()
        real("q of quantile", self.q, at_least=0, below=1)

    def accepts(self, drawn: Drawn) -> bool:
        return sum(reward < drawn.rewards[-1] for reward in drawn.rewards) / len(drawn.rewards) >= self.q


@dataclass(frozen=True)
class AtLeast(Acceptance):
    """Another rule, not asked before ``draws`` children were drawn.

    Args:
        draws: >= 1; 1 is the other rule itself.
        rule: The other rule.
    """

    draws: int = 5
    rule: Acceptance = BestSoFar()
    name = "at-least"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("draws of at-least", self.draws, at_least=1)

    def accepts(self, drawn: Drawn) -> bool:
        return len(drawn.rewards) >= self.draws and self.rule.accepts(drawn)


ACCEPTANCES: Registry[Acceptance] = Registry(
    "acceptance", Acceptance, {rule.name: rule for rule in (BestSoFar, OverParent, OverQuantile, AtLeast)}
)
"""Every acceptance rule, by its name on the command line."""

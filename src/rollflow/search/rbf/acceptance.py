"""Acceptance rules: when a chain that draws children one at a time stops drawing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rollflow.checks import Settings, real, whole
from rollflow.registry import Registry


class Drawn(NamedTuple):
    """What a chain knows after a draw.

    Args:
        rewards: Rewards of this parent's children in the order drawn, at least one of them above -inf, the reward of a
            child that must not be chosen.
        parent: Reward of the parent.
        best: Best reward among the particles that the chain has taken.
    """

    rewards: tuple[float, ...]
    parent: float
    best: float


class Acceptance(Settings, ABC):
    """A rule that decides after every child whether to stop drawing; the best child drawn is then taken.

    Attributes:
        name: Name on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def accepts(self, drawn: Drawn) -> bool:
        """Return whether to stop; a pure function of what was drawn."""


@dataclass(frozen=True)
class BestSoFar(Acceptance):
    """Stop at a child that beats the best so far: r > r* (Kim et al. 2025, arXiv 2503.19385, algorithm 1)."""

    name = "best"

    def accepts(self, drawn: Drawn) -> bool:
        return max(drawn.rewards) > drawn.best


@dataclass(frozen=True)
class OverParent(Acceptance):
    """Stop at a child that beats its parent: easier than ``BestSoFar`` if the best so far was lost on the way."""

    name = "parent"

    def accepts(self, drawn: Drawn) -> bool:
        return max(drawn.rewards) > drawn.parent


@dataclass(frozen=True)
class OverQuantile(Acceptance):
    """Stop if the child just drawn beats a share q of all children of its parent, itself included.

    Only children of one parent are compared, whose rewards belong to one noise level. The first child that can be
    accepted is number 1 / (1 - q), rounded up; from there on a child is accepted with probability about 1 - q, unless
    rewards are equal.

    Args:
        q: Share of the children to beat, in [0, 1); 0 takes the first child.
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
    """Apply another rule only after ``draws`` children have been drawn.

    Args:
        draws: Smallest number of children to draw, >= 1; 1 is the other rule itself.
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

"""Suites: the named sets of prompts that experiments run on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from rollflow.prompts import Prompt


@dataclass(frozen=True)
class Item:
    """One prompt of a suite.

    Args:
        prompt: Text of the prompt.
        category: Category of the prompt; empty if the suite has none.
        ask: Number of each thing that the prompt asks for; None reads it from the prompt's words.
    """

    prompt: str
    category: str = ""
    ask: Mapping[str, int] | None = None

    @property
    def asked(self) -> str:
        """Prompt as a job takes it."""
        return self.prompt if self.ask is None else Prompt(self.prompt, self.ask)


@dataclass(frozen=True)
class Suite:
    """A named set of prompts.

    Args:
        name: Name on the command line.
        version: Version of the content.
        items: Prompts in their order.
    """

    name: str
    version: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all prompts, which distinguishes suites of the same name."""
        return hashlib.sha256(json.dumps([asdict(item) for item in self.items], sort_keys=True).encode()).hexdigest()

    def first(self, count: int) -> Suite:
        """Return the first ``count`` prompts, evenly from all categories, since the suite may be sorted by category."""
        seen: Counter[str] = Counter()
        ranks = []
        for place, item in enumerate(self.items):
            ranks.append((seen[item.category], place))
            seen[item.category] += 1
        kept = sorted(place for _, place in sorted(ranks)[:count])
        return replace(self, items=tuple(self.items[place] for place in kept))

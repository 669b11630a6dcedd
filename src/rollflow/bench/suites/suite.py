"""Prompts under a name: what an experiment is run on."""

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
        prompt: What to make.
        category: What kind of prompt it is; empty where the suite has no kinds.
        ask: What it asks for, by thing; None leaves that to the prompt's words.
    """

    prompt: str
    category: str = ""
    ask: Mapping[str, int] | None = None

    @property
    def asked(self) -> str:
        """The prompt as a job takes it."""
        return self.prompt if self.ask is None else Prompt(self.prompt, self.ask)


@dataclass(frozen=True)
class Suite:
    """Prompts under a name.

    Args:
        name: As on the command line.
        version: Of its content.
        items: The prompts, in their order.
    """

    name: str
    version: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """Of all that its prompts say, so that two suites of one name can be told apart."""
        return hashlib.sha256(json.dumps([asdict(item) for item in self.items], sort_keys=True).encode()).hexdigest()

    def first(self, count: int) -> Suite:
        """The first ``count`` prompts, as many of each category as of any other while there are: it may be sorted."""
        seen: Counter[str] = Counter()
        turns = []
        for place, item in enumerate(self.items):
            turns.append((seen[item.category], place))
            seen[item.category] += 1
        kept = sorted(place for _, place in sorted(turns)[:count])
        return replace(self, items=tuple(self.items[place] for place in kept))

"""Suites: the named sets of prompts that experiments run on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from rollflow.checks import one_of
from rollflow.errors import BadSetting
from rollflow.prompts import Prompt

SPLITS = ("tuning", "confirmation")
"""Parts of a suite: choices are made on the first, and what is published is measured on the second."""


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

    def split(self, part: str) -> Suite:
        """Return the prompts of one part, each of which belongs to ``tuning`` or ``confirmation`` for good.

        A prompt is in ``tuning`` if the first byte of the SHA-256 of "split: " and the prompt is a multiple of 4: a
        quarter is, whichever suites hold it. (The hash of a caption alone decides whether models are trained on it.)

        Raises:
            UnknownName: If there is no such part.
        """
        one_of("split", part, SPLITS)
        kept = tuple(item for item in self.items if split_of(item.prompt) == part)
        return replace(self, name=f"{self.name}, {part}", items=kept)

    def only(self, category: str) -> Suite:
        """Return the prompts of one category.

        Raises:
            BadSetting: If there are none.
        """
        kept = tuple(item for item in self.items if item.category == category)
        if not kept:
            known = ", ".join(dict.fromkeys(item.category for item in self.items if item.category)) or "none"
            raise BadSetting(f"the suite {self.name} has no category '{category}'; its categories are {known}")
        return replace(self, name=f"{self.name}, {category}", items=kept)

    def first(self, count: int) -> Suite:
        """Return the first ``count`` prompts, evenly from all categories, since the suite may be sorted by category."""
        seen: Counter[str] = Counter()
        ranks = []
        for place, item in enumerate(self.items):
            ranks.append((seen[item.category], place))
            seen[item.category] += 1
        kept = sorted(place for _, place in sorted(ranks)[:count])
        return replace(self, items=tuple(self.items[place] for place in kept))


def split_of(prompt: str) -> str:
    """Return the part of every suite that a prompt belongs to; see ``Suite.split``."""
    return SPLITS[hashlib.sha256(f"split: {prompt}".encode()).digest()[0] % 4 > 0]

"""The shipped suites of the embedded model's own captions, none of which it was trained on.

The following command generates them again::

python -c "from rollflow.bench.suites.scenes import write; write('FOLDER')"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rollflow.bench.suites.load import lines_of, load
from rollflow.bench.suites.suite import Item, Suite
from rollflow.files.atomic import check_folder
from rollflow.files.atomic import write as write_files
from rollflow.models.scenes.grammar import BACKGROUNDS, KINDS, RELATIONS, Caption, Group

MOST = 8
"""Largest number of objects of one kind in the grammar."""


def composition() -> Suite:
    """Return 120 captions of two kinds and 2 to 10 objects, 30 per spatial relation, which is the category."""
    strata = [(RELATIONS[1 + i % 4], 2 + (i // 4 + 3 * (i % 4)) % 9) for i in range(120)]
    return _drawn("scenes-composition", 0, strata, 1, lambda caption: caption.relation)


def aesthetic() -> Suite:
    """Return 60 captions of one or two kinds and 2 to 11 objects, 10 per background, which is the category."""
    strata = [(BACKGROUNDS[i % 6], 2 + (i // 6 + i % 6) % 10) for i in range(60)]
    return _drawn("scenes-aesthetic", 1, strata, 0, lambda caption: caption.background)


def mixed() -> Suite:
    """Return 120 prompts of the confirmation part, 40 per difficulty, which is the category: no hard one is spent."""
    quantity, hard = load("scenes-quantity").split("confirmation"), load("scenes-hard").split("confirmation")
    of = {"easy": quantity, "medium": quantity, "hard": hard}
    items = (item for difficulty, suite in of.items() for item in suite.only(difficulty).items[:40])
    return Suite("scenes-mixed", "1", tuple(items))


def write(folder: str) -> None:
    """Write the suites to a folder, from which a maintainer copies them into the sources."""
    check_folder(Path(folder))
    suites = composition(), aesthetic(), mixed()
    write_files(Path(folder), {f"{suite.name}.jsonl": lines_of(suite).encode() for suite in suites})


def _drawn(
    name: str, seed: int, strata: list[tuple[str, int]], fewest: int, category_of: Callable[[Caption], str]
) -> Suite:
    """Draw distinct held-out captions, one for each category and total number of objects."""
    rng, items = np.random.default_rng(seed), dict[Caption, Item]()
    for category, total in strata:
        for caption in _captions(rng, total, fewest):
            if caption.held_out and category_of(caption) == category and caption not in items:
                items[caption] = Item(str(caption), category)
                break
    return Suite(name, "1", tuple(items.values()))


def _captions(rng: np.random.Generator, total: int, fewest: int) -> Iterator[Caption]:
    """Yield captions of ``total`` objects endlessly, with at least ``fewest`` of each kind; 0 allows a single kind."""
    while True:
        first = int(rng.integers(max(total - MOST, fewest), min(total - fewest, MOST) + 1))
        counts = [n for n in (first, total - first) if n]
        kinds = rng.choice(len(KINDS), size=len(counts), replace=False)
        groups = tuple(Group(n, tuple(KINDS)[kind]) for n, kind in zip(counts, kinds, strict=True))
        relation = RELATIONS[rng.integers(len(RELATIONS))] if len(groups) == 2 else "and"
        yield Caption(groups, relation, BACKGROUNDS[rng.integers(len(BACKGROUNDS))])

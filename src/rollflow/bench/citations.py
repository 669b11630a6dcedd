"""Whom to cite for an experiment: what the docstrings of all that it uses name as their sources."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rollflow.bench.experiment import Arm, Trial, model_of, plan_of
from rollflow.bench.suites import PUBLISHED, Item
from rollflow.errors import RollflowError
from rollflow.rewards import RewardModel

PAPER = "2503.19385"
ARXIV = re.compile(r"(?<![\d.])\d{4}\.\d{5}(?!\d)")
_FIELD = r"^ *{} = \{{(.*?)\}},?$"


class Citations(NamedTuple):
    """Sources.

    Args:
        bibtex: Of each one entry, the paper's first.
        unknown: What could not be told, and why.
    """

    bibtex: list[str]
    unknown: list[str]


@cache
def bibliography() -> dict[str, str]:
    """BibTeX entries, by arXiv number, else by the words with which docstrings name them."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    found = {}
    for entry in re.findall(r"^@.*?^\}$", text, re.MULTILINE | re.DOTALL):
        named = re.search(_FIELD.format("(?:eprint|cited)"), entry, re.MULTILINE)
        assert named is not None, entry
        found[named[1]] = re.sub(r",?\n *cited = .*", "", entry)
    return found


def sources(text: str) -> set[str]:
    """Keys of the bibliography that a text names, and arXiv numbers that it lacks."""
    return {key for key in bibliography() if key in text} | set(ARXIV.findall(text))


def documented(kind: type) -> str:
    """What a class says of its sources: its docstring, and a reward's card."""
    card = getattr(kind, "card", None)
    return f"{inspect.getdoc(kind)}\n{card.reference if card else ''}"


def _used(thing: Any) -> Iterator[type]:
    """The classes of an object and of all that it is made of."""
    if isinstance(thing, tuple):
        for one in thing:
            yield from _used(one)
    elif isinstance(thing, type):
        yield thing
    elif is_dataclass(thing) or isinstance(thing, RewardModel):
        yield type(thing)
        for part in thing.parts if isinstance(thing, RewardModel) else ():
            yield from _used(part) if part is not thing else ()
        for field in fields(thing) if is_dataclass(thing) else ():
            yield from _used(getattr(thing, field.name))


def cited(config: dict[str, Any]) -> Citations:
    """The sources of an experiment's arms, rewards and prompts, and the paper.

    Args:
        config: As in ``experiment.json``.
    """
    keys, unknown = {PAPER: None}, []
    for arm in config["arms"]:
        try:
            trial = Trial(Arm(**arm), 0, Item("a prompt"), 0)
            model = model_of(config["model"], config.get("pipeline", {}))
            plan = plan_of(trial, model, config["reward"], config["held_out"])
            search = () if trial.arm.nfe is None else (plan.search, plan.sampler)
            used = {kind for thing in (search, plan.declared_reward, *plan.judges) for kind in _used(thing)}
        except (RollflowError, TypeError) as error:
            unknown.append(f"{arm['name']}: {error}")
            continue
        keys |= dict.fromkeys(sorted(key for kind in used for key in sources(documented(kind))))
    suite = PUBLISHED.get(config["suite"]["name"])
    keys |= dict.fromkeys(sorted(sources(suite.source)) if suite else ())
    return Citations([bibliography().get(key) or _bare(key) for key in keys], unknown)


def _bare(number: str) -> str:
    """All that is known of a source that a plug-in names."""
    return f"@misc{{arxiv:{number},\n  eprint = {{{number}}},\n  archiveprefix = {{arXiv}}\n}}"

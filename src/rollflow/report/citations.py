"""Whom to cite for an experiment: what the docstrings of all that it uses name as their sources."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rollflow.bench.suites.load import PUBLISHED
from rollflow.defaults import DEFAULT_KERNEL, DEFAULT_LOOKAHEAD, FEW_STEP_INTERPOLANT, MANY_STEP_INTERPOLANT
from rollflow.dynamics.grids import GRIDS
from rollflow.dynamics.guidance import GUIDANCE
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import KERNELS
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.errors import RollflowError
from rollflow.models import MODELS, FlowModel
from rollflow.registry import Named, Registry, settings_of
from rollflow.rewards import REWARDS
from rollflow.sampler import Sampler
from rollflow.search import SEARCHES

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


def _named(found: Named) -> Iterator[type]:
    """The classes that a text names, and those of settings that it leaves at their defaults."""
    yield found.kind
    for part in found.parts:
        yield from _named(part)
    for name, setting in settings_of(found.kind).items():
        if name not in found.given:
            yield from _used(setting.default)


def _used(thing: Any) -> Iterator[type]:
    """The classes of an object and of all that it is made of."""
    if isinstance(thing, tuple):
        for one in thing:
            yield from _used(one)
    elif is_dataclass(thing) and not isinstance(thing, type):
        yield type(thing)
        for field in fields(thing):
            yield from _used(getattr(thing, field.name))


def _of_arm(config: Mapping[str, Any], arm: Mapping[str, Any]) -> Iterator[type]:
    """The classes that an arm's jobs use, found by their names alone: nothing is imported and nothing is made."""
    if arm["nfe"] is not None:
        search, model = SEARCHES.named(arm["method"], plugins=False), MODELS.get(config["model"])
        interpolant = arm.get("interpolant") or (None if model is None else _interpolant_of(model))
        default = getattr(search.kind, "default_kernel", None) or DEFAULT_KERNEL
        choices: list[tuple[Registry[Any], str | None]] = [
            (KERNELS, arm.get("kernel") or default),
            (LOOKAHEADS, DEFAULT_LOOKAHEAD),
            (GRIDS, arm.get("grid")),
            (GUIDANCE, arm.get("guidance")),
            (INTERPOLANTS, interpolant),
        ]
        yield from _named(search)
        yield Sampler
        for registry, text in choices:
            yield from () if text is None else _named(registry.named(text, plugins=False))
    for text in (config["reward"], *config["held_out"]):
        yield from _named(REWARDS.named(text, plugins=False))


def _interpolant_of(model: type[FlowModel]) -> str:
    return FEW_STEP_INTERPOLANT if model.few_step else MANY_STEP_INTERPOLANT


def cited(config: Mapping[str, Any]) -> Citations:
    """The sources of an experiment's arms, rewards and prompts, and the paper.

    The configuration may be anyone's: only names of the library's own are looked up, those of plug-ins are not known.

    Args:
        config: As in ``experiment.json``.
    """
    keys, unknown = {PAPER: None}, []
    for arm in config["arms"]:
        try:
            used = set(_of_arm(config, arm))
        except RollflowError as error:
            unknown.append(f"{arm['name']}: {error}")
            continue
        keys |= dict.fromkeys(sorted(key for kind in used for key in sources(documented(kind))))
    suite = PUBLISHED.get(config["suite"]["name"])
    keys |= dict.fromkeys(sorted(sources(suite.source)) if suite else ())
    return Citations([bibliography().get(key) or _bare(key) for key in keys], unknown)


def _bare(number: str) -> str:
    """All that is known of a source that a plug-in names."""
    return f"@misc{{arxiv:{number},\n  eprint = {{{number}}},\n  archiveprefix = {{arXiv}}\n}}"

"""Citations for an experiment: the sources named in the docstrings of everything that it uses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rollflow.bench.suites.load import PUBLISHED
from rollflow.defaults import DEFAULT_LOOKAHEAD
from rollflow.dynamics.grids import GRIDS
from rollflow.dynamics.guidance import GUIDANCE
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import KERNELS
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.errors import RollflowError
from rollflow.models import MODELS
from rollflow.registry import Named, Registry, settings_of
from rollflow.rewards import REWARDS
from rollflow.sampler import Sampler
from rollflow.search import SEARCHES, Search

PAPER = "2503.19385"
ARXIV = re.compile(r"(?<![\d.])\d{4}\.\d{5}(?!\d)")
_FIELD = r"^ *{} = \{{(.*?)\}},?$"


class Citations(NamedTuple):
    """Sources to cite.

    Args:
        bibtex: BibTeX entry of each source, beginning with arXiv 2503.19385.
        unknown: Arms whose sources could not be determined, with the reason.
    """

    bibtex: list[str]
    unknown: list[str]


@cache
def bibliography() -> dict[str, str]:
    """Return BibTeX entries by arXiv number or, for sources without one, by the words that docstrings use."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    entries = {}
    for entry in re.findall(r"^@.*?^\}$", text, re.MULTILINE | re.DOTALL):
        named = re.search(_FIELD.format("(?:eprint|cited)"), entry, re.MULTILINE)
        assert named is not None, entry
        entries[named[1]] = re.sub(r",?\n *cited = .*", "", entry)
    return entries


def sources(text: str) -> set[str]:
    """Return the keys of the bibliography that a text names, and arXiv numbers that are not in the bibliography."""
    return {key for key in bibliography() if key in text} | set(ARXIV.findall(text))


def documented(kind: type) -> str:
    """Return the text in which a class names its sources: its docstring, and the card of a reward."""
    card = getattr(kind, "card", None)
    return f"{inspect.getdoc(kind)}\n{card.reference if card else ''}"


def _named(named: Named) -> Iterator[type]:
    """Yield the classes that a text names, and those of settings left at their defaults."""
    yield named.kind
    for part in named.parts:
        yield from _named(part)
    for name, setting in settings_of(named.kind).items():
        if name not in named.given:
            yield from _used(setting.default)


def _used(value: Any) -> Iterator[type]:
    """Yield the classes of an object and, recursively, of its fields."""
    if isinstance(value, tuple):
        for one in value:
            yield from _used(one)
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for field in fields(value):
            yield from _used(getattr(value, field.name))


def _of_arm(config: Mapping[str, Any], arm: Mapping[str, Any]) -> Iterator[type]:
    """Yield the classes that an arm's jobs use, found by name without importing or constructing anything."""
    if arm["nfe"] is not None:
        search, model = SEARCHES.named(arm["method"], plugins=False), MODELS.get(config["model"].partition("(")[0])
        assert issubclass(search.kind, Search)
        default = search.kind.default_dynamics(few_step=model is not None and model.few_step)
        interpolant = arm.get("interpolant") or (None if model is None else default.interpolant)
        choices: list[tuple[Registry[Any], str | None]] = [
            (KERNELS, arm.get("kernel") or default.kernel),
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


def cited(config: Mapping[str, Any]) -> Citations:
    """Return the sources of an experiment's arms, rewards and prompts, after arXiv 2503.19385.

    The configuration need not be trusted: only the library's own names are looked up, not those of plug-ins.

    Args:
        config: Configuration of the experiment, as in ``experiment.json``.
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
    """Return an entry for a source of which only the arXiv number is known."""
    return f"@misc{{arxiv:{number},\n  eprint = {{{number}}},\n  archiveprefix = {{arXiv}}\n}}"

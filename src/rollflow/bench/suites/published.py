"""Published sets of prompts, fetched from their authors or read from a copy; they are not part of the package."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TypeAlias

from rollflow.bench.suites.suite import Item, Suite
from rollflow.errors import MissingPackage, RollflowError
from rollflow.extras import requiring
from rollflow.files.documents import read_json, read_text
from rollflow.prompts import NUMBERS
from rollflow.prompts.plurals import singular

Reader: TypeAlias = Callable[[Sequence[str]], Iterable[Item]]
"""Function from the texts of a set's files to its prompts."""


@dataclass(frozen=True)
class PublishedSuite:
    """A published set of prompts.

    Args:
        repository: Dataset repository on the Hugging Face hub; None if the files must be downloaded by hand.
        files: Names of the files, both in the repository and in a copy.
        read: Function that reads the prompts from the texts of the files.
        source: Publication and its address.
        licence: Licence that its authors state.
    """

    repository: str | None
    files: tuple[str, ...]
    read: Reader
    source: str
    licence: str

    def suite(self, name: str, copy: Path | None) -> Suite:
        """Return its prompts as a suite whose version is a digest of its files.

        Args:
            name: Name of the suite, as on the command line.
            copy: Folder with the files, or path of the first one under any name; None fetches them.

        Raises:
            RollflowError: If the files cannot be fetched or read.
        """
        texts = [text_of(path) for path in (self._fetched(name) if copy is None else self._beside(copy))]
        try:
            items = tuple(self.read(texts))
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise RollflowError(
                f"'{copy or self.repository}' does not contain {' and '.join(self.files)} of {self.source}: {what}"
            ) from error
        return Suite(name, hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12], items)

    def _beside(self, copy: Path) -> list[Path]:
        if copy.is_dir():
            return [copy / file for file in self.files]
        return [copy, *(copy.with_name(file) for file in self.files[1:])]

    def _fetched(self, name: str) -> list[Path]:
        by_hand = f"download {' and '.join(self.files)} ({self.source}) and use {name}=PATH"
        if self.repository is None:
            raise RollflowError(f"{name} cannot be fetched automatically; {by_hand}")
        try:
            with requiring(f"fetching {name}", None, "huggingface_hub"):
                from huggingface_hub import hf_hub_download
        except MissingPackage as error:
            raise MissingPackage(f"{error}; or {by_hand}") from None
        try:
            return [Path(hf_hub_download(self.repository, file, repo_type="dataset")) for file in self.files]
        except (OSError, ValueError, RuntimeError) as error:
            line = " ".join(str(error).split())[:200]
            raise RollflowError(f"{self.repository} cannot be reached: {line}; {by_hand}") from error


def text_of(path: Path) -> str:
    """Return the text of a suite's file, without the byte order mark that spreadsheets write."""
    try:
        return read_text(path, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise RollflowError(f"the suite '{path}' cannot be read: {error}") from error


class _Tabs(csv.excel_tab):
    """Tab-separated values in which quotation marks are part of the text."""

    quoting = csv.QUOTE_NONE


def _table(prompt: str, category: str, dialect: type[csv.Dialect]) -> Reader:
    def read(texts: Sequence[str]) -> Iterable[Item]:
        for row in csv.DictReader(StringIO(texts[0], newline=""), dialect=dialect):
            yield Item(row[prompt].strip(), row[category].strip())

    return read


def _numeracy(texts: Sequence[str]) -> Iterable[Item]:
    """Read one prompt per line; the category is the number of kinds of things that it asks for.

    Names of things are single words, so that what follows them ("three apples rolled off") is not taken for a part of
    the name; "a" counts as one only in a list ("a cup, two pens and a bowl", but not "gathered for a picnic").
    """
    for line in filter(None, map(str.strip, texts[0].splitlines())):
        words, ask = re.findall(r"\w+|,", line.lower()), dict[str, int]()
        for before, count, thing in zip(["and", *words], words, words[1:], strict=False):
            if count in NUMBERS and (count not in ("a", "an") or before in ("and", ",")):
                ask[singular(thing)] = ask.get(singular(thing), 0) + NUMBERS[count]
        yield Item(line, f"{len(ask)} kind{'s' * (len(ask) != 1)}", ask)


ADVANCED = ("counting", "comparison", "differentiation", "negation", "universal")
"""Advanced skills of GenAI-Bench, beyond attribute, scene and relations."""


def _genai(least: int) -> Reader:
    """Return a reader of the prompts in ``genai_image.json`` with at least this many skills in ``ADVANCED``."""

    def read(texts: Sequence[str]) -> Iterable[Item]:
        prompts, skills = read_json(texts[0]), read_json(texts[1])
        of = {skill: set(skills[skill]) for skill in ("basic", "advanced", *ADVANCED)}
        for key, entry in prompts.items():
            number = int(key)
            if sum(number in of[skill] for skill in ADVANCED) >= least:
                kinds = [kind for kind in ("advanced", "basic") if number in of[kind]]
                yield Item(entry["prompt"].strip(), kinds[0] if kinds else "untagged")

    return read


_GENAI = ("BaiqiL/GenAI-Bench-1600", ("genai_image.json", "genai_skills.json"))
_GENAI_SOURCE = ("GenAI-Bench, Li et al. 2024, arXiv 2406.13743", "Apache-2.0")

PUBLISHED: dict[str, PublishedSuite] = {
    "genai-bench": PublishedSuite(*_GENAI, _genai(0), *_GENAI_SOURCE),
    "genai-bench-compositional": PublishedSuite(*_GENAI, _genai(3), *_GENAI_SOURCE),
    "t2i-compbench-numeracy": PublishedSuite(
        None,
        ("numeracy_val.txt",),
        _numeracy,
        "T2I-CompBench++, Huang et al. 2025, arXiv 2307.06350; examples/dataset of "
        "github.com/Karine-Huang/T2I-CompBench",
        "MIT",
    ),
    "drawbench": PublishedSuite(
        "sayakpaul/drawbench",
        ("DrawBench Prompts - Sheet1.csv",),
        _table("Prompts", "Category", csv.excel),
        "DrawBench, Saharia et al. 2022, arXiv 2205.11487",
        "none stated by its authors",
    ),
    "partiprompts": PublishedSuite(
        "nateraw/parti-prompts",
        ("PartiPrompts.tsv",),
        _table("Prompt", "Category", _Tabs),
        "PartiPrompts, Yu et al. 2022, arXiv 2206.10789; github.com/google-research/parti",
        "Apache-2.0",
    ),
}
"""Published sets by name; ``genai-bench-compositional`` is the set of arXiv 2503.19385, section 7.1: all prompts "that
contain three or more advanced compositional elements", there 121."""

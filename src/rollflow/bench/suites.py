"""Suites of prompts: those shipped here, published ones from a local copy or the hub, and a user's own file."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rollflow.errors import RollflowError, unknown
from rollflow.prompts import Prompt

DATA = Path(__file__).parent / "data"


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
        """The first so many of each category, as far as there are: of all alike, since a suite may be sorted."""
        taken: dict[str, int] = {}
        categories = list(dict.fromkeys(item.category for item in self.items))
        quotas = {name: count // len(categories) + (i < count % len(categories)) for i, name in enumerate(categories)}
        kept = []
        for item in self.items:
            taken[item.category] = taken.get(item.category, 0) + 1
            if taken[item.category] <= quotas[item.category]:
                kept.append(item)
        return Suite(self.name, self.version, tuple(kept))


def load(name: str) -> Suite:
    """A suite by its name, or from a file.

    Args:
        name: One of ``shipped()``; one of ``PUBLISHED``, from the hub, or from a local copy as
            ``drawbench=copy.csv``; or the path of a file of one's own: YAML or JSONL with a ``prompt`` an entry and, if
            there are such, its ``category`` and ``ask``; or a text file, a prompt a line.

    Raises:
        UnknownName: If nothing has the name.
        RollflowError: If it cannot be read.
    """
    published, _, copy = name.partition("=")
    if published in PUBLISHED:
        return _published(published, Path(copy) if copy else None)
    if name in shipped():
        return _of_file(DATA / f"{name}.jsonl")
    if Path(name).suffix or Path(name).is_file():
        return _of_file(Path(name))
    raise unknown("suite", name, [*shipped(), *PUBLISHED])


def shipped() -> list[str]:
    """Names of the suites in the package."""
    return sorted(path.stem for path in DATA.glob("*.jsonl"))


def save(suite: Suite, path: Path) -> None:
    """Write a suite as JSONL: a line that names it, then one a prompt."""
    lines: list[dict[str, Any]] = [{"suite": suite.name, "version": suite.version}]
    for item in suite.items:
        known = {"prompt": item.prompt, "category": item.category, "ask": item.ask and dict(item.ask)}
        lines.append({key: value for key, value in known.items() if value})
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n")


def _of_file(path: Path) -> Suite:
    text, entries = _text(path), list[Any]()
    try:
        if path.suffix in (".yaml", ".yml"):
            import yaml  # type: ignore[import-untyped]

            read = yaml.safe_load(text)
            head = {key: read[key] for key in ("suite", "version") if key in read} if isinstance(read, dict) else {}
            entries = read["prompts"] if isinstance(read, dict) else read
        elif path.suffix in (".jsonl", ".json"):
            entries = [json.loads(line) for line in text.splitlines() if line.strip()]
            head = entries.pop(0) if entries and "prompt" not in entries[0] else {}
        else:
            entries, head = [line.strip() for line in text.splitlines() if line.strip()], {}
        items = tuple(map(_item, entries))
    except ImportError:
        raise RollflowError("suites in YAML need pyyaml; pip install 'rollflow[bench]'") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RollflowError(
            f"the suite '{path}' cannot be read: {error}; expected entries with a prompt each"
        ) from error
    return _checked(Suite(str(head.get("suite", path.stem)), str(head.get("version", "")), items), path)


def _item(entry: Any) -> Item:
    if isinstance(entry, str):
        return Item(entry)
    strange = set(entry) - {"prompt", "category", "ask"}
    if strange:
        raise ValueError(f"an entry has {', '.join(sorted(strange))}; known are prompt, category, ask")
    ask = entry.get("ask")
    counts = None if ask is None else {str(thing): int(count) for thing, count in ask.items()}
    return Item(str(entry["prompt"]), str(entry.get("category", "")), counts)


def _checked(suite: Suite, where: object) -> Suite:
    if not suite.items or not all(item.prompt.strip() for item in suite.items):
        raise RollflowError(f"the suite '{where}' has no prompts, or an empty one")
    return suite


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RollflowError(f"the suite '{path}' cannot be read: {error}") from error


@dataclass(frozen=True)
class Published:
    """A published set of prompts, whose licence does not let us ship it.

    Args:
        repository: Of the hub, a dataset; None where it is not there.
        file: In it, and as a local copy is called.
        read: Text of the file to prompts.
        source: Where it was published.
    """

    repository: str | None
    file: str
    read: Callable[[str], Iterable[Item]]
    source: str


def _table(delimiter: str, prompt: str, category: str) -> Callable[[str], Iterable[Item]]:
    def read(text: str) -> Iterable[Item]:
        for row in csv.DictReader(StringIO(text), delimiter=delimiter):
            yield Item(row[prompt].strip(), row[category].strip())

    return read


def _lines(text: str) -> Iterable[Item]:
    return (Item(line.strip()) for line in text.splitlines() if line.strip())


def _genai(text: str) -> Iterable[Item]:
    """Prompts with the skills that they need: those of ``advanced`` skills are the compositional ones."""
    for entry in json.loads(text).values():
        skills = entry.get("basic_skills", []), entry.get("advanced_skills", [])
        yield Item(entry["prompt"], "advanced" if skills[1] else "basic")


PUBLISHED: dict[str, Published] = {
    "genai-bench": Published(
        "BaiqiL/GenAI-Bench", "genai_image.json", _genai, "GenAI-Bench, Li et al. 2024, arXiv 2406.13743"
    ),
    "t2i-compbench-numeracy": Published(
        None, "numeracy_val.txt", _lines, "T2I-CompBench++, Huang et al. 2025, arXiv 2307.06350; examples/dataset"
    ),
    "drawbench": Published(
        "sayakpaul/drawbench", "drawbench.csv", _table(",", "Prompts", "Category"), "Imagen, arXiv 2205.11487"
    ),
    "partiprompts": Published(
        "nateraw/parti-prompts", "PartiPrompts.tsv", _table("\t", "Prompt", "Category"), "Parti, arXiv 2206.10789"
    ),
}
"""Published sets by name."""


def _published(name: str, copy: Path | None) -> Suite:
    known = PUBLISHED[name]
    if copy is None:
        copy = _downloaded(name, known)
    try:
        items = tuple(known.read(_text(copy)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RollflowError(
            f"'{copy}' is not {known.file} of {known.source}: {type(error).__name__} {error}"
        ) from error
    return _checked(Suite(name, hashlib.sha256(_text(copy).encode()).hexdigest()[:12], items), copy)


def _downloaded(name: str, known: Published) -> Path:
    if known.repository is None:
        raise RollflowError(f"{name} is not on the hub; get {known.file} ({known.source}) and say {name}=PATH")
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(known.repository, known.file, repo_type="dataset"))
    except Exception as error:
        raise RollflowError(
            f"{known.file} of {known.repository} cannot be had: {' '.join(str(error).split())[:200]}; get it "
            f"({known.source}) and say {name}=PATH"
        ) from error

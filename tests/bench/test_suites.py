"""Suites of prompts: users' files, shipped suites, published sets and errors."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from rollflow.bench.suites import scenes
from rollflow.bench.suites.load import Item, Suite, load, save, shipped
from rollflow.bench.suites.published import PUBLISHED
from rollflow.bench.suites.scenes import mixed
from rollflow.bench.suites.suite import split_of
from rollflow.errors import RollflowError, UnknownName
from rollflow.models.scenes.grammar import RELATIONS, parse
from rollflow.prompts import asked

MADE_UP: dict[str, dict[str, str]] = {
    "drawbench": {"DrawBench Prompts - Sheet1.csv": 'Prompts,Category\n"A jug, tall","Shapes"\nA pan ,Misc\n'},
    "partiprompts": {
        "PartiPrompts.tsv": "Prompt\tCategory\tChallenge\tNote\n"
        '"M O O" on a barn\tArts\tWriting & Symbols\t\na jug\tVase\tBasic\tx\n'
    },
    "t2i-compbench-numeracy": {"numeracy_val.txt": "two jugs\n\nsix pans\none jug and two pans\n"},
    "genai-bench": {
        "genai_image.json": json.dumps(
            {f"0000{i}": {"id": f"0000{i}", "prompt": f"Jug {i}.", "models": {"X": [1, 2]}} for i in range(1, 5)}
        ),
        "genai_skills.json": json.dumps(
            {
                "attribute": [1, 2],
                "basic": [1],
                "advanced": [2, 3],
                "counting": [2, 3],
                "comparison": [2],
                "differentiation": [3],
                "negation": [],
                "universal": [3],
            }
        ),
    },
}
MADE_UP["genai-bench-compositional"] = MADE_UP["genai-bench"]
SAID = {
    "drawbench": [("A jug, tall", "Shapes"), ("A pan", "Misc")],
    "partiprompts": [('"M O O" on a barn', "Arts"), ("a jug", "Vase")],
    "t2i-compbench-numeracy": [("two jugs", "1 kind"), ("six pans", "1 kind"), ("one jug and two pans", "2 kinds")],
    "genai-bench": [("Jug 1.", "basic"), ("Jug 2.", "advanced"), ("Jug 3.", "advanced"), ("Jug 4.", "untagged")],
    "genai-bench-compositional": [("Jug 3.", "advanced")],
}


def written(folder: Path, name: str) -> Path:
    """Write invented files of a published set and return the path of the first."""
    for file, text in MADE_UP[name].items():
        (folder / file).write_text(text)
    return folder / next(iter(MADE_UP[name]))


def said(suite: Suite) -> list[tuple[str, str]]:
    return [(item.prompt, item.category) for item in suite.items]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_is_read_from_a_copy_or_its_folder(name: str, tmp_path: Path) -> None:
    first = written(tmp_path, name)
    suite = load(f"{name}={first}")
    assert (suite.name, said(suite)) == (name, SAID[name])
    assert load(f"{name}={tmp_path}") == suite
    first.write_text(first.read_text().replace("ug", "og"))
    assert load(f"{name}={first}").version != suite.version


@pytest.mark.parametrize("name", [name for name, known in PUBLISHED.items() if known.repository])
def test_a_published_set_is_fetched_from_its_repository(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, name)
    asked_for = []

    def fetch(repository: str, file: str, *, repo_type: str) -> str:
        asked_for.append((repository, file, repo_type))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert said(load(name)) == SAID[name]
    assert asked_for == [(PUBLISHED[name].repository, file, "dataset") for file in MADE_UP[name]]


def test_numeracy_counts_single_words_and_articles_in_lists_alone(tmp_path: Path) -> None:
    lines = {
        "three jugs rolled off the shelf": {"jug": 3},
        "a pan, two knives, and a jug were in a kitchen": {"pan": 1, "knife": 2, "jug": 1},
        "five people gathered for a picnic": {"person": 5},
        "one jug flew over three jugs": {"jug": 4},
    }
    (tmp_path / "copy.txt").write_text("\n".join(lines))
    suite = load(f"t2i-compbench-numeracy={tmp_path / 'copy.txt'}")
    assert {item.prompt: item.ask for item in suite.items} == lines


def test_what_cannot_be_fetched_says_where_it_is_got_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        RollflowError, match=r"^nateraw/parti-prompts cannot be reached: no network at all; download Part.*=PATH$"
    ):
        load("partiprompts")
    with pytest.raises(RollflowError, match=r"fetched automatically; download numeracy_val.txt .*Karine-Huang.*=PATH$"):
        load("t2i-compbench-numeracy")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("drawbench", "prompt,kind\na,b\n", "has no 'Prompts'"),
        ("partiprompts", "Prompt\tCategory\njug\n", "NoneType"),
        ("genai-bench", "[", "Expecting value"),
        ("genai-bench", "[]", "list"),
        ("t2i-compbench-numeracy", "\n", "no prompts"),
    ],
)
def test_a_copy_of_something_else_is_refused(name: str, text: str, complaint: str, tmp_path: Path) -> None:
    first = written(tmp_path, name)
    first.write_text(text)
    with pytest.raises(RollflowError, match=complaint) as caught:
        load(f"{name}={first}")
    assert "\n" not in str(caught.value)
    first.unlink()
    with pytest.raises(RollflowError, match=f"'{first}' cannot be read: .*No such file"):
        load(f"{name}={first}")


def test_the_skills_of_genai_bench_must_lie_beside_its_prompts(tmp_path: Path) -> None:
    first = written(tmp_path, "genai-bench")
    (tmp_path / "genai_skills.json").unlink()
    with pytest.raises(RollflowError, match=r"genai_skills.json' cannot be read"):
        load(f"genai-bench={first}")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("mine.yaml", "- {prompt: a jug, category: x, ask: {jug: 1, pan: 0}}\n- a pan\n"),
        ("mine.yml", "suite: mine\nprompts:\n- {prompt: a jug, category: x, ask: {jug: 1, pan: 0}}\n- a pan\n"),
        ("mine.json", '["a pan", {"prompt": "a jug", "category": "x", "ask": {"jug": 1, "pan": 0}}]'),
        (
            "mine.jsonl",
            '\ufeff{"prompt": "a pan"}\n\n{"prompt": " a jug ", "category": "x", "ask": {"jug": 1, "pan": 0}}\n',
        ),
    ],
)
def test_a_file_of_ones_own(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    suite = load(str(tmp_path / file))
    assert suite.name == "mine"
    assert sorted(suite.items, key=lambda item: item.prompt) == [
        Item("a jug", "x", {"jug": 1, "pan": 0}),
        Item("a pan"),
    ]
    [jug] = [item for item in suite.items if item.category]
    assert asked(jug.asked) == {"jug": 1, "pan": 0}


def test_a_text_file_is_a_prompt_a_line_and_says_each_once(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a jug\n\n  a pan\na jug\n")
    assert said(load(str(tmp_path / "mine"))) == [("a jug", ""), ("a pan", "")]


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("a.yaml", "prompts: [", "while parsing a flow node"),
        ("a.yaml", "", "no list of prompts"),
        ("a.yaml", "- 3\n", "3 has no prompt that is a text"),
        ("a.yaml", "- {category: x}\n", "no prompt that is a text"),
        ("a.yaml", "- {prompt: a, asks: {b: 1}}\n", "has the unknown keys asks; known are prompt, category, ask"),
        ("a.yaml", "- {prompt: a, ask: {b: 1.5}}\n", "whole numbers"),
        ("a.yaml", "- {prompt: a, ask: {b: -1}}\n", ">= 0"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt"\n', "line 2: "),
        ("a.jsonl", '{"prompt": " "}\n', "an empty one"),
        ("a.json", '{"suite": "a"}', "no list of prompts"),
        ("a.txt", "\n\n", "has no prompts"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(file: str, text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(RollflowError, match=complaint) as caught:
        load(str(tmp_path / file))
    assert "\n" not in str(caught.value)
    assert file in str(caught.value)


def test_unknown_names_and_missing_files() -> None:
    with pytest.raises(UnknownName, match="did you mean 'scenes-composition'"):
        load("scenes-compositon")
    with pytest.raises(UnknownName, match="did you mean 'drawbench'"):
        load("drawbnch=copy.csv")
    with pytest.raises(RollflowError, match=r"'none.yaml' cannot be read: .*No such file"):
        load("none.yaml")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    items = (Item("a jug"), Item("a pän\u2028or two", "x"), Item("no pan", "", {"pan": 0}), Item("a heap", "y", {}))
    suite = Suite("mine", "3", items)
    save(suite, tmp_path / "other.jsonl")
    assert load(str(tmp_path / "other.jsonl")) == suite


def test_the_digest_is_of_what_the_prompts_say() -> None:
    one = Suite("a", "1", (Item("a jug", "x", {"jug": 1, "pan": 0}), Item("a pan")))
    same = Suite("b", "2", (Item("a jug", "x", {"pan": 0, "jug": 1}), Item("a pan")))
    others = [
        Suite("a", "1", one.items[::-1]),
        Suite("a", "1", (Item("a jug", "x"), one.items[1])),
        Suite("a", "1", (Item("a jug", "", one.items[0].ask), one.items[1])),
        one.first(1),
    ]
    assert one.digest == same.digest
    assert len({one.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("count", "kept"), [(1, "a0"), (3, "a0 b0 c0"), (5, "a0 a1 b0 c0 c1"), (7, "a0 a1 a2 a3 b0 c0 c1"), (99, None)]
)
def test_the_first_prompts_are_of_all_categories(count: int, kept: str | None) -> None:
    """Categories have equal numbers as far as possible, and the total is as requested even if a category is small."""
    names = ["a0", "a1", "a2", "a3", "a4", "a5", "b0", "c0", "c1"]
    suite = Suite("sorted", "1", tuple(Item(name, name[0]) for name in names))
    assert [item.prompt for item in suite.first(count).items] == (kept or " ".join(names)).split()


@pytest.mark.parametrize("make", [scenes.composition, scenes.aesthetic], ids=lambda make: make.__name__)
def test_the_shipped_captions_are_what_their_function_makes_and_held_out(make: Any) -> None:
    suite = make()
    assert load(suite.name) == suite
    captions = [parse(item.prompt) for item in suite.items]
    assert len(set(captions)) == len(captions)
    assert all(caption.held_out for caption in captions)
    assert [str(caption) for caption in captions] == [item.prompt for item in suite.items]


def test_the_shipped_captions_are_spread_over_their_strata() -> None:
    composition = [(item.category, parse(item.prompt)) for item in load("scenes-composition").items]
    assert all(caption.relation == category for category, caption in composition)
    assert Counter(category for category, _ in composition) == dict.fromkeys(RELATIONS[1:], 30)
    totals = Counter(caption.total for _, caption in composition)
    assert set(totals) == set(range(2, 11))
    assert max(totals.values()) - min(totals.values()) <= 1
    strata = Counter((category, caption.total) for category, caption in composition)
    assert (len(strata), min(strata.values()), max(strata.values())) == (36, 3, 4)

    aesthetic = [(item.category, parse(item.prompt)) for item in load("scenes-aesthetic").items]
    assert all(caption.background == category for category, caption in aesthetic)
    assert Counter((category, caption.total) for category, caption in aesthetic) == dict.fromkeys(
        ((category, total) for category in {category for category, _ in aesthetic} for total in range(2, 12)), 1
    )


def test_our_own_prompts_are_six_of_each_skill_and_ask_for_what_they_say() -> None:
    items = load("prompts").items
    assert set(Counter(item.category for item in items).values()) == {6}
    assert len({item.category for item in items}) == 10
    assert len({item.prompt for item in items}) == 60
    assert all(item.ask for item in items if item.category == "counting")
    for item in items:
        if item.ask is not None:
            assert item.category in ("counting", "negation")
            read = asked(item.prompt)
            assert all(thing in item.prompt.lower() for thing in item.ask)
            assert item.ask.items() <= read.items() or item.category == "negation"
            assert item.category == "counting" or set(item.ask.values()) == {0}


def test_everything_shipped_can_be_loaded_by_its_name() -> None:
    assert {
        "prompts",
        "scenes-aesthetic",
        "scenes-composition",
        "scenes-hard",
        "scenes-mixed",
        "scenes-quantity",
    } == set(shipped())
    assert all(load(name).name == name for name in shipped())


def test_the_mixed_suite_is_what_its_function_gives() -> None:
    suite = load("scenes-mixed")
    assert suite == mixed()
    assert Counter(item.category for item in suite.items) == {"easy": 40, "medium": 40, "hard": 40}
    assert {split_of(item.prompt) for item in suite.items} == {"confirmation"}


@pytest.mark.parametrize("entry", [{"prompt": "a" * 10**5, "ask": 3}, {"prompt": "a", "b" * 10**5: 3}])
def test_what_is_wrong_with_a_suite_is_told_in_a_line(entry: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps([entry]))
    with pytest.raises(RollflowError, match="cannot be read: ") as caught:
        load(str(tmp_path / "own.json"))
    assert len(str(caught.value)) < 1000


def test_a_suite_is_split_for_good() -> None:
    """Every prompt is in one part, whichever suite holds it; a quarter is for tuning."""
    suite = load("scenes-quantity")
    tuning, confirmation = suite.split("tuning"), suite.split("confirmation")
    assert len(tuning.items) == 51
    assert len(confirmation.items) == 129
    assert {*tuning.items, *confirmation.items} == {*suite.items}
    assert suite.first(9).split("tuning").items == tuple(item for item in suite.first(9).items if item in tuning.items)
    assert tuning.name == "scenes-quantity, tuning"
    assert split_of("two airplanes on night background") == "confirmation"
    assert split_of(tuning.items[0].prompt) == "tuning"
    with pytest.raises(UnknownName, match="unknown split 'test'; known: confirmation, tuning"):
        suite.split("test")

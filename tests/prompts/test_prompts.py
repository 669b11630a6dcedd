"""What prompts ask for."""

from __future__ import annotations

import copy
import pickle

import pytest

from rollflow.errors import RollflowError
from rollflow.prompts import Prompt, asked, read_ask
from rollflow.prompts.plurals import singular


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("six airplanes and seven camels", {"airplane": 6, "camel": 7}),
        ("A photo of 12 red foxes, two boxes of tomatoes", {"red fox": 12, "box": 2}),
        ("no dogs and three sheep", {"dog": 0, "sheep": 3}),
        ("two women next to four knives on the table", {"woman": 2, "knife": 4}),
        ("one cat and one cat", {"cat": 2}),
        ("a steaming cup of coffee", {"steaming cup": 1}),
        ("mountains at dawn", {}),
        ("two of them", {}),
        ("1,000 balloons, 2,500,000 ants", {"balloon": 1000, "ant": 2500000}),
        ("in 2, 300 cats", {"cat": 300}),
        ("a close-up photograph of three cookies", {"cookie": 3}),
        ("two paintings of a cat, a painting on a wall", {"painting": 3, "cat": 1, "wall": 1}),
    ],
)
def test_the_rule(text: str, counts: dict[str, int]) -> None:
    assert asked(text) == counts


def test_what_is_given_is_not_read() -> None:
    prompt = Prompt("two dogs and a ball", {"dog": 2})
    assert asked(prompt) == {"dog": 2}
    assert (prompt, len(prompt), f"{prompt}") == ("two dogs and a ball", 19, "two dogs and a ball")
    for again in (copy.copy(prompt), copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt))):
        assert asked(again) == {"dog": 2}


@pytest.mark.parametrize(
    ("many", "one"),
    [("airplanes", "airplane"), ("berries", "berry"), ("buses", "bus"), ("dresses", "dress"), ("potatoes", "potato"),
     ("horses", "horse"), ("glasses", "glasses"), ("people", "person"), ("tree", "tree"), ("pies", "pie"),
     ("watches", "watch"), ("shoes", "shoe"), ("grass", "grass"), ("houses", "house"), ("vases", "vase"),
     ("octopuses", "octopus"), ("walruses", "walrus"), ("canoes", "canoe"), ("movies", "movie"), ("cookies", "cookie"),
     ("snowmen", "snowman"), ("specimens", "specimen"), ("ramen", "ramen"), ("women", "woman"), ("oases", "oasis"),
     ("T-shirts", "T-shirt"), ("walkie-talkies", "walkie-talkie"), ("axes", "axe"), ("headaches", "headache"),
     ("grandchildren", "grandchild"), ("menus", "menu"), ("cactus", "cactus"), ("cactuses", "cactus"),
     ("horseshoes", "horseshoe"), ("toes", "toe"), ("causes", "cause"), ("waltzes", "waltz"), ("wolves", "wolf"),
     ("gloves", "glove"), ("binoculars", "binoculars")],
)  # fmt: skip
def test_singulars(many: str, one: str) -> None:
    assert singular(f"red {many}") == f"red {one}"


def test_asking_on_the_command_line() -> None:
    assert read_ask(["airplanes=6", " wild camels = 7"]) == {"airplane": 6, "wild camel": 7}
    assert read_ask(["Legos=3", "red Mars=1", "Red cars=2"]) == {"Legos": 3, "red Mars": 1, "Red car": 2}
    for twice in (["cats=2", "dogs=1", "cat=3"], ["cats=2", "Cat=2"]):
        with pytest.raises(
            RollflowError, match=rf"'cats=2' and '{twice[-1]}' both count '(?i:cat)'; give each thing once"
        ):
            read_ask(twice)
    for bad in ("airplanes", "=3", "cats=many", "cats=-1"):
        with pytest.raises(RollflowError, match=r"THING=COUNT"):
            read_ask([bad])
    with pytest.raises(RollflowError, match="the count of 'cat' in ask must be a whole number >= 0, not -1"):
        Prompt("cats", {"cat": -1})

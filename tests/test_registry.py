"""Names, plug-ins and settings given as text."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from rollflow import registry
from rollflow.errors import RollflowError, UnknownName
from rollflow.registry import Registry, settings_of
from rollflow.search import BFS, SEARCHES, SMC
from rollflow.search.smc.tempering import LinearTempering, Tempering


class Colour:
    name: ClassVar[str]


@dataclass(frozen=True)
class Red(Colour):
    shade: float = 0.5
    layers: int | None = 2
    shiny: bool = False
    name = "red"


class Shape:
    name: ClassVar[str]


@dataclass(frozen=True)
class Square(Shape):
    side: int = 1
    colour: Colour = Red()
    corners: tuple[float, ...] = ()
    name = "square"


class Plain(Shape):
    name = "plain"

    def __init__(self, label: str = "x", note=None) -> None:  # type: ignore[no-untyped-def]
        self.label = label
        self.note = note


not_a_class = Square()


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Registry[Shape]:
    monkeypatch.setattr(Registry, "of", {})
    Registry("colour", Colour, {"red": Red})
    points = [
        EntryPoint("plain", f"{__name__}:Plain", "test.shapes"),
        EntryPoint("gone", "no_such_module:Gone", "test.shapes"),
        EntryPoint("wrong", f"{__name__}:Red", "test.shapes"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: [point for point in points if point.group == group])
    return Registry("shape", Shape, {"square": Square}, "test.shapes")


def test_own_plugin_and_path(shapes: Registry[Shape]) -> None:
    assert shapes.find("square") is Square
    assert shapes.find("plain") is Plain
    assert shapes.find(f"{__name__}:Plain") is Plain
    assert shapes.names() == ["square", "plain", "gone", "wrong"]


def test_an_own_name_is_not_taken_by_a_plugin(shapes: Registry[Shape]) -> None:
    shapes["plain"] = Square
    assert shapes.find("plain") is Square
    assert shapes.names().count("plain") == 1


def test_a_registry_without_a_group_has_no_plugins(shapes: Registry[Shape]) -> None:
    own = Registry("shape", Shape, {"box": Square})
    assert own.names() == ["box"]
    with pytest.raises(UnknownName, match="unknown shape 'plain'; known: box"):
        own.find("plain")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("squar", "unknown shape 'squar'; did you mean 'square'"),
        ("plan", "did you mean 'plain'"),
        ("gone", "shape 'gone' cannot be loaded: No module named 'no_such_module'"),
        ("wrong", "expected a subclass of Shape"),
        (f"{__name__}:Missing", "cannot be loaded: .*has no attribute 'Missing'"),
        (f"{__name__}:not_a_class", "expected a subclass of Shape"),
    ],
)
def test_what_cannot_be_found_is_said(shapes: Registry[Shape], name: str, message: str) -> None:
    with pytest.raises(RollflowError, match=message):
        shapes.find(name)


@pytest.mark.parametrize(
    ("text", "settings", "made"),
    [
        ("square", {}, Square()),
        (" square ( side = 3 ) ", {}, Square(3)),
        ("square(colour=red)", {"side": "4"}, Square(4)),
        ("square", {"colour": "red"}, Square()),
        ("square(side=2, colour=red(shade=1e-3, layers=none, shiny=True))", {}, Square(2, Red(0.001, None, True))),
        ("square", {"corners": "1;2.5"}, Square(corners=(1.0, 2.5))),
        ("square()", {"colour": "red(layers=7)"}, Square(colour=Red(layers=7))),
    ],
)
def test_objects_from_text(shapes: Registry[Shape], text: str, settings: dict[str, str], made: Shape) -> None:
    assert shapes.make(text, settings) == made


def test_a_class_that_is_no_dataclass(shapes: Registry[Shape]) -> None:
    plain = shapes.make("plain(label=5, note=8)")
    assert isinstance(plain, Plain)
    assert (plain.label, plain.note) == ("5", "8")


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("square(", {}, r"expected NAME or NAME\(SETTING=VALUE"),
        ("square(side)", {}, "expected SETTING=VALUE, not 'side'"),
        ("square(side=3, side=4)", {}, "side of shape 'square' is set twice"),
        ("square(side=3)", {"side": "4"}, "side of shape 'square' is set twice"),
        ("square(colour=red(shade=1, shade=2))", {}, "shade of colour 'red' is set twice"),
        ("square)", {}, "expected NAME"),
        ("square(side=1))", {}, "expected NAME"),
        ("square(side=1)(colour=red)", {}, "expected NAME"),
        ("(side=1)", {}, "expected NAME"),
        ("", {}, "expected NAME"),
        ("square(=1)", {}, "expected SETTING=VALUE"),
        ("square(colour=red(shade=nan))", {}, "shade=nan cannot be read; expected a number"),
        ("square(" * 2000 + ")" * 2000, {}, "nested more than 32 deep"),
        ("square", {"sides": "3"}, "unknown setting of shape square 'sides'; did you mean 'side'"),
        ("square(side=1.5)", {}, "side=1.5 cannot be read; expected a whole number"),
        ("square(colour=red(shiny=maybe))", {}, "shiny=maybe cannot be read; expected true or false"),
        ("square(colour=blue)", {}, "unknown colour 'blue'"),
        ("square(colour=red(layers=x))", {}, "layers=x cannot be read; expected a whole number or none"),
    ],
)
def test_text_that_cannot_be_read(shapes: Registry[Shape], text: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(RollflowError, match=message):
        shapes.make(text, settings)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Square(), "square"),
        (Square(3, Red(0.001, None, True)), "square(side=3, colour=red(shade=0.001, layers=none, shiny=True))"),
        (Square(corners=(1.0, 2.5)), "square(corners=1.0;2.5)"),
        (Plain("a"), "plain(label=a)"),
    ],
)
def test_texts_of_objects(shapes: Registry[Shape], made: Shape, text: str) -> None:
    assert shapes.text(made) == text
    if isinstance(made, Square):
        assert shapes.make(text) == made


def test_objects_without_a_text(shapes: Registry[Shape]) -> None:
    class Local(Square):
        """In no registry, and in no module under its name."""

    class Green(Red):
        """The same."""

    for made, message in (
        (Local(), r"Local is not a registered shape"),
        (Square(colour=Green()), r"Green is not a registered colour"),
        (Plain("a, b", note=object()), r"<object .* cannot be written as text"),
    ):
        with pytest.raises(RollflowError, match=message):
            shapes.text(made)


def test_a_subclass_in_another_module_has_the_settings_of_its_base() -> None:
    """BFS inherits fields of SMC whose types its own module does not import."""
    of_base, own = settings_of(SMC), settings_of(BFS)
    assert list(own) == list(of_base)
    assert own["tempering"].annotation is Tempering
    assert SEARCHES.make("bfs(tempering=linear, particles=4)") == BFS(tempering=LinearTempering(), particles=4)

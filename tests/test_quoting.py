"""Values in quotation marks: a path with a comma, a mark, a parenthesis or spaces is a setting like any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollflow.errors import BadSetting
from rollflow.quoting import divided, quoted, unquoted
from rollflow.registry import Registry


class Shape:
    """The base of choices of the tests."""


@dataclass(frozen=True)
class Drawn(Shape):
    """A choice with settings of every type that quotation marks concern."""

    picture: str = ""
    folder: Path | None = None
    names: tuple[str, ...] = ()
    inner: Shape | None = None
    number: int = 0


SHAPES: Registry[Shape] = Registry("shape", Shape, {"drawn": Drawn})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drawn(picture='a, b.png', number=2)", Drawn("a, b.png", number=2)),
        ('drawn(picture="it\'s.png")', Drawn("it's.png")),
        ("drawn(picture=it's.png)", Drawn("it's.png")),
        ("drawn(picture='it''s, so.png')", Drawn("it's, so.png")),
        ("drawn(picture='a).png', folder=' b ')", Drawn("a).png", Path(" b "))),
        ("drawn(names='a;b';c; 'd, e')", Drawn(names=("a;b", "c", "d, e"))),
        ("drawn(inner=drawn(picture='x, (y'), number=3)", Drawn(inner=Drawn("x, (y"), number=3)),
        (r"drawn(picture='C:\new, old\a.png')", Drawn(r"C:\new, old\a.png")),
        ("drawn(picture='a=b')", Drawn("a=b")),
        ("drawn(number='4')", Drawn(number=4)),
        ("drawn(picture='Füße, 猫.png')", Drawn("Füße, 猫.png")),
    ],
)
def test_marks_are_read(text: str, expected: Drawn) -> None:
    assert SHAPES.make(text) == expected


def test_a_mark_that_is_not_closed_is_refused() -> None:
    with pytest.raises(BadSetting, match=r"quotation mark ' in .* is not closed"):
        SHAPES.make("drawn(picture='a.png)")


def test_settings_of_the_command_line_take_marks_and_need_none() -> None:
    assert SHAPES.make("drawn", {"picture": "a, b.png"}) == Drawn("a, b.png")
    assert SHAPES.make("drawn", {"picture": "'a, b.png'"}) == Drawn("a, b.png")


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert SHAPES.make("drawn(folder=~/x)") == Drawn(folder=tmp_path / "x")


@given(st.text(alphabet="ab,;()'\" =\\é", max_size=12))
def test_what_is_written_is_read_again(text: str) -> None:
    assert unquoted(quoted(text)) == text
    assert divided(f"x={quoted(text)},y=1") == [f"x={quoted(text)}", "y=1"]
    choice = Drawn(text, names=(text, "b"), inner=Drawn(text)) if text else Drawn()
    assert SHAPES.make(SHAPES.text(choice)) == choice

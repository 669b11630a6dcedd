"""The prompt language of the embedded model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollflow.models.scenes.grammar import (
    BACKGROUNDS,
    KINDS,
    RELATIONS,
    VOCABULARY_SIZE,
    Caption,
    Group,
    PromptError,
    parse,
)

kinds = st.sampled_from(sorted(KINDS))
counts = st.integers(1, 8)


@st.composite
def captions(draw: st.DrawFn) -> Caption:
    """Any caption of the grammar."""
    first, second = draw(st.lists(kinds, min_size=2, max_size=2, unique=True))
    background = draw(st.sampled_from(BACKGROUNDS))
    if draw(st.booleans()):
        return Caption((Group(draw(counts), first),), background=background)
    groups = (Group(draw(counts), first), Group(draw(counts), second))
    return Caption(groups, draw(st.sampled_from(RELATIONS)), background)


@given(captions())
def test_a_caption_is_read_back_from_its_text(caption: Caption) -> None:
    assert parse(str(caption)) == caption
    assert parse(str(caption).upper().replace(" ", "  ")) == caption


@given(captions(), captions())
def test_tokens_tell_captions_apart(a: Caption, b: Caption) -> None:
    assert (a.tokens() == b.tokens()) == (a == b)
    assert len(a.tokens()) == 6
    assert all(0 < token < VOCABULARY_SIZE for token in a.tokens())


@pytest.mark.parametrize(
    ("prompt", "meaning"),
    [
        ("a cat", Caption((Group(1, "cat"),))),
        ("3 cats, on the snow", Caption((Group(3, "cat"),), background="snow")),
        ("two fish above an airplane", Caption((Group(2, "fish"), Group(1, "airplane")), "above")),
        (
            "one dog left of 8 stars on a night background.",
            Caption((Group(1, "dog"), Group(8, "star")), "left of", "night"),
        ),
    ],
)
def test_other_ways_to_say_it(prompt: str, meaning: Caption) -> None:
    assert parse(prompt) == meaning


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ("three kats", "'kats' is not in the vocabulary.*cats"),
        ("three zebras", "'zebras' is not in the vocabulary"),
        ("nine cats", "'nine' is not in the vocabulary"),
        ("cats", "expected a count but got 'cats'"),
        ("three", "expected an object but got the end"),
        ("three cats on", "expected a background"),
        ("three cats to the left two dogs", "expected 'of'"),
        ("three cats and one cat", "'cat' occurs twice"),
        ("three cats on grass background two", "unexpected 'two' at word 6"),
    ],
)
def test_what_it_cannot_read_is_named(prompt: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        parse(prompt)


def test_a_tenth_is_held_out() -> None:
    some = [
        Caption((Group(n, a), Group(m, b)), "and", background)
        for a in KINDS
        for b in KINDS
        if a != b
        for n in (1, 5)
        for m in (2, 7)
        for background in BACKGROUNDS
    ]
    share = sum(caption.held_out for caption in some) / len(some)
    assert abs(share - 26 / 256) < 4 * (0.1 * 0.9 / len(some)) ** 0.5

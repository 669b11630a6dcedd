"""YAML and JSON that unfold, or nest, without end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rollflow.bench.suites.load import load
from rollflow.errors import RollflowError
from rollflow.files import documents
from rollflow.files.documents import read_json, read_text, read_yaml
from rollflow.rewards.judges.rubric_files import read_rubric


def laughs(levels: int = 9, width: int = 9) -> str:
    """Each level names the one before it so many times."""
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels + 1)]
    return "\n".join(lines)


MERGES = "\n".join(["m0: &m0 {a: 1}", *(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 9))])


def test_plain_documents_are_read_as_before() -> None:
    text = "- {prompt: a jug, ask: {jug: 1}}\n- &x {n: [1, 2.5, true, null, é]}\n- *x\n- {<<: *x, m: 2}\n"
    x = {"n": [1, 2.5, True, None, "é"]}
    assert read_yaml(text) == [{"prompt": "a jug", "ask": {"jug": 1}}, x, x, x | {"m": 2}]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (laughs(), "more than 200000 values once its aliases are replaced"),
        (f"{laughs()}\nprompts: [a]", "more than 200000 values"),
        (MERGES, "200000 values"),
        ("&a [*a]", "part of"),
        ("&a {b: &b [*a]}", "part of"),
        ("[*nothing]", "'*nothing' refers to nothing"),
        ("[" * 33 + "]" * 33, "nested more than 32 deep"),
        ("[" * 100_000, "nest"),
        ("{a: " * 40 + "1" + "}" * 40, "nested more than 32 deep"),
        ("\n".join(f"b{i}: &b{i} [{'[' * 7 + (f'*b{i - 1}' if i else '1') + ']' * 7}]" for i in range(9)), "32 deep"),
        ("- a\n" * 200_001, "200000 values"),
        ("a" * (documents.MAX_YAML + 1), "characters of YAML"),
        (":".join(["1"] * 200_000), "too long"),
        ("9" * 5_000, "too long"),
        ("!!python/object/apply:os.getcwd []", "constructor"),
        ("!!timestamp x", "tag"),
        ("!!bool x", "tag"),
        ("a: [", "parsing"),
    ],
    ids=range(18),
)
def test_what_would_not_end_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        read_yaml(text)
    assert why in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_the_deepest_and_largest_are_read() -> None:
    depth = documents.MAX_DEPTH
    value = read_yaml("[" * depth + "]" * depth)
    for _ in range(depth - 1):
        [value] = value
    assert value == []
    assert len(read_yaml("- a\n" * 10_000)) == 10_000


def test_deep_json_is_a_value_error() -> None:
    for text in ("[" * 10**5, '{"a":' * 10**5, "[" * 10**5 + "]" * 10**5):
        with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
            read_json(text)
    assert read_json('{"a": [1]}') == {"a": [1]}


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_text(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_text(Path("/dev/zero"))
    (tmp_path / "text").write_text("123456")
    assert read_text(tmp_path / "text", max_bytes=6) == "123456"
    with pytest.raises(ValueError, match="at most 5 bytes"):
        read_text(tmp_path / "text", max_bytes=5)


@pytest.mark.parametrize("name", ["mine.yaml", "mine.yml"])
def test_suites_and_rubrics_that_unfold_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(f"{laughs()}\nprompts: [a jug]\nquestion: How?\n")
    for read in (load, lambda where: read_rubric(Path(where))):
        with pytest.raises(RollflowError, match=r"cannot (be read|read rubric .*): .*aliases") as raised:
            read(str(path))
        assert len(str(raised.value).splitlines()) == 1
        assert str(path) in str(raised.value)


@pytest.mark.parametrize("name", ["mine.json", "mine.jsonl"])
def test_suites_that_nest_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[" * (sys.getrecursionlimit() * 100))
    with pytest.raises(RollflowError, match=r"cannot be read: .*nested too deeply"):
        load(str(tmp_path / name))

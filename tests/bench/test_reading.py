"""Malformed experiment folders: one line of error names the file and what was expected."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_study import entry, folder, study  # noqa: F401
from test_untrusted import configure, line_of, rewrite

from rollflow.bench.analysis.results import read
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.reading import is_job, parsed
from rollflow.bench.run.stored import read_stored
from rollflow.cli import main
from rollflow.errors import RollflowError, RollflowWarning
from rollflow.files.printable import printable
from rollflow.report import tables, typeset


@pytest.fixture
def theirs(folder: Path, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(folder, tmp_path / "theirs"))


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Return the one line of error of a refused command."""
    assert main(list(command)) in (1, 2)
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert (out, line[:7]) == ("", "error: ")
    return line


ALL: list[Callable[[Path], list[str]]] = [
    lambda path: ["report", str(path)],
    lambda path: ["compare", str(path), str(path)],
    lambda path: ["replay", str(path), "0"],
]
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "3", '"text"', "{}", '{"arms": []}', "{", "", "\x00", DEEP, '{"a": ' * 40 + "1" + "}" * 40, "[NaN]"],
    ids=lambda content: content[:8],
)
@pytest.mark.slow
def test_what_is_no_configuration_is_refused(theirs: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (theirs / "experiment.json").write_text(content)
    for command in ALL:
        assert "experiment.json of" in refused(capsys, *command(theirs))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": None}, "'name' is null, expected a string"),
        ({"seeds": "3"}, """'seeds' is "3", expected a whole number"""),
        ({"seeds": True}, "'seeds' is true"),
        ({"seeds": 0}, "'seeds' is 0"),
        ({"max_rows": 10**9}, "'max_rows' is 1000000000, expected a whole number from 1 to 4096"),
        ({"held_out": "judge"}, "expected a list, each item a string"),
        ({"held_out": [3]}, "expected a list, each item a string"),
        ({"arms": {}}, "expected a list, each item an arm"),
        ({"arms": [None]}, "expected a list, each item an arm"),
        ({"arms": [{}]}, "arm 1 in experiment.json"),
        ({"arms": [{"name": "a"}] * 300}, "expected a list, each item an arm"),
        ({"suite": {"name": "s"}}, "expected an object with name, version, prompts"),
        ({"diversity": [1]}, "'diversity' is [1]"),
        ({"pipeline": "x"}, "'pipeline' is"),
    ],
)
def test_values_of_a_configuration_have_their_types(theirs: Path, changes: dict[str, Any], told: str) -> None:
    configure(theirs, **changes)
    with pytest.raises(RollflowError, match=re.escape(told)):
        read_stored(theirs)


def test_arms_have_their_fields_and_names_of_their_own(theirs: Path) -> None:
    arms = json.loads((theirs / "experiment.json").read_text())["arms"]
    configure(theirs, arms=[arms[0] | {"nfe": -1}, *arms[1:]])
    with pytest.raises(RollflowError, match=r"arm 1 in .* 'nfe' is -1"):
        read_stored(theirs)
    configure(theirs, arms=[arms[0] | {"run": "rm"}, *arms[1:]])
    with pytest.raises(RollflowError, match=r"arm 1 in .* has unknown settings: \"run\""):
        read_stored(theirs)
    configure(theirs, arms=[*arms, arms[0]])
    with pytest.raises(RollflowError, match=r"arm names in .* must be distinct; got \".*\" twice"):
        read_stored(theirs)


def bad(**changes: Any) -> dict[str, Any]:
    whole = entry("BoN", "p", 0, 1.0, sha256="0", id="0" * 16)
    return {key: value for key, value in (whole | changes).items() if value != "absent"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ([], "it is [], expected an object"),
        (None, "it is null, expected an object"),
        ({"id": "0" * 16}, "it has no 'arm'"),
        (bad(arm="nosuch"), """belongs to the arm "nosuch", which the experiment does not have"""),
        (bad(arm=["BoN"]), "'arm' is"),
        (bad(seed="absent"), "it has no 'seed'"),
        (bad(seed=-1), "'seed' is -1"),
        (bad(seed=10**30), "'seed' is 1000"),
        (bad(place=None), "'place' is null"),
        (bad(reward="0.5"), """'reward' is "0.5", expected a number"""),
        (bad(reward=1e300), "'reward' is 1e+300"),
        (bad(reward=True), "'reward' is true"),
        (bad(held_out=[1]), "'held_out' is [1], expected an object whose values are each"),
        (bad(held_out={"judge": "high"}), "'held_out' is"),
        (bad(trace=[]), "'trace' is []"),
        (bad(trace=[[1, 2, 3]]), "'trace' is"),
        (bad(quota=[["a"]]), "'quota' is"),
        (bad(ancestors=[[None, [7], [3]]]), "'ancestors' is"),
        (bad(ancestors=[[[1] * 3, [1, 1], [2]]]), "'ancestors' is"),
        (bad(ancestors=[3]), "'ancestors' is [3], expected parents of particles"),
        (bad(diagnostics=[{"ess": 3}]), "'diagnostics' is"),
        (bad(threads=10**9), "'threads' is 1000000000"),
        (bad(versions={"torch": 2}), "'versions' is"),
        (bad(ask={"cat": -1}), "'ask' is"),
        (bad(error=3), "'error' is 3, expected a string"),
        (bad(diversity="much"), "'diversity' is"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_line_of_another_form_is_refused_by_its_number(theirs: Path, line: Any, told: str) -> None:
    with next(theirs.glob("journal-*")).open("a") as file:
        number = len(Path(file.name).read_text().splitlines()) + 1
        file.write(line_of(line))
    with pytest.raises(RollflowError, match=rf"^journal-.*, line {number}, of .*{re.escape(told)}"):
        read_stored(theirs)
    assert len(JournalIndex(theirs).done) >= 16  # a run goes on: what it cannot read it does again


def test_deep_lines_end_in_one_line(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zlib

    (theirs / "journal-z.jsonl").write_text(f"{zlib.crc32(DEEP.encode()):08x} {DEEP}\n")
    for command in ALL:
        assert "journal-z.jsonl, line 1, of" in refused(capsys, *command(theirs))


def test_lines_of_other_ids_are_left_out_and_torn_ones_passed_over(theirs: Path) -> None:
    before = len(read(theirs).done)
    strange = ["a", "", 3, None, "0" * 15, "0" * 17, "g" * 16, "../" + "0" * 13, "diversity-../../0", "0" * 16 + "\n"]
    with (theirs / "journal-z.jsonl").open("w") as file:
        file.writelines(line_of(bad(id=name)) for name in strange)
        file.write("00000000 {}\nnonsense\n\n" + line_of(bad())[:-20])
    with pytest.warns(RollflowWarning, match=f"skipped {len(strange)} records .* the first is journal-z.jsonl, line 1"):
        assert len(read(theirs).done) == before


def test_ids() -> None:
    assert is_job("0123456789abcdef")
    assert is_job("diversity-0123456789abcdef")
    assert not any(map(is_job, ["0123456789ABCDEF", "0123456789abcdef\n", "../0123456789abcde", 7, None]))


def test_numbers_that_are_none_are_refused() -> None:
    assert parsed("[1, 2.5]") == [1, 2.5]
    for text in ("NaN", "[Infinity]", '{"a": -Infinity}', DEEP, "1" * 5000):
        with pytest.raises(ValueError, match=r"number|nested|digits"):
            parsed(text)


def test_printable_text_keeps_letters_and_writes_out_controls() -> None:
    assert printable("höher ✓ 三\tfoo\nbar") == "höher ✓ 三\tfoo\nbar"
    assert printable("\x1b]0;gone\x07\r\x9b2J\x7f") == "\\x1b]0;gone\\x07\\x0d\\x9b2J\\x7f"
    assert printable("a\u202eb\u2066\u200f\u2028\ud800") == "a\\u202eb\\u2066\\u200f\\u2028\\ud800"


HOSTILE = "\x1b[2J\u202e</script><script>![x](http://h/)|`$\\foo$\r\n# owned"


@pytest.mark.slow
def test_nothing_that_a_report_says_is_obeyed(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = json.loads((theirs / "experiment.json").read_text())["arms"]
    configure(theirs, name=HOSTILE, arms=[arms[0] | {"name": HOSTILE}, *arms[1:]], model=HOSTILE, reward=HOSTILE)
    rewrite(theirs, lambda one: one.update(arm=HOSTILE) if one["arm"] == "plain" else one.update(category=HOSTILE))
    (theirs / "command.txt").write_text(f"rollflow {HOSTILE}")
    assert main(["report", str(theirs), "--gallery", "1"]) == 0
    assert main(["compare", str(theirs), str(theirs)]) == 0
    written = [(theirs / f"report.{kind}").read_text() for kind in ("html", "md", "csv", "tex")]
    texts = [capsys.readouterr().out, *written]
    for text in texts:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    _, html, md, _, tex = texts
    assert "<script" not in html
    assert "\n# owned" not in md
    told = next(line for line in md.splitlines() if "written by" in line)  # as code, in which links are none
    assert re.fullmatch(r"Of the experiment that `` rollflow [^`]*`[^`]* `` ran; written by `rollflow report`\.", told)
    assert "](http" not in md.replace(told, "").replace("\\](http", "")
    assert "\\foo" not in tex


def test_cells_of_a_spreadsheet_are_no_formulas() -> None:
    cells = ["=1+1", "+1", "-1", "-1.5e-3", "@SUM(1)", "\t=1", "\r=1", " =1", "-x", "\uff1d1", "plain", "a=b"]
    cells += ["x;=1", "x \t@a", "w=1;-2.5", "\xa0=1", "\ufeff+a", "(q=1, -2)"]
    table = typeset.Table("=title", ("name", "=column"), tuple((cell, cell) for cell in cells))
    rows = list(csv.reader(typeset.comma_separated([table]).splitlines()))[1:]
    told = [row[3] for row in rows]
    assert {(row[0], row[2]) for row in rows} == {("'=title", "'=column")}
    assert told == [
        "'=1+1",
        "+1",
        "-1",
        "-1.5e-3",
        "'@SUM(1)",
        "'\t=1",
        "\\x0d=1",
        "' =1",
        "'-x",
        "'\uff1d1",
        "plain",
        "a=b",
        "x;'=1",
        "x \t'@a",
        "w=1;-2.5",
        "'\xa0=1",
        "'\ufeff+a",
        "(q=1, -2)",
    ]
    numbers = typeset.comma_separated(tables.tables(study(entry("a", "p", 0, -2.0), entry("a", "q", 0, -2.0))))
    assert ",-2.0," in numbers

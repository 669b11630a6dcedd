"""Packed experiments: one file with the content of a folder, read within bounds even if it is not trusted."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.small_study import folder  # noqa: F401
from test_untrusted import a_job

from rollflow.bench.analysis.results import read
from rollflow.bench.replay import find
from rollflow.bench.run import packed
from rollflow.bench.run.stored import pack, read_stored
from rollflow.cli import main
from rollflow.errors import RollflowError, RollflowWarning
from rollflow.report import tables
from rollflow.report.texts import texts


@pytest.fixture
def theirs(folder: Path, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(folder, tmp_path / "theirs"))


@pytest.fixture
def file(theirs: Path) -> Path:
    path = theirs.with_name("theirs.jsonl.gz")
    path.write_bytes(pack(theirs).content)
    return path


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def rewrite(file: Path, *lines: Any) -> None:
    file.write_bytes(gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))


def test_a_packed_experiment_says_what_its_folder_says(theirs: Path, file: Path) -> None:
    (theirs / "command.txt").write_text("rollflow bench run --preset init")
    file.write_bytes(pack(theirs).content)
    ours, whole = read(file), read(theirs)
    assert ours == replace(whole, pictures=None)
    assert (ours.name, ours.command, len(ours.failed)) == ("theirs", "rollflow bench run --preset init", 8)
    assert texts(ours, tables.tables(ours)) == texts(whole, tables.tables(whole))
    job = a_job(theirs)
    stored, record = find(file, job)
    assert record == find(theirs, job)[1]
    assert stored.provenance() == json.loads((theirs / "identities.json").read_text())


def test_an_id_that_is_no_jobs_lists_some_that_are(theirs: Path, file: Path) -> None:
    """A packed file has no folder of pictures by whose names the ids could be found."""
    for path, where in ((theirs, "; ids are the names of the files in its folder 'images'"), (file, "")):
        done = read_stored(path).index.done
        first = next(iter(done.values()))
        with pytest.raises(RollflowError) as refused:
            find(path, "x")
        assert str(refused.value).startswith(
            f"0 finished jobs of '{path}' have an id that begins with 'x', expected one{where}. "
            f'There are {first["id"]} ("plain", "a red square", seed 0), '
        )
        assert str(refused.value).endswith(" and 11 more")
        assert len(done) == 16
    rewrite(file, lines_of(file)[0])
    with pytest.raises(RollflowError, match=r"expected one\. None of its jobs has finished$"):
        find(file, "")


def test_packing_is_deterministic_and_packed_lines_are_those_of_the_journal(theirs: Path, file: Path) -> None:
    assert file.read_bytes() == pack(theirs).content
    assert file.read_bytes()[4:8] == bytes(4)  # no time
    head, *records = lines_of(file)
    assert head.keys() == {"form", "version", "config", "provenance", "command"}
    journal = next(theirs.glob("journal-*")).read_text().splitlines()
    assert records == [json.loads(line[9:]) for line in journal]


@pytest.mark.slow
def test_commands_read_packed_experiments(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "pack", str(theirs)]) == 0
    file = theirs.with_name("theirs.jsonl.gz")
    assert f"wrote {file}: 16 jobs" in capsys.readouterr().out
    assert main(["report", str(file), "--gallery", "6"]) == 0
    assert f"rollflow replay makes its picture, job {a_job(theirs)}" in file.with_name("theirs.html").read_text()
    assert main(["report", str(theirs), "--gallery", "1"]) == 0
    for suffix in ("md", "csv", "tex"):
        assert file.with_name(f"theirs.{suffix}").read_bytes() == (theirs / f"report.{suffix}").read_bytes()
    assert main(["compare", str(file), str(theirs)]) == 0
    assert main(["bench", "pack", str(theirs)]) == 0  # the same content
    file.write_bytes(b"something of the user's")
    assert main(["bench", "pack", str(theirs)]) == 2
    assert "already exists with other content" in capsys.readouterr().err
    assert file.read_bytes() == b"something of the user's"
    assert main(["bench", "pack", str(theirs), "--out", str(theirs / "x.zip")]) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"form": "other"}, "is not a file of 'rollflow bench pack': line 1 is"),
        ({"version": 2}, "has format version 2; this release of rollflow reads version 1"),
        ({"config": 3}, "the configuration in .* expected an object, got 3"),
        ({"config": {}}, "the configuration in .* it has no 'name'"),
        ({"provenance": []}, r"the provenance in .* expected an object, got \[\]"),
        ({"command": 3}, "the command in .* expected a string, got 3"),
    ],
)
def test_heads_of_another_form_are_refused(file: Path, changes: dict[str, Any], told: str) -> None:
    head, *records = lines_of(file)
    rewrite(file, head | changes, *records)
    with pytest.raises(RollflowError, match=told):
        read_stored(file)


def test_records_of_another_form_are_refused_by_their_line(file: Path) -> None:
    head, *records = lines_of(file)
    rewrite(file, head, *records, records[0] | {"nfe": -1})
    with pytest.raises(RollflowError, match=rf"line {len(records) + 2}, of '.*' cannot be used: 'nfe' is -1"):
        read_stored(file)


def test_damage_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (whole[:-9], whole[: len(whole) // 2], bytes(flipped), whole + b"more", b"", b"text", b"{}\n"):
        file.write_bytes(content)
        with pytest.raises(RollflowError, match=r"theirs.jsonl.gz'"):
            read_stored(file)


def test_bombs_are_not_unpacked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may unpack to an endless line or to endless lines."""
    head, *records = lines_of(file)
    file.write_bytes(gzip.compress(bytes(1 << 26)))
    assert file.stat().st_size < 1 << 17
    with pytest.raises(RollflowError, match="a line of 16,777,216"):
        read_stored(file)
    monkeypatch.setattr(packed, "MOST_PACKED", 1 << 20)
    rewrite(file, head, *records[:1] * 2000)
    assert file.stat().st_size < 1 << 17
    with pytest.raises(RollflowError, match="holds more than 1,048,576 bytes"):
        read_stored(file)


def test_lines_without_number_are_not_unpacked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest lines take the most memory for their bytes."""
    monkeypatch.setattr(packed, "MOST_LINES", 1000)
    rewrite(file, lines_of(file)[0], *[{}] * 999)
    with pytest.warns(RollflowWarning, match="skipped 999 records .* the first is line 2"):
        assert read_stored(file).index.done == {}
    rewrite(file, lines_of(file)[0], *[{}] * 1000)
    with pytest.raises(RollflowError, match="it holds more than 1,000 lines"):
        read_stored(file)
    monkeypatch.setattr(packed, "MOST_LINES", 16)
    with pytest.raises(RollflowError, match="has 24 records; at most 15 can be packed"):
        pack(file.with_name("theirs"))


def test_two_experiments_in_one_file_are_not_mixed(file: Path, tmp_path: Path) -> None:
    """Files of gzip can be joined; arms of the same names would then be taken for one experiment's."""
    whole = file.read_bytes()
    file.write_bytes(whole + whole)
    count = len(gzip.decompress(whole).splitlines())
    with pytest.raises(RollflowError, match=rf"line {count + 1} of '.*' begins another experiment; a file holds one"):
        read_stored(file)


def test_what_is_packed_already_is_not_packed_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "pack", str(file)]) == 2
    assert capsys.readouterr().err == f"error: '{file}' is a file; expected a folder of 'rollflow bench run'\n"
    assert main(["bench", "pack", str(file.parent)]) == 2
    assert "is not a folder of 'rollflow bench run': it has no experiment.json" in capsys.readouterr().err


@pytest.mark.slow
def test_an_experiment_under_way_can_be_packed_and_is_said_to_be(
    theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the record that is being written only a part is there; its job is not done yet."""
    [journal] = theirs.glob("journal-*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:7]) + lines[7][:50])
    done = sum(b'"error"' not in line for line in lines[:7])
    file = theirs.with_name("theirs.jsonl.gz")
    assert main(["bench", "pack", str(theirs)]) == 0
    out, err = capsys.readouterr()
    assert f"wrote {file}: {done} jobs" in out
    assert err == f"warning: '{theirs}' is not finished: {done} of 24 jobs are done; pack it again when it is\n"
    assert main(["report", str(file), "--gallery", "0"]) == 0
    assert "Unfinished; jobs done: " in capsys.readouterr().out
    journal.write_bytes(b"".join(lines))
    assert main(["bench", "pack", str(theirs)]) == 2
    assert "already exists with other content; remove it, or choose another --out" in capsys.readouterr().err
    file.unlink()
    assert main(["bench", "pack", str(theirs)]) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl.gz")
    with pytest.raises(RollflowError, match="not a regular file"):
        read_stored(tmp_path / "x.jsonl.gz")


def test_what_cannot_be_read_again_is_not_packed(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_PACKED", 1000)
    with pytest.raises(RollflowError, match="at most 1,000 can be packed"):
        pack(theirs)

"""Untrusted experiment folders: nothing that they name is imported or contacted, and no path leads out of them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import pytest
import torch
from PIL import Image
from support.small_study import folder  # noqa: F401

from rollflow import registry
from rollflow.bench.analysis.results import read
from rollflow.bench.probes.plots import budgets
from rollflow.bench.replay import find as find_job
from rollflow.bench.replay import refuse_untrusted, replay
from rollflow.bench.run.experiment import Arm
from rollflow.cli import main
from rollflow.errors import BadSetting, RollflowError, RollflowWarning
from rollflow.output import plots
from rollflow.report import figures
from rollflow.report.page import Tile, rows
from rollflow.rewards import REWARDS
from rollflow.rewards.judges.chat import Chat

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def theirs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """An untrusted folder that is the working directory and contains a module."""
    path = Path(shutil.copytree(folder, tmp_path / "theirs"))
    (path / "evil.py").write_text("raise AssertionError('imported')")
    monkeypatch.chdir(path)
    monkeypatch.setattr(registry, "searched", [])
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", ".")])
    return path


def configure(path: Path, **changes: Any) -> None:
    config = json.loads((path / "experiment.json").read_text())
    (path / "experiment.json").write_text(json.dumps(config | changes))


def rewrite(path: Path, change: Change) -> list[dict[str, Any]]:
    """Change every record of the journal, with correct checksums."""
    [journal] = path.glob("journal-*.jsonl")
    entries = [json.loads(line.partition(" ")[2]) for line in journal.read_text().splitlines()]
    for entry in entries:
        change(entry)
    journal.write_text("".join(line_of(entry) for entry in entries))
    return entries


def line_of(entry: Any) -> str:
    text = json.dumps(entry)
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def a_job(path: Path) -> str:
    return next((path / "images").iterdir()).stem


@pytest.mark.slow
def test_a_report_imports_nothing(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(theirs, held_out=["human(mode=evil:M)", "sum(parts=count;evil:R)", "evil:R", "evil"])
    for command in (["report", ".", "--gallery", "0"], ["compare", ".", "."]):
        assert main(command) == 0
    assert "evil" not in sys.modules
    assert "Unknown:" in (theirs / "report.html").read_text()
    assert main(["replay", ".", a_job(theirs)]) == 2
    assert "evil" not in sys.modules
    assert capsys.readouterr().err.endswith("add --trust\n")


@pytest.mark.slow
def test_plugins_are_not_loaded_by_a_report(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "theirs"

        def load(self) -> None:
            raise AssertionError("loaded")

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    configure(theirs, reward="theirs", model="theirs", held_out=["sum(parts=theirs;count)"])
    arm = json.loads((theirs / "experiment.json").read_text())["arms"]
    configure(theirs, arms=[one | {"method": "theirs"} for one in arm])
    assert main(["report", ".", "--gallery", "0"]) == 0


@pytest.mark.slow
def test_the_working_directory_is_searched_only_for_modules_that_the_user_names(
    theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = theirs / "evil-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: evil\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[rollflow.rewards]\nplugged = evil:R\n")
    configure(theirs, held_out=["plugged"])
    assert main(["replay", ".", a_job(theirs)]) == 2
    assert "'plugged', which is not part of the library or a plug-in" in capsys.readouterr().err
    assert "evil" not in sys.modules
    (theirs / "mine.py").write_text("from rollflow.rewards import REWARDS\nR = REWARDS['count']\n")
    try:
        registry.searched.clear()
        with pytest.raises(RollflowError, match="mine"):
            REWARDS.find("mine:R")
        registry.searched.append("")
        assert REWARDS.find("mine:R").name == "count"
    finally:
        sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "evil:M"}, "would load the model 'evil:M'"),
        ({"model": "owner/name"}, "would load the model 'owner/name'"),
        ({"model": "images"}, "would load the model 'images'"),
        ({"pipeline": {"arguments": {"image": "/etc/passwd.png"}}}, "would load the model"),
        ({"reward": "remote(url=http://127.0.0.1:9)"}, "remote(url=http://127.0.0.1:9)"),
        ({"reward": "remote"}, "contacts a server"),
        ({"held_out": ["vlm-judge(url=http://127.0.0.1:9, model=x, key=AWS_SECRET_ACCESS_KEY)"]}, "127.0.0.1:9"),
        ({"held_out": ["vlm-judge"]}, "contacts a server"),
        ({"held_out": ["sum(parts=count;vlm-judge(rubric=/etc/rubric.yaml))"]}, "/etc/rubric.yaml"),
        ({"held_out": ["minimum(parts=count;sum(parts=judge;remote))"]}, "contacts a server"),
        ({"held_out": ["vqascore"]}, "may download weights"),
        ({"held_out": ["aesthetic(checkpoint=../weights)"]}, "checkpoint=../weights"),
        ({"held_out": ["style(image=/home/me/photo.png)"]}, "/home/me/photo.png"),
        ({"held_out": ["human"]}, "asks a person"),
        ({"held_out": ["sum(parts=" * 50 + "count"]}, "expected NAME"),
        ({"held_out": ["sum(parts=" * 5000 + "count" + ")" * 5000]}, "expected NAME"),
        ({"reward": "evil.R"}, "'evil.R', which is not part of the library"),
        ({"reward": "..:x"}, "'..:x', which is not part of the library"),
    ],
)
def test_replay_reaches_for_nothing_that_the_folder_names(theirs: Path, changes: dict[str, Any], told: str) -> None:
    configure(theirs, **changes)
    with pytest.raises(RollflowError) as refused:
        replay(theirs, a_job(theirs))
    assert told in str(refused.value)


@pytest.mark.parametrize("field", ["method", "interpolant", "kernel", "grid", "guidance", "surrogate", "choose_by"])
def test_arms_name_only_what_is_registered(theirs: Path, field: str) -> None:
    config = find_job(theirs, a_job(theirs))[0].config
    refuse_untrusted(
        theirs,
        config,
        Arm("fine", "rbf(initial=2)", 10, interpolant="vp", kernel="sde(diffusion=converted(latest=0.97))"),
    )
    with pytest.raises(RollflowError, match=r"would import 'evil:X', which is not part of the library.*add --trust"):
        refuse_untrusted(theirs, config, Arm("a", **{field: "evil:X"}))  # type: ignore[arg-type]


def test_who_trusts_a_folder_gets_what_it_names(theirs: Path) -> None:
    configure(theirs, held_out=["gone:R"])
    with pytest.raises(RollflowError, match="cannot be loaded"):
        replay(theirs, a_job(theirs), trusted=True)


def test_an_id_is_no_path(theirs: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 128)).save(tmp_path / "private.png")
    before = read(theirs)
    first = rewrite(theirs, lambda entry: entry)[0]["id"]
    rewrite(theirs, lambda entry: entry.update(id="../../private") if entry["id"] == first else None)
    with pytest.warns(
        RollflowWarning, match=r"skipped 1 records of .* not those of jobs; the first is journal-.*, line 1"
    ):
        after = read(theirs)
    assert len(after.done) + len(after.failed) == len(before.done) + len(before.failed) - 1


def tiles(path: Path) -> list[Tile]:
    """Return the tiles of the first prompt and seed."""
    [row] = rows(read(path), 1)
    return row.tiles


@pytest.mark.parametrize("what", ["outside", "fifo", "bomb", "eps", "text", "folder"])
def test_a_picture_that_is_none_is_missing_from_the_report(theirs: Path, tmp_path: Path, what: str) -> None:
    private = tmp_path / "private.png"
    Image.new("RGB", (8, 8), (255, 0, 128)).save(private)
    header = private.read_bytes()
    assert all(tile.uri for tile in tiles(theirs))
    for picture in list((theirs / "images").iterdir()):
        picture.unlink()
        match what:
            case "outside":
                picture.symlink_to(private)
            case "fifo":
                os.mkfifo(picture)
            case "bomb":
                picture.write_bytes(header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:])
            case "eps":
                picture.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
            case "text":
                picture.write_text("hello")
            case "folder":
                picture.mkdir()
    shown = tiles(theirs)
    assert [tile.uri for tile in shown] == [None] * len(shown)
    assert all(tile.text.endswith("; its picture is missing or cannot be used") for tile in shown)


def test_images_elsewhere_are_not_shown(theirs: Path, tmp_path: Path) -> None:
    shutil.move(theirs / "images", tmp_path / "images")
    assert not any(tile.uri for tile in tiles(theirs))
    (theirs / "images").symlink_to(tmp_path / "images")
    assert not any(tile.uri for tile in tiles(theirs))


@pytest.mark.parametrize("name", ["command.txt", "experiment.json", "identities.json", "journal"])
def test_files_elsewhere_are_not_read(theirs: Path, tmp_path: Path, name: str) -> None:
    path = next(theirs.glob("journal-*")) if name == "journal" else theirs / name
    secret = tmp_path / "secret"
    if name == "command.txt":
        secret.write_text("top secret")
    else:
        shutil.move(path, secret)
    path.symlink_to(secret)
    if name == "command.txt":
        assert read(theirs).command is None
        return
    with pytest.raises(RollflowError, match="link to a file outside the folder"):
        (replay(theirs, a_job(theirs)) if name == "identities.json" else read(theirs))


@pytest.mark.parametrize("name", ["experiment.json", "identities.json"])
def test_files_without_end_are_not_read(theirs: Path, name: str) -> None:
    with (theirs / name).open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(RollflowError, match=f"{name} of .* cannot be read: expected at most 4194304 bytes, got more"):
        replay(theirs, a_job(theirs))


def test_journals_without_end_are_not_read(theirs: Path) -> None:
    with (theirs / "journal-z.jsonl").open("wb") as file:
        file.truncate(1 << 25)
    with pytest.raises(RollflowError, match=r"journal-z.jsonl, line 1 is too long"):
        read(theirs)
    with (theirs / "journal-z.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RollflowError, match=r"at most 1,073,741,824 can be read"):
        read(theirs)


def test_a_configuration_of_matplotlib_in_the_folder_says_nothing(theirs: Path) -> None:
    """A ``matplotlibrc`` in the working directory would be read when matplotlib is imported."""
    with matplotlib.rc_context({"text.usetex": True, "text.latex.preamble": "evil", "lines.linewidth": 99}):
        with plots.style():
            found = dict(matplotlib.rcParams)
            assert plots.figure_png(figures.scatter(read(theirs), read(theirs).held_out[0])).startswith(b"\x89PNG")
        assert matplotlib.rcParams["lines.linewidth"] == 99
    defaults = {**matplotlib.rcParamsDefault, "text.parse_math": False}
    assert [name for name, value in defaults.items() if found[name] != value and name != "backend"] == []


@pytest.mark.parametrize(
    "key", ["AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "ROLLFLOW", "ROLLFLOW_", "rollflow_x", "", "XROLLFLOW_A"]
)
def test_keys_are_read_from_variables_of_rollflow_alone(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if key:
        monkeypatch.setenv(key, "secret")
    with pytest.raises(BadSetting, match=r"names begin with ROLLFLOW_.*export ROLLFLOW_API_KEY=\.\.\."):
        Chat("http://127.0.0.1:9/v1", key, 1.0, 0)
    with pytest.raises(BadSetting, match="ROLLFLOW_"):
        REWARDS.make(f"vlm-judge(model=x, key={key or 'PATH'})")


def test_the_environment_is_read_in_few_places() -> None:
    """Every environment variable that is read is rollflow's own or the path of a cache."""
    read_, source = set(), Path(registry.__file__).parent
    for path in source.rglob("*.py"):
        read_ |= set(re.findall(r"os\.(?:environ(?:\.get\(|\[)|getenv\()([^,)\]]+)", path.read_text()))
    assert read_ <= {"TOKEN", "self.key", "DEBUG", '"LOCALAPPDATA"', '"XDG_CACHE_HOME"'}


@pytest.mark.slow
def test_extreme_numbers_end_soon(theirs: Path) -> None:
    """No number in the folder determines the size of a table, a figure or a loop."""
    config = json.loads((theirs / "experiment.json").read_text())
    arms = [arm | {"nfe": 2**62, "steps": 2**62} for arm in config["arms"]]
    configure(theirs, arms=arms, seeds=2**63 - 1, suite=config["suite"] | {"prompts": 2**63 - 1})
    most: dict[str, Any] = {"nfe": 2**62, "seconds": 1e12, "reward": 1e100, "place": 2**62, "seed": 2**62}
    rewrite(
        theirs, lambda one: one.update(most | {"trace": [[1, -1e100], [2**62, 1e100]]}) if "reward" in one else None
    )
    assert main(["report", ".", "--gallery", "1"]) == 0
    assert main(["compare", ".", "."]) == 0


def test_names_without_end_are_drawn_short() -> None:
    name = "a" * 10**6
    assert plots.short(name) == "a" * 57 + "..."
    assert plots.short("RBF,\n Linear-ODE") == "RBF, Linear-ODE"
    figure = budgets({name: {}}, {name: {1: 1.0}}, name)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert max(map(len, [*texts, figure.axes[0].get_ylabel()])) <= 90


def test_a_replay_that_cannot_be_written_leaves_the_picture_that_was_there(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.png").write_bytes(b"before")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = SimpleNamespace(result=SimpleNamespace(sample=torch.zeros(3, 8, 8)))
    monkeypatch.setattr("rollflow.bench.replay.replay", lambda *_, **__: made)
    monkeypatch.setattr(os, "fsync", full)
    assert main(["replay", ".", a_job(theirs), "--out", str(tmp_path / "one.png")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the disk of ")
    assert (tmp_path / "one.png").read_bytes() == b"before"

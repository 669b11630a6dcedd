"""Dry runs of experiments: they refuse what the run would refuse, and a refusal changes nothing."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
from tiny_experiment import experiment

import rollflow
from rollflow.bench.run.folder import ExperimentFolder, refuse_other
from rollflow.bench.run.runner import Runner
from rollflow.bench.suites import difficulty
from rollflow.bench.suites.scenes import write
from rollflow.cli import main
from rollflow.errors import BadSetting, FolderError, RollflowError, UnknownName
from rollflow.files.atomic import check_folder

RUN = ["bench", "run", "--preset", "searches", "--nfe", "100", "--prompts", "1", "--seeds", "1"]
BAD = [
    (["--reward", "cuont"], "unknown reward 'cuont'; did you mean 'count'?"),
    (["--reward", "caption(x=1)"], "unknown setting of reward caption 'x'"),
    (["--reward", "sum(parts=count;nosuch)"], "unknown reward 'nosuch'"),
    (["--reward", "gone:R"], "cannot be loaded"),
    (["--reward", "counting"], "'scenes-base' cannot read the prompt 'a zorp'"),
    (["--reward", ""], "unknown reward ''"),
    (["--suite", ""], "unknown suite ''"),
    (["--held-out", "nosuch"], "unknown reward 'nosuch'"),
    (["--held-out", "judge", "--held-out", "judge"], "got 'judge' twice"),
    (["--minutes", "nan"], "got nan"),
    (["--minutes", "-1"], "got -1.0"),
    (["--minutes", "inf"], "got inf"),
    (["--retries", "-1"], "--retries"),
    (["--seeds", "1000000000"], "expected 1 to 1000000 jobs"),
    (["--seeds", "0"], "--seeds"),
    (["--nfe", "5"], "smallest budget"),
    (["--max-rows", "100000"], "--max-rows"),
    (["--distance", "nosuch"], "unknown distance 'nosuch'"),
    (["--preset", "table-aesthetic", "--reward", "count"], "differentiable"),
    (["--preset", "nosuch"], "unknown preset 'nosuch'"),
    (["--model", "nosuch"], "unknown model 'nosuch'"),
    (["--suite", "nosuch"], "unknown suite 'nosuch'"),
    (["--suite", "zorp.txt"], "'scenes-base' cannot read the prompt 'a zorp': 'zorp' is not in the vocabulary"),
    (["--suite", "empty.txt"], "no prompts"),
    (["--device", "cpu"], "only for diffusers pipelines"),
]


@pytest.mark.parametrize(("arguments", "told"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "run"])
@pytest.mark.slow
def test_what_is_refused_makes_no_folder(
    arguments: list[str],
    told: str,
    dry: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zorp.txt").write_text("a zorp\n")
    (tmp_path / "empty.txt").write_text("\n")
    suite = ["--suite", "zorp.txt"] if "counting" in arguments else []
    assert main([*RUN, "--out", "folder", *arguments, *suite, *dry]) == 2
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert (out, line[:7]) == ("", "error: ")
    assert told in line
    assert not (tmp_path / "folder").exists()


@pytest.mark.slow
def test_a_dry_run_looks_at_the_folder_and_leaves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ExperimentFolder(tmp_path / "theirs").set_up(experiment().config())
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    for out, told in (
        ("theirs", "belongs to another experiment: "),
        ("file", "is not a folder"),
        ("file/below", "is not a folder"),
        (str(Path(rollflow.__file__).parent / "out"), "lies inside the installed package"),
    ):
        for dry in ([], ["--dry-run"]):
            assert main([*RUN, "--out", out, *dry]) == 2
            assert told in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert main([*RUN, "--out", "new/folder", "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_which_nothing_was_done_may_be_removed(tmp_path: Path) -> None:
    ExperimentFolder(tmp_path).set_up({"reward": "cuont"})
    with pytest.raises(RollflowError, match=r'reward was "cuont", is "count"; none of its jobs .* remove the folder'):
        refuse_other(tmp_path, {"reward": "count"})
    ExperimentFolder(tmp_path).record({"id": "a"})
    with pytest.raises(RollflowError, match=r'is "count"; choose another folder'):
        refuse_other(tmp_path, {"reward": "count"})


def test_a_runner_refuses_before_it_writes(tmp_path: Path) -> None:
    for changes in ({"seeds": 10**9}, {"seeds": 0}, {"max_rows": 0}):
        with pytest.raises(BadSetting, match=r"expected 1 to|between 1 and"):
            Runner(experiment(**changes), tmp_path / "out")
    for minutes in (math.nan, -1.0, math.inf):
        with pytest.raises(BadSetting, match="minutes"):
            Runner(experiment(), tmp_path / "out", minutes=minutes)
    with pytest.raises(BadSetting, match="retries"):
        Runner(experiment(), tmp_path / "out", retries=-1)
    assert not (tmp_path / "out").exists()


def package() -> str:
    """Return the files of the installed package, without Python's caches."""
    told = hashlib.sha256()
    for path in sorted(Path(rollflow.__file__).parent.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            told.update(f"{path} {path.stat().st_mtime_ns}".encode() + path.read_bytes())
    return told.hexdigest()


@pytest.mark.slow
def test_nothing_is_written_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before, data = package(), Path(rollflow.__file__).parent / "bench" / "suites" / "data"
    graded = {"easy": [difficulty.Graded("one cat on grass background", 0.5)], "medium": [], "hard": []}
    monkeypatch.setattr(difficulty, "grade", lambda *_, **__: graded)
    commands = [
        ["bench", "grade", "--out", "mine.jsonl"],
        ["bench", "grade", "--out", str(data / "scenes-quantity.jsonl")],
        ["bench", "profile", "--prompts", "1", "--parents", "2", "--siblings", "2", "--steps", "2", "--out", "profile"],
        ["bench", "mixture", "--out", str(data)],
        ["generate", "one cat on grass background", "--nfe", "10", "--method", "bon", "--out", str(data)],
        [*RUN, "--out", str(data)],
    ]
    assert [main(command) for command in commands] == [0, 2, 0, 2, 2, 2]
    assert json.loads((tmp_path / "mine.jsonl").read_text().splitlines()[1])["category"] == "easy"
    for folder in (data, data / "new", data.parent / ".." / "x"):
        with pytest.raises(FolderError, match="lies inside the installed package"):
            check_folder(folder)
    with pytest.raises(FolderError, match="lies inside the installed package"):
        write(str(data))
    assert package() == before


def test_an_empty_suite_is_not_written(tmp_path: Path, line: object) -> None:
    with pytest.raises(RollflowError, match="no prompt is easy, medium or hard"):
        difficulty.save_suite({"easy": [], "hard": []}, line, tmp_path / "new" / "a.jsonl")  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"candidates": 0}, {"candidates": -1}, {"samples": 0}, {"confirming": -1}, {"per_difficulty": -1}, {"steps": 0}],
)
def test_grading_refuses_numbers_that_never_end(wrong: dict[str, int]) -> None:
    right = {"candidates": 1, "samples": 1, "confirming": 0, "per_difficulty": 1, "steps": 2, "seed": 0}
    with pytest.raises(BadSetting, match="expected"):
        difficulty.grade(None, None, **(right | wrong))  # type: ignore[arg-type]


def test_captions_end_where_there_are_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difficulty, "PATIENCE", 2_000)
    with pytest.raises(BadSetting, match="cannot draw 5000 distinct captions, only"):
        difficulty.held_out_captions(5000, 0, totals=(1, 1))
    for count, seed in ((0, 0), (-1, 0), (1, -1)):
        with pytest.raises(BadSetting, match="expected 1 or more captions and a seed of 0 or more"):
            difficulty.held_out_captions(count, seed)


@pytest.mark.parametrize(
    "arguments",
    [
        "profile --prompts 0",
        "profile --seed -1",
        "profile --siblings 1",
        "profile --steps 0",
        "profile --kernel nosuch",
        "profile --reward nosuch",
        "profile --model nosuch",
        "diversity --model nosuch",
        "diversity --seed -1",
        "diversity --trajectories 1",
        "diversity --distance nosuch",
        "diversity --suite zorp.txt",
        "mixture --budgets 0",
        "mixture --budgets ten",
        "mixture --budgets 20,20",
        "mixture --seeds 0",
        "grade",
        "grade --out a.txt",
        "grade --out a.jsonl --candidates 0",
        "grade --out a.jsonl --samples 0",
        "grade --out a.jsonl --per-tier -1",
    ],
)
@pytest.mark.slow
def test_wrong_numbers_and_names_are_one_line(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zorp.txt").write_text("a zorp\n")
    out = [] if arguments.startswith("grade") else ["--out", "out"]
    assert main(["bench", *arguments.split(), *out]) == 2
    told, err = capsys.readouterr()
    [line] = err.splitlines()
    assert (told, line[:7]) == ("", "error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["zorp.txt"]


def test_a_distance_is_checked_by_name() -> None:
    from rollflow.bench.probes.diversity import check_distance

    check_distance("scenes")
    with pytest.raises(UnknownName, match="unknown distance 'cosine'"):
        check_distance("cosine")

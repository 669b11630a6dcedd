"""Files of a run: complete, strict and never half written."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.tiny import TinyModel, registered  # noqa: F401

from rollflow.api import Plan, run
from rollflow.dynamics.interpolants import VP
from rollflow.engine import Result
from rollflow.errors import RollflowError, RollflowWarning
from rollflow.files.atomic import check_folder, write
from rollflow.files.pictures import is_film, picture, png, still, webp
from rollflow.files.run_folder import encode
from rollflow.output import plots
from rollflow.output.outputs import choice, summary, write_run
from rollflow.output.recorder import Recorder
from rollflow.search import RolloverBudget

KEYS = [
    *("version", "prompt", "model", "method", "interpolant", "kernel", "grid", "lookahead", "guidance", "finish"),
    *("steps", "seed", "nfe_budget", "nfe_used"),
    *("network_rows", "reward_calls", "decodes", "backward_passes", "reward_name", "reward", "held_out"),
    *("warnings", "finished", "noise_level", "interrupted", "image"),
    *("noise", "plan", "nfe", "origin", "seconds", "trace", "diagnostics", "sha256", "threads", "versions"),
    "quota",
]


def test_a_choice_is_written_as_on_the_command_line() -> None:
    """A choice without a text in the plan, or a result without a plan, falls back to the name that was used."""
    content = {"plan": {"kernel": "ddim(eta=0.5)", "grid": None}, "kernel": "DDIM(eta=0.5)", "grid": "uniform"}
    assert [choice(content, name) for name in ("kernel", "grid")] == ["ddim(eta=0.5)", "uniform"]
    assert choice({"kernel": "sde"}, "kernel") == "sde"


def recorded(**settings: Any) -> tuple[Result, Recorder]:
    recorder = Recorder()
    plan = Plan("a red square", **{"method": "rbf", "nfe": 90, "interpolant": "vp", **settings})
    return run(plan.job(), [recorder]), recorder


def test_summary_is_the_account_of_the_run() -> None:
    result, recorder = recorded(seed=5)
    content = json.loads(encode(summary(result, recorder, 1.23456)))
    assert list(content) == KEYS
    assert {key: content[key] for key in KEYS[:13]} == {
        "version": 2,
        "prompt": "a red square",
        "model": "scenes-base",
        "method": "rbf",
        "interpolant": "vp",
        "kernel": "sde",
        "grid": "arc",
        "lookahead": "tweedie",
        "guidance": None,
        "finish": True,
        "steps": 10,
        "seed": 5,
        "nfe_budget": 90,
    }
    assert content["nfe_used"] == result.spent.nfe <= 90
    assert content["network_rows"] == 2 * content["nfe_used"]
    assert content["reward"] == result.reward
    assert content["held_out"] == result.held_out
    assert content["finished"] is True
    assert content["seconds"] == 1.235
    assert set(content["versions"]) == {"rollflow", "torch", "python"}
    nfe, rewards = zip(*content["trace"], strict=True)
    assert all(a <= b for series in (nfe, rewards) for a, b in pairwise(series))


@pytest.mark.parametrize("method", ["bon", "svdd", "rbf"])
def test_quota_and_finishing_add_up_to_what_was_used(method: str) -> None:
    result, recorder = recorded(method=method)
    particles = {"bon": len(recorder.steps[0][0].particles.x), "svdd": 2, "rbf": 2}[method]
    assert sum(map(sum, recorder.quota)) + particles * result.job.dynamics.finish_nfe == result.spent.nfe
    assert all(len(steps) == 10 for steps in recorder.quota)


@pytest.mark.slow
def test_settings_other_than_the_default_are_told_in_full() -> None:
    content = summary(*recorded(method=RolloverBudget(chains=1, initial=2), interpolant=VP(0.2, 10.0)), 1.0)
    assert (
        content["method"]
        == "RolloverBudget(chains=1, initial=2, acceptance=BestSoFar(), quota=UniformQuota(), recombine=False)"
    )
    assert content["interpolant"] == "VP(beta_min=0.2, beta_max=10.0)"


def test_json_holds_no_nan() -> None:
    result, recorder = recorded()
    content = summary(replace(result, held_out={"judge": float("nan"), "other": float("-inf")}), recorder, 1.0)
    assert json.loads(encode(content))["held_out"] == {"judge": None, "other": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"reward": float("nan")})


def test_a_picture_is_of_its_own_size() -> None:
    sample = torch.rand(3, 5, 100, generator=torch.Generator().manual_seed(0))
    assert picture(sample).size == (100, 5)
    assert picture(torch.tensor([-1.0, 0.5, 2.0]).reshape(3, 1, 1)).getpixel((0, 0)) == (0, 128, 255)
    for shape in ((2,), (1, 4, 4), (4, 4, 4), (3, 0, 4), (2, 3, 4, 4)):
        with pytest.raises(RollflowError, match="shape"):
            picture(torch.rand(shape))


def test_a_film_is_kept_frame_by_frame() -> None:
    frames = torch.rand(5, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    assert is_film(frames)
    assert still(frames).equal(frames[2])
    with Image.open(io.BytesIO(webp(frames))) as film:
        assert getattr(film, "n_frames", None) == 5
        for i, frame in enumerate(frames):
            film.seek(i)
            assert film.convert("RGB").tobytes() == picture(frame).tobytes()


@pytest.mark.slow
def test_a_run_of_films_shows_a_still_and_the_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, recorder = recorded()
    baseline = run(Plan("a red square", nfe=90).baseline())
    monkeypatch.setattr(TinyModel, "decode", lambda self, x0: (x0 + 0.5).clamp(0, 1)[:, None].repeat(1, 3, 1, 1, 1))
    result, baseline = (replace(one, sample=one.job.task.model.decode(one.x0[None])[0]) for one in (result, baseline))
    content = write_run(tmp_path, result, recorder, 1.0, baseline)
    assert (content["film"], content["baseline"]["film"]) == ("film.webp", "baseline.webp")
    assert {"image.png", "film.webp", "baseline.png", "baseline.webp"} <= {path.name for path in tmp_path.iterdir()}


def test_a_failure_while_writing_leaves_earlier_files_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a": b"old a", "b": b"old b"})
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if ".b." in path.name:
            whole(path, content[:2])
            raise OSError(28, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, {"a": b"new a", "b": b"new b"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old a", "b": b"old b"}


def test_ctrl_c_while_replacing_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a": b"old"})

    def stop(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, {"a": b"new"})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.slow
def test_write_run_writes_everything_and_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    result, recorder = recorded()
    plain = Plan("a red square", nfe=90)
    baseline = run(plain.baseline())
    content = write_run(tmp_path, result, recorder, 1.0, baseline)
    every = {"image.png", "baseline.png", "trace.png", "filmstrip.png", "result.json"}
    assert {path.name for path in tmp_path.iterdir()} == every
    assert json.loads((tmp_path / "result.json").read_text()) == content
    assert content["baseline"] == {
        "image": "baseline.png",
        "reward": baseline.reward,
        "held_out": baseline.held_out,
        "nfe_used": 10,
        "plan": dict(plain.baseline().plan),
    }
    with Image.open(io.BytesIO((tmp_path / "image.png").read_bytes())) as image:
        assert image.tobytes() == picture(result.sample).tobytes()
    assert png(picture(baseline.sample)) == (tmp_path / "baseline.png").read_bytes()

    write_run(tmp_path, result, recorder, 1.0)
    assert {path.name for path in tmp_path.iterdir()} == every - {"baseline.png"}


def test_a_plot_that_fails_loses_neither_sample_nor_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no fonts")

    monkeypatch.setattr(plots, "trace", fail)
    result, recorder = recorded()
    with pytest.warns(RollflowWarning, match="plots could not be drawn: OSError: no fonts; the sample and result.json"):
        write_run(tmp_path, result, recorder, 1.0)
    assert {path.name for path in tmp_path.iterdir()} == {"image.png", "result.json"}


def test_check_folder(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RollflowError, match=r"cannot write to the folder .*file"):
        check_folder(tmp_path / "file" / "below")
    with pytest.raises(RollflowError, match="cannot write"):
        check_folder(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


def test_the_model_is_not_loaded_by_a_report() -> None:
    result, recorder = recorded()
    loads = TinyModel.loads
    summary(result, recorder, 1.0)
    plots.filmstrip(result, recorder)
    assert TinyModel.loads == loads

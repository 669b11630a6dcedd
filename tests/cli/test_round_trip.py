"""``rollflow score`` of the files that ``generate``, ``bench run`` and ``replay`` write says what these said."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import TinyModel, registered  # noqa: F401
from torch import Tensor

from rollflow.bench.run.journal import JournalIndex
from rollflow.cli import main
from rollflow.files.media import read_picture
from rollflow.models import MODELS
from rollflow.models.scenes import ScenesTurbo
from rollflow.rewards import REWARDS
from rollflow.rewards.mixing import WeightedSum
from rollflow.rewards.pixels.colorfulness import Colorfulness
from rollflow.rewards.pixels.jpeg import JpegCompressibility, JpegIncompressibility
from rollflow.rewards.scenes.scenes import CaptionJudgeReward, CaptionReward, CountReward, JudgeReward

PROMPT = "three cats to the left of two cars on grass background"
JPEG = JpegCompressibility.name


def scored(capsys: pytest.CaptureFixture[str], reward: str, *files: Path, prompt: str = PROMPT) -> list[float]:
    capsys.readouterr()
    assert main(["score", reward, *map(str, files), "--prompt", prompt, "--json"]) == 0
    return [row["score"] for row in json.loads(capsys.readouterr().out)["scores"]]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that fails."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged model, rewards and judges in place of the tiny ones."""
    monkeypatch.setitem(MODELS, ScenesTurbo.name, ScenesTurbo)
    for kind in (
        *(CountReward, JudgeReward, CaptionReward, CaptionJudgeReward, Colorfulness),
        *(JpegCompressibility, JpegIncompressibility, WeightedSum),
    ):
        monkeypatch.setitem(REWARDS, kind.name, kind)


# What looks at eight bits, or counts, says the same of a file. The others see how far each pixel is rounded, by at most
# 1 / 510: a probability that is not about to tip moves by less than a hundredth, a colour by much less than a level.
ROUNDING = {"caption": 0.01, "caption-judge": 0.02, "colorfulness": 0.05}


@pytest.mark.slow
def test_generate_and_score_agree_on_every_packaged_reward(
    embedded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the search's reward, a mixture, and all others as its judges; for the result and the baseline."""
    mixture = f"sum(parts=count;{JPEG}, weights=1;0.5)"
    judges = ["count", "judge", "caption", "caption-judge", "colorfulness", JPEG, "jpeg-incompressibility"]
    options = [part for judge in judges for part in ("--held-out", judge)]
    command = ["generate", PROMPT, "--model", "scenes-turbo", "--method", "bon", "--nfe", "22", "--reward", mixture]
    assert main([*command, *options, "--compare", "--out", str(tmp_path), "-q"]) == 0
    content: dict[str, Any] = json.loads((tmp_path / "result.json").read_text())
    files = tmp_path / "image.png", tmp_path / "baseline.png"
    assert [read_picture(file).size for file in files] == [(64, 64)] * 2
    pair = content, content["baseline"]
    assert scored(capsys, mixture, *files) == [one["reward"] for one in pair]
    for name in judges:
        told = [one["held_out"][name] for one in pair]
        assert scored(capsys, name, *files) == pytest.approx(told, rel=0, abs=ROUNDING.get(name, 0))


@pytest.mark.parametrize("reward", ["count", "caption", "judge", "caption-judge"])
@pytest.mark.slow
def test_scenes_are_judged_at_their_own_size_or_not_at_all(
    reward: str, embedded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is enlarged by whole factors, as earlier versions saved it, is undone to the bit."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    picture.save(tmp_path / "1.png")
    for factor in (2, 3, 4, 7):
        picture.resize((64 * factor,) * 2, Image.Resampling.NEAREST).save(tmp_path / f"{factor}.webp", lossless=True)
    files = [tmp_path / "1.png", *(tmp_path / f"{factor}.webp" for factor in (2, 3, 4, 7))]
    assert len(set(scored(capsys, reward, *files))) == 1
    for size in ((1, 1), (200, 133), (64, 128), (32, 32), (100, 100)):
        picture.resize(size).save(tmp_path / "other.png")
        line = refused(capsys, "score", reward, tmp_path / "other.png", "--prompt", PROMPT)
        assert "other.png': " in line
        assert f"'{reward}' expects scenes of 64 x 64 pixels" in line
        assert f"got {size[0]} x {size[1]}; resize" in line


@pytest.fixture
def experiment(registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:  # noqa: F811
    """The command of a small one, whose reward is of bytes."""
    monkeypatch.setitem(REWARDS, JPEG, JpegCompressibility)
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a red square"}\n')
    options = ["--preset", "init", "--suite", str(tmp_path / "mine.jsonl"), "--nfe", "100", "--seeds", "1"]
    return ["bench", "run", *options, "--reward", JPEG, "--held-out", "judge", "--out", str(tmp_path / "run")]


@pytest.mark.slow
def test_bench_replay_and_report_keep_every_bit(
    experiment: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(experiment) == 0
    done = JournalIndex(tmp_path / "run").done
    images = {name: tmp_path / "run" / "images" / f"{name}.png" for name in done}
    assert scored(capsys, JPEG, *images.values(), prompt="a red square") == [done[name]["reward"] for name in images]

    name = next(iter(done))
    for suffix in ("png", "webp", "WEBP"):
        again = tmp_path / f"again.{suffix}"
        assert main(["replay", str(tmp_path / "run"), name, "--out", str(again)]) == 0
        with Image.open(again) as made, Image.open(images[name]) as kept:
            assert (made.format, made.size) == (suffix.upper(), (8, 8))
            assert made.convert("RGB").tobytes() == kept.tobytes()
    line = refused(capsys, "replay", tmp_path / "run", name, "--out", tmp_path / "again.jpg")
    assert "is neither a .png nor a .webp file" in line
    assert not (tmp_path / "again.jpg").exists()

    assert main(["report", str(tmp_path / "run")]) == 0
    shown = re.findall(r'src="data:image/webp;base64,([^"]+)"', (tmp_path / "run" / "report.html").read_text())
    embedded = {_undone(base64.b64decode(content)) for content in shown}
    assert embedded == {read_picture(path).tobytes() for path in images.values()}


def _undone(content: bytes) -> bytes:
    """Pixels of a picture of 8 x 8 that was enlarged to 320 x 320, each pixel to a square."""
    with Image.open(io.BytesIO(content)) as shown:
        assert shown.size == (320, 320)
        small = shown.convert("RGB").resize((8, 8), Image.Resampling.NEAREST)
        assert small.resize((320, 320), Image.Resampling.NEAREST).tobytes() == shown.convert("RGB").tobytes()
        return small.tobytes()


@pytest.mark.parametrize("frames", [[0, 0, 0, 1, 1], [0, 0, 0]], ids=str)
@pytest.mark.slow
def test_films_of_generate_and_replay(
    frames: list[int],
    experiment: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Frames that are equal, which files merge, count as often as they were there."""

    def decode(self: TinyModel, x0: Tensor) -> Tensor:
        shades = torch.stack([(x0 * (1 + 0.2 * i) + 0.5).clamp(0, 1) for i in range(5)], 1)
        return shades[:, frames]

    monkeypatch.setattr(TinyModel, "decode", decode)
    out = tmp_path / "out"
    command = ["generate", "a red square", "--reward", JPEG, "--nfe", "90", "--out", str(out)]
    assert main([*command, "--compare", "-q"]) == 0
    content = json.loads((out / "result.json").read_text())
    found = scored(capsys, JPEG, out / "film.webp", out / "baseline.webp", prompt="a red square")
    assert found == pytest.approx([content["reward"], content["baseline"]["reward"]], rel=1e-12)

    if frames == [0, 0, 0, 1, 1]:
        assert main(experiment) == 0
        name, entry = next(iter(JournalIndex(tmp_path / "run").done.items()))
        assert main(["replay", str(tmp_path / "run"), name, "--out", str(tmp_path / "again.webp")]) == 0
        [again] = scored(capsys, JPEG, tmp_path / "again.webp", prompt="a red square")
        assert again == pytest.approx(entry["reward"], rel=1e-12)


@pytest.mark.slow
def test_a_warning_is_one_line(
    registered: None,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the dry run and by the run, once each although plan and job both have it."""
    command = ["generate", "a red square", "--method", "paths", "--nfe", "90", "--out", str(tmp_path / "out"), "-q"]
    for more in (["--dry-run"], []):
        assert main([*command, *more]) == 0
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: paths has too few steps in 90 NFE: one spans 0.81 of noise level")
        assert line.endswith("use 168 NFE or more, or fewer streams or copies")
    assert main([*command[:5], "168", *command[6:], "--dry-run"]) == 0
    assert capsys.readouterr().err == ""

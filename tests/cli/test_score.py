"""``rollflow score`` and ``rollflow rewards --verbose``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from support.refusals import refused
from support.tiny import Redness, registered  # noqa: F401
from torch import Tensor

from rollflow.cli import catalogue, main, tables
from rollflow.files.pictures import webp
from rollflow.prompts import asked
from rollflow.registry import Registry
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.base import Card
from rollflow.rewards.pixels.jpeg import JpegCompressibility


class Asks(RewardModel):
    """The red of the picture times the number of cats asked for, plus a setting."""

    name = "asks"
    description = "of the tests"
    card = Card("any", "1 GB", "2 GB", "MIT", "nobody 2025")
    batch_size = 3
    batches: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self, plus: float = 0.0, device: str = "cpu") -> None:
        self.plus = plus + len(device)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.batches.append(tuple(samples.shape))
        cats = torch.tensor([asked(prompt)["cat"] for prompt in prompts])
        return samples.flatten(1).mean(1).double() * cats + self.plus


@pytest.fixture(autouse=True)
def asks(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setitem(REWARDS, Asks.name, Asks)
    monkeypatch.setitem(REWARDS, JpegCompressibility.name, JpegCompressibility)
    monkeypatch.setattr(Asks, "batches", [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with four pictures and a film, as grey as their names say."""
    monkeypatch.chdir(tmp_path)
    for name, size, grey in (("51.png", (8, 6), 51), ("102.webp", (9, 6), 102), ("204.jpg", (8, 6), 204)):
        Image.new("RGB", size, (grey,) * 3).save(name, quality=100, lossless=True)
    Image.new("L", (8, 6), 153).save("153.png")
    film = torch.tensor([0.2, 0.8, 0.8]).reshape(3, 1, 1, 1).expand(3, 3, 6, 256)
    Path("film.webp").write_bytes(webp(film))
    return tmp_path


def lines(out: str) -> dict[str, float]:
    return {name: float(number) for name, number in (line.split() for line in out.splitlines())}


def test_one_line_a_file_in_batches_of_one_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["51.png", "102.webp", "film.webp", "204.jpg", "153.png", "51.png"]
    assert main(["score", "asks", *files, "--prompt", "two cats"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()] == files
    assert lines(out) == pytest.approx(
        {"51.png": 3.4, "102.webp": 3.8, "film.webp": 4.2, "204.jpg": 4.6, "153.png": 4.2}, rel=1e-5
    )
    assert sorted(Asks.batches) == [(1, 3, 3, 6, 256), (1, 3, 6, 8), (1, 3, 6, 9), (3, 3, 6, 8)]


def test_what_is_asked_settings_device_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["score", "asks(plus=10)", "51.png", "--prompt", "pets", "--ask", "cats=3", "--ask", "dog=0"]
    assert main([*command, "--device", "cuda:0", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == {
        "reward": "asks(plus=16.0)",
        "prompt": "pets",
        "scores": [{"file": "51.png", "score": pytest.approx(16.6)}],
    }


def test_pixels_are_those_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The size of the JPEG file of a PNG; a photograph stands upright."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save("noise.png")
    Image.fromarray(noise).save("noise.jpg", quality=95)
    assert main(["score", "jpeg-compressibility", "noise.png", "--prompt", "noise"]) == 0
    assert lines(capsys.readouterr().out) == {"noise.png": -Path("noise.jpg").stat().st_size / 1000}
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise).save("turned.png", exif=turned)
    assert main(["score", "asks", "turned.png", "--prompt", "a cat"]) == 0
    assert Asks.batches == [(1, 3, 24, 40)]


def test_what_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.png").write_text("no picture")
    whole = (folder / "51.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save("deep.png")
    for command, why in [
        (["asks", "none.png", "--prompt", "a cat"], "cannot read 'none.png'"),
        (["asks", "51.png", "text.png", "--prompt", "a cat"], "cannot read 'text.png'"),
        (["asks", "cut.png", "--prompt", "a cat"], "cannot read 'cut.png'"),
        (["asks", "deep.png", "--prompt", "a cat"], "more than 8 bits"),
        (["asks", ".", "--prompt", "a cat"], "cannot read '.'"),
        (["asks", "51.png"], "--prompt"),
        (["asks", "--prompt", "a cat"], "'FILES'"),
        (["ask", "51.png", "--prompt", "a cat"], "unknown reward 'ask'; did you mean 'asks'"),
        (["asks(minus=1)", "51.png", "--prompt", "a cat"], "unknown setting of reward asks 'minus'"),
        (["caption", "51.png", "--prompt", "a cat", "--device", "cpu"], "unknown setting of reward caption 'device'"),
        (["asks", "51.png", "--prompt", "a cat", "--ask", "cat"], "expected THING=COUNT"),
    ]:
        assert main(["score", *command]) == 2
        assert why in refused(capsys)
    assert Asks.batches == []


def test_what_fails_on_the_way(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "broken", "51.png", "--prompt", "x"]) == 1
    assert "reward 'broken' gave nan for '51.png'" in refused(capsys)


def test_rewards_are_explained() -> None:
    registry: Registry[RewardModel] = Registry("reward", RewardModel, {"asks": Asks, "caption": Redness})
    registry.names = lambda: ["asks", "caption", "plugin"]  # type: ignore[method-assign]
    Registry.of[RewardModel] = REWARDS
    entries = [catalogue.entry_of(catalogue.KINDS["rewards"], registry, name) for name in registry.names()]
    assert tables.explained(entries) == "\n".join(
        [
            "REWARDS",
            "",
            "asks(plus=0.0, device=cpu)",
            "    of the tests",
            "    differentiable  no",
            "    held-out        none",
            "    range           any",
            "    download        1 GB",
            "    memory          2 GB",
            "    licence         MIT",
            "    reference       nobody 2025",
            "",
            "caption()",
            "    redness, in [0, 1]",
            "    differentiable  no",
            "    held-out        judge",
            "",
            "plugin",
            "    (unknown reward 'plugin'; known: asks, caption)",
        ]
    )

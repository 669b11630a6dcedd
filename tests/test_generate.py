"""``generate`` as users of diffusers call it: a list of prompts, a result that shows and saves itself."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from support.tiny import TinyModel, registered  # noqa: F401

import rollflow
from rollflow import BadReward, BadSetting, Plan, Prompt, generate
from rollflow.engine import JobsFailed, Result

PROMPTS = ["a red square", "two cats", Prompt("three dogs", {"dog": 3})]


def bits(result: Result) -> tuple[Any, ...]:
    return result.sample.numpy().tobytes(), result.reward, result.held_out, result.spent, result.trace


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_prompts_gives_what_each_gives_alone(kind: Any) -> None:
    """In shared calls of one loaded model, and with the record of its own prompt."""
    options: dict[str, Any] = {"method": "svdd", "nfe": 60, "seed": 3}
    together = generate(kind(PROMPTS), **options)
    assert TinyModel.loads == 1
    [model] = {id(one.job.task.model): one.job.task.model for one in together}.values()
    alone = [generate(prompt, **options) for prompt in PROMPTS]
    assert [bits(one) for one in together] == [bits(one) for one in alone]
    assert [one.job.plan for one in together] == [one.job.plan for one in alone]
    assert [one.job.task.prompt for one in together] == PROMPTS
    other = alone[0].job.task.model
    assert isinstance(model, TinyModel)
    assert isinstance(other, TinyModel)
    assert model.calls < 2 * other.calls
    assert not torch.equal(together[0].sample, generate(PROMPTS[0], method="svdd", nfe=60, seed=4).sample)


@pytest.mark.parametrize("wrong", ["a unicorn", 3, ""])
def test_all_prompts_are_checked_before_anything_loads(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        TinyModel, "check_prompt", lambda prompt: TinyModel.encode(TinyModel.__new__(TinyModel), prompt), raising=False
    )
    with pytest.raises((BadSetting, ValueError), match=r"unicorn|the prompt"):
        generate(["a cat", wrong], nfe=60)
    with pytest.raises(BadSetting, match="the list of prompts is empty"):
        generate([], nfe=60)
    with pytest.raises(BadSetting, match=r"a plan has one prompt; give a list of prompts to rollflow\.generate"):
        Plan(["a cat"], nfe=60)  # type: ignore[arg-type]
    assert TinyModel.loads == 0


def test_a_prompt_that_fails_does_not_lose_the_others() -> None:
    def picky(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        if "two cats" in prompts:
            raise KeyError("two")
        return images[:, 0].mean((1, 2))

    with pytest.raises(JobsFailed) as failed:
        generate(PROMPTS, reward=rollflow.FunctionReward(picky, batch_size=1), nfe=60)
    first, second, third = failed.value.results
    assert second is None
    assert first is not None
    assert third is not None
    assert isinstance(failed.value.failures[1], BadReward)
    assert bits(first) == bits(generate(PROMPTS[0], reward=picky, nfe=60))


def test_a_result_has_its_picture() -> None:
    """The picture that is saved, and as many values as the sample."""
    result = generate("a cat", nfe=60)
    result.save("out")
    with Image.open("out/image.png") as saved:
        assert result.image.tobytes() == saved.convert("RGB").tobytes()
    assert result.image.size == (8, 8)
    [only] = result.images
    assert only == result.image


def test_a_film_has_frames_and_the_middle_one_is_its_picture() -> None:
    result = generate("a cat", nfe=60)
    film = replace(result, sample=torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 3, 2, 4) / 5)
    assert [frame.getpixel((0, 0)) for frame in film.images] == [(value,) * 3 for value in (0, 51, 102, 153, 204)]
    assert film.image == film.images[2]
    html = film._repr_html_()
    content = base64.b64decode(re.findall(r'src="data:image/webp;base64,([^"]+)"', html)[0])
    with Image.open(io.BytesIO(content)) as shown:
        assert (shown.n_frames, shown.size) == (5, (4, 2))  # type: ignore[attr-defined]


def test_a_sample_without_a_picture_says_so() -> None:
    result = replace(generate("a cat", nfe=60), sample=torch.rand(5, 2))
    for name in ("image", "images"):
        with pytest.raises(rollflow.RollflowError, match=r"a picture needs a sample of shape \(3, H, W\), not"):
            getattr(result, name)
    assert "<code>sample of shape (5, 2)</code>" in result._repr_html_()
    assert "<img" not in result._repr_html_()


def test_a_dictionary_is_what_the_file_says() -> None:
    result = generate("a cat", method="svdd", nfe=60)
    result.save("out")
    written = json.loads(Path("out/result.json").read_text())
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert {name: written[name] for name in told} == told
    assert (told["prompt"], told["reward"], told["nfe_used"]) == ("a cat", result.reward, result.spent.nfe)
    assert "image" not in told


def test_a_notebook_shows_picture_rewards_and_trace() -> None:
    """Well formed, whatever the prompt, and without anything from elsewhere."""
    prompt = 'a "cat" <script>alert(1)</script> & a dog'
    result = generate(prompt, method="svdd", nfe=60)
    html = result._repr_html_()
    root = ElementTree.fromstring(re.sub("(<img [^>]*)>", r"\1/>", html))
    image = root.find("img")
    assert image is not None
    assert image.attrib["alt"] == prompt
    with Image.open(io.BytesIO(base64.b64decode(image.attrib["src"].removeprefix("data:image/png;base64,")))) as shown:
        assert shown.tobytes() == result.image.tobytes()
    table = {row[0].text: row[1].text for row in root.iter("tr")}
    assert table["prompt"] == prompt
    assert table["caption"] == f"{result.reward:.6g}"
    assert table["held out: judge"] == f"{result.held_out['judge']:.6g}"
    assert table["NFE"] == f"{result.spent.nfe} of 60"
    path = root.find(".//path")
    assert path is not None
    steps = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+)[ V]([\d.]+)", path.attrib["d"])]
    assert [x for x, _ in steps] == pytest.approx([320 * point.nfe / 60 for point in result.trace], abs=0.1)
    heights = [y for _, y in steps]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (116, 4)
    assert len(steps) > 2


def test_a_large_picture_is_shown_small() -> None:
    result = replace(generate("a cat", nfe=60), sample=torch.rand(3, 800, 1600))
    content = base64.b64decode(re.findall(r'base64,([^"]+)"', result._repr_html_())[0])
    with Image.open(io.BytesIO(content)) as shown:
        assert shown.size == (320, 160)


def test_a_trace_of_one_score_is_not_drawn() -> None:
    result = generate("a cat", nfe=60)
    assert "<svg" not in replace(result, trace=result.trace[:1])._repr_html_()
    assert "<svg" in replace(result, trace=(result.trace[-1],) * 2)._repr_html_()

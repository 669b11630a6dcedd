"""A loaded pipeline of diffusers given as the model, as users of diffusers have it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("diffusers")

import numpy as np
import torch
from families import flux
from PIL import Image

from rollflow import BadSetting, DiffusersModel, Plan, RollflowError, generate, load_model
from rollflow.models import as_model


def darkness(images: list[Image.Image], prompts: list[str]) -> list[float]:
    return [255.0 - float(np.asarray(image, float).mean()) for image in images]


def test_a_pipeline_and_the_arguments_of_its_call_are_a_model() -> None:
    """For one prompt and for a list, with a function as the reward."""
    tiny = flux.distilled()
    options: dict[str, Any] = {"reward": darkness, "method": "bon", "nfe": 8, "steps": 4}
    one, other = generate(["a cat", "a dog"], model=(tiny.pipeline, tiny.arguments), **options)
    loaded = generate("a cat", model=load_model(tiny.pipeline, tiny.arguments), **options)
    assert torch.equal(one.sample, loaded.sample)
    assert one.job.task.model is other.job.task.model
    assert one.job.task.model.identity == loaded.job.task.model.identity
    assert one.reward == darkness([one.image], [""])[0]


def test_a_pipeline_alone_is_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(DiffusersModel, "__init__", lambda self, *arguments: given.extend(arguments))
    pipeline = flux.distilled().pipeline
    assert isinstance(as_model(pipeline), DiffusersModel)
    assert given == [pipeline]


def test_what_a_pipeline_does_not_take_is_refused() -> None:
    tiny = flux.distilled()
    with pytest.raises(RollflowError, match="heigth"):
        Plan("a cat", model=(tiny.pipeline, {"heigth": 8}))
    with pytest.raises(BadSetting, match=r"the second of the pair \(pipeline, arguments\) must be a pipeline's argum"):
        Plan("a cat", model=(tiny.pipeline, (3, 8, 8)))
    with pytest.raises(
        BadSetting, match=r"model must be a name or .* or a pipeline of diffusers or .*, not a FluxTran"
    ):
        Plan("a cat", model=tiny.pipeline.transformer)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("height", r"model=\(pipe, \{'height': \.\.\.\}\)"),
        ("num_inference_steps", "but called steps"),
        ("generator", "but called seed"),
    ],
)
def test_arguments_of_a_pipelines_call_are_told_where_they_go(name: str, hint: str) -> None:
    with pytest.raises(BadSetting, match=hint):
        generate("a cat", **{name: 1})  # type: ignore[call-overload]

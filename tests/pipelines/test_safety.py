"""What a pipeline's safety checker flags is rejected, not shown as a black sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("diffusers")

import numpy as np
import torch
from checks import Brightness, loaded
from diffusers import StableDiffusionPipeline
from families import Tiny, cosmos2, stable_diffusion
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor

from rollflow import BadModel, DiffusersModel
from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.models.diffusers.calls import PipelineCalls
from rollflow.models.diffusers.hooked import PipelineCall

SAYS = "the safety checker"
LEVEL = -0.0973  # of the mean of a picture in [-1, 1], amid those of ``states``


def states(model: DiffusersModel, rows: int = 6) -> Tensor:
    return torch.randn(rows, *model.shape, generator=torch.Generator().manual_seed(3))


class Checker(torch.nn.Module):
    """Flags bright pictures, as bools of any kind, and blackens them in place or in a copy."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, verdicts: Callable[[list[bool]], Any] = list, in_place: bool = True, blackens: bool = True):
        super().__init__()
        self.verdicts, self.in_place, self.blackens = verdicts, in_place, blackens

    def forward(self, clip_input: Tensor, images: Tensor) -> tuple[Tensor, Any]:
        assert clip_input.shape == (len(images), 3, 8, 8)
        flags = [float(image.mean()) > LEVEL for image in images]
        images = images if self.in_place else images.clone()
        for row, flag in enumerate(flags):
            if flag and self.blackens:
                images[row] = torch.zeros_like(images[row])
        return images, self.verdicts(flags)


def checked(checker: Any) -> Tiny:
    extractor = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    pipeline = StableDiffusionPipeline(**{**stable_diffusion._components(), "feature_extractor": extractor})
    pipeline.safety_checker = checker
    return Tiny(pipeline, {**stable_diffusion.SIZE, **stable_diffusion.GUIDED})


@pytest.mark.parametrize(
    "checker",
    [
        Checker(),
        Checker(in_place=False),
        Checker(torch.tensor),
        Checker(np.array),
        Checker(blackens=False),
        lambda images, clip_input: Checker()(clip_input, images),
    ],
    ids=["list", "copies", "tensor", "array", "only says so", "a function"],
)
@pytest.mark.slow
def test_what_the_checker_flags_is_rejected(checker: Any) -> None:
    free, model = loaded(stable_diffusion.epsilon()), loaded(checked(checker))
    x0 = states(model)
    with torch.no_grad():
        bare = free.decode(x0)
        samples, rejected = model.screened(x0)
        shown = model.decode(x0)
    flagged = [bool(one.mean() * 2 - 1 > LEVEL) for one in bare]
    assert len(set(flagged)) == 2
    assert rejected == tuple(SAYS if flag else None for flag in flagged)
    assert shown.equal(bare)  # a decoder shows all
    assert not samples[torch.tensor(flagged)].any()
    assert samples[~torch.tensor(flagged)].equal(bare[~torch.tensor(flagged)])


def test_a_pipeline_without_a_checker_rejects_nothing() -> None:
    model = loaded(stable_diffusion.epsilon())
    x0 = states(model, 2)
    samples, rejected = model.screened(x0)
    assert rejected == (None, None)
    assert samples.equal(model.decode(x0))


@pytest.mark.filterwarnings("ignore")
def test_diffusers_own_checker() -> None:
    """Its thresholds are moved between the two nearest scores of four pictures, so that it flags some."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"image_size": 8, "patch_size": 4}
    config = CLIPConfig(vision_config=vision, projection_dim=4)
    checker = StableDiffusionSafetyChecker(config).eval()
    checker.concept_embeds.data.normal_()
    checker.special_care_embeds_weights.data.fill_(2.0)
    model = loaded(checked(checker))
    scores: list[float] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        embedded = checker.visual_projection(checker.vision_model(kwargs["clip_input"])[1])
        similar = torch.cosine_similarity(embedded[:, None], checker.concept_embeds[None], dim=-1)
        scores.extend(similar.amax(1).tolist())

    handle = checker.register_forward_pre_hook(keep, with_kwargs=True)
    model.decode(states(model, 4))
    handle.remove()
    middle = sum(sorted(scores)[1:3]) / 2
    checker.concept_embeds_weights.data.fill_(middle)
    samples, rejected = model.screened(states(model, 4))
    assert [name is not None for name in rejected] == [score > middle + 5e-4 for score in scores]
    assert 1 <= sum(name is not None for name in rejected) <= 3
    assert [bool(sample.any()) for sample in samples] == [name is None for name in rejected]


def test_a_checker_set_on_the_pipeline_itself() -> None:
    """As users replace it."""
    tiny = stable_diffusion.epsilon()
    tiny.pipeline.run_safety_checker = lambda image, device, dtype: (
        torch.zeros_like(image),
        [row == 1 for row in range(len(image))],
    )
    free, model = loaded(stable_diffusion.epsilon()), loaded(tiny)
    samples, rejected = model.screened(states(model, 3))
    assert rejected == (None, SAYS, None)
    assert (samples == 0.5).all(dim=(1, 2, 3)).tolist() == [True, False, True]  # what it did without a flag is kept
    assert model.decode(states(model, 3))[1].equal(free.decode(states(model, 3))[1])


def test_watermarks_count_too() -> None:
    class Watermarked(StableDiffusionPipeline):  # type: ignore[misc]  # diffusers has no types here
        def run_safety_checker(self, image: Tensor, *_: Any) -> Any:
            return image, [True, False, False], [False, False, True]

    tiny = stable_diffusion.epsilon()
    tiny.pipeline.__class__ = Watermarked
    model = loaded(tiny)
    hooked = model.calls.pipeline
    hooked.call, image = PipelineCall(), torch.ones(3, 3, 2, 2)
    made = hooked.run_safety_checker(image, "cpu", torch.float32)
    assert hooked.call.flags == [True, False, True]
    assert made[0].equal(image)
    assert made[1:] == (None, None)


def test_a_checker_that_does_not_give_one_verdict_each() -> None:
    tiny = stable_diffusion.epsilon()
    tiny.pipeline.run_safety_checker = lambda image, device, dtype: (image, [False])
    model = loaded(tiny)
    with pytest.raises(BadModel, match="2 samples for 2 states, and its safety checker 1 verdicts"):
        model.screened(states(model, 2))


def test_halved_calls_keep_the_order_of_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(checked(Checker()))
    x0, decode = states(model), model.calls.decode
    with torch.no_grad():
        whole = model.screened(x0)

    def small(rows: Any, state: Tensor) -> Any:
        if len(rows) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return decode(rows, state)

    monkeypatch.setattr(model.calls, "decode", small)
    with torch.no_grad():
        halved = model.screened(x0)
    assert halved.rejected == whole.rejected
    torch.testing.assert_close(halved.samples, whole.samples)


@pytest.mark.slow
def test_gradients_of_flagged_pictures_are_those_of_the_picture() -> None:
    free, model = loaded(stable_diffusion.epsilon()), loaded(checked(Checker()))

    def gradient(of: DiffusersModel) -> Tensor:
        leaf, t = states(of).requires_grad_(), torch.full((6,), 0.5, dtype=torch.float64)
        v = of.velocity(leaf, t, [of.encode("a cat")] * 6)
        clean = denoised_from_velocity(of.interpolant, v, leaf, t)
        return torch.autograd.grad(Brightness().score(of.decode(clean), ["a cat"] * 6).sum(), leaf)[0]

    assert gradient(model).equal(gradient(free))


class Strict(cosmos2.Anything):
    """Blocks every second film, and texts of dogs."""

    def __init__(self) -> None:
        self.films, self.texts, self.at = 0, list[str](), "cpu"

    def to(self, device: Any) -> Strict:
        self.at = str(device)
        return self

    def check_text_safety(self, prompt: str) -> bool:
        self.texts.append(prompt)
        return "dog" not in prompt

    def check_video_safety(self, frames: np.ndarray) -> Any:
        self.films += 1
        return None if self.films % 2 else frames


def test_a_guardrail_of_films_and_texts() -> None:
    """Of which the pipeline itself fails where a film is blocked."""
    tiny = cosmos2.text_to_image()
    guard = tiny.pipeline.safety_checker = Strict()
    calls = PipelineCalls(tiny.pipeline, tiny.arguments)
    row = calls.encode("a cat")
    assert guard.texts.count("a cat") == 1
    with pytest.raises(Exception, match="unsafe text"):
        calls.encode("a dog")
    state = torch.randn(3, 4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    samples, flags = calls.decode([row] * 3, state)
    assert flags == [True, False, True]
    assert samples.shape[0] == 3
    assert guard.texts.count("a cat") == 1  # read once, though every call of the pipeline asks
    assert guard.at == "cpu"

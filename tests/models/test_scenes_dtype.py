"""The embedded networks in bfloat16: close to float32, told apart by their identity, chosen by every front door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rollflow.api import Plan
from rollflow.api.trust import refuse_untrusted
from rollflow.cli import main
from rollflow.cli.settings import with_dtype
from rollflow.errors import BadSetting, RollflowError
from rollflow.models import MODELS, find_model
from rollflow.models.loading import Dtype
from rollflow.models.scenes import ScenesBase, ScenesTurbo
from rollflow.rewards import REWARDS
from rollflow.rewards.scenes.scenes import CaptionJudgeReward, CaptionReward, CountReward, JudgeReward

PROMPT = "three cats to the left of two cars on grass background"
REWARD_CLASSES = [CaptionReward, CaptionJudgeReward, CountReward, JudgeReward]


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Sixteen samples of the few-step model, in four steps."""
    model, x = ScenesTurbo(), torch.randn(16, *ScenesTurbo.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for i in range(4):
            x = x - 0.25 * model.velocity(x, torch.full((16,), 1 - i / 4), [model.encode(PROMPT)] * 16)
        return model.decode(x)


@pytest.mark.parametrize("model_class", [ScenesBase, ScenesTurbo])
def test_velocities_and_pictures_are_those_of_float32_but_for_rounding(
    model_class: type[ScenesBase] | type[ScenesTurbo],
) -> None:
    exact, rounded = model_class(), model_class(dtype="bfloat16")
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(6, *exact.shape, generator=generator), torch.rand(6, generator=generator, dtype=torch.float64)
    conditions = [exact.encode(PROMPT), exact.encode("five stars on night background")] * 3
    with torch.no_grad():
        v, near = exact.velocity(x, t, conditions), rounded.velocity(x, t, conditions)
        picture, near_picture = exact.decode(x), rounded.decode(x)
    assert near.dtype == near_picture.dtype == torch.float32
    assert 1e-4 < float((near - v).square().mean().sqrt() / v.std()) < 0.02
    assert 1e-5 < float((near_picture - picture).abs().mean()) < 0.005
    assert torch.equal(near_picture, near_picture.clamp(0, 1))


@pytest.mark.parametrize("reward_class", REWARD_CLASSES)
def test_rewards_are_those_of_float32_but_for_rounding(
    reward_class: type[CaptionReward] | type[CountReward], pictures: Tensor
) -> None:
    exact, rounded = reward_class(), reward_class(dtype="bfloat16")
    scores, near = (reward.score(pictures, [PROMPT] * len(pictures)) for reward in (exact, rounded))
    assert len(set(scores.tolist())) > 2
    if isinstance(exact, CaptionReward):
        assert 0 < float((near - scores).abs().max()) < 0.1
    else:
        assert int((near == scores).sum()) >= len(scores) - 1


@pytest.mark.parametrize("reward_class", [CaptionReward, CaptionJudgeReward])
def test_the_log_odds_are_not_rounded(reward_class: type[CaptionReward], pictures: Tensor) -> None:
    """Two equal neighbours would be two peaks where there is one object; of rounded log-odds, many are equal."""
    heat = reward_class(dtype="bfloat16").detector.heat(pictures)
    assert heat.dtype == torch.float32
    assert len(set(heat.flatten().tolist())) > 0.99 * heat.numel()
    assert len(set(heat.bfloat16().flatten().tolist())) < 0.2 * heat.numel()


def test_gradients_point_where_those_of_float32_do(pictures: Tensor) -> None:
    gradients = []
    for dtype in ("float32", "bfloat16"):
        reward, model = CaptionReward(dtype=_dtype(dtype)), ScenesTurbo(dtype=_dtype(dtype))
        x = torch.randn(4, *model.shape, generator=torch.Generator().manual_seed(5)).requires_grad_()
        x0 = x - 0.8 * model.velocity(x, torch.full((4,), 0.8), [model.encode(PROMPT)] * 4)
        total = reward.score(model.decode(x0), [PROMPT] * 4).log().sum()
        gradients.append(torch.autograd.grad(total, x)[0].flatten(1))
    assert bool((torch.cosine_similarity(gradients[0], gradients[1]) > 0.9).all())


def _dtype(name: str) -> Dtype:
    return "bfloat16" if name == "bfloat16" else "float32"


def test_everything_but_calibrations_and_last_layers_is_converted() -> None:
    model, reward = ScenesBase(dtype="bfloat16"), CaptionReward(dtype="bfloat16")

    def kept(network: nn.Module) -> set[str]:
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        return {name for name, one in tensors.items() if one.dtype == torch.float32}

    own = {f"blocks.{i}.{name}" for i in range(7) for name in ("modulation", "query_scale")}
    assert kept(model.network) == own | {"positions"}
    assert kept(model.autoencoder) == {"mean", "std"}
    assert kept(reward.detector) == {"scale", "offset", "head.2.weight", "head.2.bias"}
    exact = CaptionReward().detector
    assert torch.equal(reward.detector.scale, exact.scale)
    assert model.dtype == torch.float32  # of the states


def test_the_dtype_is_part_of_the_identity() -> None:
    assert ScenesBase(dtype="bfloat16").identity == f"{ScenesBase().identity[:-1]}, dtype=bfloat16)"
    assert CaptionReward(dtype="bfloat16").identity == f"{CaptionReward().identity[:-1]}, dtype=bfloat16)"
    assert "dtype" not in ScenesBase().identity + CaptionReward().identity


def test_a_text_names_it_and_is_what_it_is_written_as() -> None:
    for setting in ("", "(dtype=bfloat16)"):
        assert MODELS.text(MODELS.make(f"scenes-turbo{setting}")) == f"scenes-turbo{setting}"
        assert REWARDS.text(REWARDS.make(f"caption{setting}")) == f"caption{setting}"
    found = find_model("scenes-turbo(dtype=bfloat16)")
    assert isinstance(found, ScenesTurbo)
    plan = Plan(PROMPT, model="scenes-turbo(dtype=bfloat16)", reward="caption(dtype=bfloat16)")
    assert plan.to_json()["model"] == "scenes-turbo(dtype=bfloat16)"
    assert plan.task.model.identity == found.identity


@pytest.mark.parametrize("text", ["scenes-base(dtype=float16)", "scenes-base(dtype=half)", "scenes-base(dtype=)"])
def test_another_dtype_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match="expected float32 or bfloat16"):
        find_model(text)
    with pytest.raises(BadSetting, match="dtype"):
        ScenesBase(dtype=text.partition("=")[2][:-1])  # type: ignore[arg-type]


def test_a_file_may_choose_the_dtype_but_not_the_weights() -> None:
    refuse_untrusted("a file", "scenes-base(dtype=bfloat16)", [(REWARDS, "caption(dtype=bfloat16)")])
    for model in (
        "scenes-base(weights=.)",
        "scenes-base(dtype=half)",
        "scenes-base(dtype=bfloat16",
        "json:JSONDecoder",
    ):
        with pytest.raises(RollflowError, match="would load the model"):
            refuse_untrusted("a file", model, [])


@pytest.mark.parametrize(
    ("model", "dtype", "expected"),
    [
        ("scenes-base", None, ("scenes-base", None)),
        ("scenes-base", "bfloat16", ("scenes-base(dtype=bfloat16)", None)),
        ("scenes-base", "float32", ("scenes-base", None)),
        ("scenes-base(dtype=bfloat16)", "float32", ("scenes-base", None)),
        ("scenes-base(device=cpu)", "bfloat16", ("scenes-base(device=cpu, dtype=bfloat16)", None)),
        ("owner/name", "bfloat16", ("owner/name", "bfloat16")),
    ],
)
def test_the_flag_of_pipelines_sets_it(model: str, dtype: str | None, expected: tuple[str, str | None]) -> None:
    assert with_dtype(model, dtype) == expected


@pytest.mark.slow
def test_a_run_with_the_flag_is_repeated_from_its_record(tmp_path: Path) -> None:
    line = ["generate", PROMPT, "--model", "scenes-turbo", "--dtype", "bfloat16", "--reward", "caption(dtype=bfloat16)"]
    assert main([*line, "--method", "bon", "--steps", "3", "--nfe", "6", "--out", str(tmp_path / "a")]) == 0
    record = json.loads((tmp_path / "a" / "result.json").read_text())
    assert record["plan"]["model"] == "scenes-turbo(dtype=bfloat16)"
    assert main(["generate", "--from", str(tmp_path / "a" / "result.json"), "--out", str(tmp_path / "b")]) == 0
    again = json.loads((tmp_path / "b" / "result.json").read_text())
    assert (again["reward"], again["job"]) == (record["reward"], record["job"])
    line[5] = "float32"
    assert main([*line, "--method", "bon", "--steps", "3", "--nfe", "6", "--out", str(tmp_path / "c")]) == 0
    assert json.loads((tmp_path / "c" / "result.json").read_text())["job"] != record["job"]

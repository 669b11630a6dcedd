"""The aesthetic predictors on a tiny CLIP, with heads saved as their authors do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_clip
import torch
from support.picture_suite import PictureRewardSuite
from torch import Tensor, nn
from transformers import CLIPModel

from rollflow.errors import RollflowError
from rollflow.rewards.clip.aesthetic import Aesthetic, AestheticV1

SIZES = {AestheticV1: [(1, 12)], Aesthetic: [(1024, 12), (128, 1024), (64, 128), (16, 64), (1, 16)]}
NAMES = {AestheticV1: [""], Aesthetic: [f"layers.{i}." for i in (0, 2, 4, 6, 7)]}


Maps = list[tuple[Tensor, Tensor]]
Tiny = tuple[CLIPModel, Maps, Aesthetic | AestheticV1]


@pytest.fixture(scope="module", params=SIZES, ids=lambda version: version.name)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder, version = tmp_path_factory.mktemp("aesthetic"), request.param
    model = tiny_clip.saved(folder)
    draw = torch.Generator().manual_seed(4)
    maps = [
        (torch.randn(size, generator=draw) / size[1] ** 0.5, torch.randn(size[0], generator=draw))
        for size in SIZES[version]
    ]
    state: dict[str, Tensor] = {}
    for name, (weight, bias) in zip(NAMES[version], maps, strict=True):
        state |= {name + "weight": weight, name + "bias": bias}
    torch.save(state, folder / "head.pth")
    return model, maps, version(str(folder), str(folder / "head.pth"), device="cpu", batch_size=6)


def test_scores_are_linear_in_the_embedding(tiny: Tiny) -> None:
    model, maps, reward = tiny
    pixels = tiny_clip.pictures()
    with torch.no_grad():
        pooled = model.vision_model(tiny_clip.processed(pixels)).pooler_output
        features = pooled @ model.visual_projection.weight.T
    scores = features / features.square().sum(1, keepdim=True).sqrt()
    for weight, bias in maps:
        scores = scores @ weight.T + bias
    torch.testing.assert_close(reward.score(pixels, ["what"] * 4), scores[:, 0], atol=1e-4, rtol=1e-5)
    assert scores.std() > 1e-3


def test_gradients(tiny: Tiny) -> None:
    tiny_clip.assert_gradient_is_the_slope(tiny[-1], tiny_clip.pictures(2), ["a cat", "one dog"])


def test_the_published_head_is_fetched_once_and_checked(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, reward = tiny
    fetched = []

    def fetch(address: str, path: str, sha256: str, progress: bool) -> None:
        fetched.append((address, sha256))
        assert reward.head is not None
        torch.save(torch.load(reward.head, weights_only=True), path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        again = type(reward)(reward.checkpoint, device="cpu")
        assert torch.equal(again.score(tiny_clip.pictures(), ["a"] * 4), reward.score(tiny_clip.pictures(), ["a"] * 4))
    assert fetched == [reward.published_head]


def test_another_head_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    *_, reward = tiny
    torch.save(nn.Linear(3, 1).state_dict(), tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    for name in ("other.pth", "broken.pth", "missing.pth"):
        with pytest.raises(RollflowError, match=f"reward '{reward.name}' cannot load '{tmp_path / name}': ") as told:
            type(reward)(reward.checkpoint, str(tmp_path / name), device="cpu").load()
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 900


def test_its_range_is_that_of_an_affine_map_on_the_sphere(tiny: Tiny) -> None:
    """b - |w| and b + |w|, which embeddings along w have."""
    _, maps, reward = tiny
    reward.load()
    weight, bias = torch.eye(12), torch.zeros(12)
    for more, shift in maps:
        weight, bias = more @ weight, more @ bias + shift
    length, middle = float(weight.norm()), float(bias)
    assert reward.bounds is not None
    assert reward.bounds == pytest.approx((middle - length, middle + length), rel=1e-4)
    with torch.no_grad():
        best = reward.networks.head(weight / length)
    assert float(best) == pytest.approx(reward.bounds[1], rel=1e-4)


class TestSuite(PictureRewardSuite):
    @pytest.fixture
    def reward(self, tiny: Tiny) -> Aesthetic | AestheticV1:
        return tiny[-1]

    @pytest.fixture
    def samples(self) -> Tensor:
        return tiny_clip.pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return tiny_clip.PROMPTS

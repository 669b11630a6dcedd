"""HPSv2 on weights of a tiny CLIP written anew in open_clip's layout, with its own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_clip
import torch
import torch.nn.functional as F
from support.picture_suite import PictureRewardSuite
from torch import Tensor, nn

from rollflow.errors import RollflowError
from rollflow.files.pictures import as_bytes
from rollflow.rewards.clip.hpsv2 import HPSv2, HPSv21
from rollflow.rewards.pretrained.preprocessing import CLIP_MEAN, CLIP_STD

VERSIONS = {HPSv2: "HPS_v2_compressed.pt", HPSv21: "HPS_v2.1_compressed.pt"}


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, inner), "c_proj": nn.Linear(inner, width)})

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        grown: Tensor = self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return x + grown


class Transformer(nn.Module):
    def __init__(self, width: int, inner: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width, inner) for _ in range(layers)])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 20, 56, 56, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(20))
        self.positional_embedding = nn.Parameter(torch.empty(17, 20))
        self.ln_pre, self.ln_post = nn.LayerNorm(20), nn.LayerNorm(20)
        self.transformer = Transformer(20, 28, 4)
        self.proj = nn.Parameter(torch.empty(20, 12))

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), patches], 1) + self.positional_embedding
        normed: Tensor = self.ln_post(self.transformer(self.ln_pre(x))[:, 0])
        return normed @ self.proj


class OpenClip(nn.Module):
    """open_clip's CLIP with the sizes of the tiny one (model.py, transformer.py)."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = Visual()
        self.transformer = Transformer(16, 24, 2)
        self.token_embedding = nn.Embedding(len(tiny_clip.VOCABULARY), 16)
        self.positional_embedding = nn.Parameter(torch.empty(77, 16))
        self.ln_final = nn.LayerNorm(16)
        self.text_projection = nn.Parameter(torch.empty(16, 12))
        self.logit_scale = nn.Parameter(torch.tensor(0.0))

    def text(self, ids: Tensor) -> Tensor:
        causal = torch.full((77, 77), float("-inf")).triu(1)
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding, causal)
        normed: Tensor = self.ln_final(x)
        return normed[torch.arange(len(ids)), ids.argmax(-1)] @ self.text_projection


def tokens(prompts: Sequence[str]) -> Tensor:
    """As open_clip's tokenize: filled with 0, cut with an end."""
    ids = torch.zeros(len(prompts), 77, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        all_of_it = tiny_clip.tokenizer()(prompt)["input_ids"]
        kept = all_of_it[:77]
        kept[-1] = all_of_it[-1]
        row[: len(kept)] = torch.tensor(kept)
    return ids


def prepared(pixels: Tensor) -> Tensor:
    """40 by 30 pixels: to 224 by 168, black at both sides."""
    resized = F.interpolate(as_bytes(pixels) / 255, (224, 168), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (F.pad(resized, (28, 28)) - mean) / std


Tiny = tuple[OpenClip, HPSv2]


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: version.name)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    checkpoint, base = (tmp_path_factory.mktemp(name) for name in ("preferred", "base"))
    tiny_clip.saved(base)
    model = tiny_clip.shaken(OpenClip(), seed=3).half().float()
    halves = {name: weight.half() for name, weight in model.state_dict().items()}
    torch.save({"state_dict": halves}, checkpoint / VERSIONS[request.param])
    return model, request.param(str(checkpoint), str(base), device="cpu")


def test_scores_are_those_of_open_clip(tiny: Tiny) -> None:
    model, reward = tiny
    pixels, prompts = tiny_clip.pictures(), [*tiny_clip.PROMPTS[:3], tiny_clip.LONG]
    with torch.no_grad():
        seen, read = (
            F.normalize(model.visual(prepared(pixels)), dim=-1),
            F.normalize(model.text(tokens(prompts)), dim=-1),
        )
    torch.testing.assert_close(reward.score(pixels, prompts), (seen @ read.T).diagonal(), atol=1e-5, rtol=1e-5)


def test_gradients(tiny: Tiny) -> None:
    tiny_clip.assert_gradient_is_the_slope(tiny[1], tiny_clip.pictures(2), ["a cat", "one dog"])


@pytest.mark.parametrize("broken", ["one missing", "one too many", "no state"])
def test_weights_of_something_else_are_refused(tiny: Tiny, tmp_path: Path, broken: str) -> None:
    model, reward = tiny
    state = model.state_dict()
    if broken == "one missing":
        state.pop("visual.transformer.resblocks.2.ln_1.weight")
    if broken == "one too many":
        state["visual.extra"] = torch.zeros(3)
    torch.save(state if broken == "no state" else {"state_dict": state}, tmp_path / reward.weights)
    with pytest.raises(RollflowError, match=reward.name):
        type(reward)(str(tmp_path), reward.base, device="cpu").load()


class TestSuite(PictureRewardSuite):
    @pytest.fixture
    def reward(self, tiny: Tiny) -> HPSv2:
        return tiny[1]

    @pytest.fixture
    def samples(self) -> Tensor:
        return tiny_clip.pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return tiny_clip.PROMPTS

"""ImageReward on weights of a tiny BLIP written anew in the authors' layout, with its own forward pass."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_clip
import torch
import torch.nn.functional as F
from support.picture_suite import PictureRewardSuite
from torch import Tensor, nn
from transformers import BertTokenizer

from rollflow.errors import RollflowError
from rollflow.rewards.clip.image_reward import ImageReward
from rollflow.rewards.pretrained import text_cache

LETTERS = [*string.ascii_lowercase, *string.digits, *string.punctuation]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + letter for letter in LETTERS)]
SEEN, READ, INNER, HEADS = 128, 24, 40, 3
MED = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": READ,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 48,
    "model_type": "bert",
    "num_attention_heads": HEADS,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "vocab_size": len(VOCABULARY),
    "encoder_width": 768,
    "add_cross_attention": True,
}


def attended(q: Tensor, k: Tensor, v: Tensor, heads: int, added: Tensor | float = 0.0) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # type: ignore[no-untyped-call]
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + added).softmax(-1)
    mixed: Tensor = (weights @ v).transpose(1, 2).flatten(2)
    return mixed


class VisionAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(SEEN, 3 * SEEN), nn.Linear(SEEN, SEEN)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        mixed: Tensor = self.proj(attended(q, k, v, SEEN // 64))
        return mixed


class VisionBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(SEEN, eps=1e-6), nn.LayerNorm(SEEN, eps=1e-6)
        self.attn = VisionAttention()
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(SEEN, INNER), "fc2": nn.Linear(INNER, SEEN)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        grown: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + grown


class Vision(nn.Module):
    """Of vit.py."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, SEEN))
        self.pos_embed = nn.Parameter(torch.empty(1, 17, SEEN))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, SEEN, 56, 56)})
        self.blocks = nn.ModuleList([VisionBlock() for _ in range(3)])
        self.norm = nn.LayerNorm(SEEN, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed


def output(inner: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inner, READ), "LayerNorm": nn.LayerNorm(READ, eps=1e-12)})


def attention(of: int) -> nn.ModuleDict:
    roles = {"query": nn.Linear(READ, READ), "key": nn.Linear(of, READ), "value": nn.Linear(of, READ)}
    return nn.ModuleDict({"self": nn.ModuleDict(roles), "output": output(READ)})


class TextLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.crossattention = attention(READ), attention(SEEN)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(READ, INNER)})
        self.output = output(INNER)

    def forward(self, x: Tensor, seen: Tensor, added: Tensor) -> Tensor:
        for part, other, mask in ((self.attention, None, added), (self.crossattention, seen, 0.0)):
            roles: Any = part["self"]
            out: Any = part["output"]
            other = x if other is None else other
            mixed = attended(roles["query"](x), roles["key"](other), roles["value"](other), HEADS, mask)
            x = out["LayerNorm"](x + out["dense"](mixed))
        grown: Tensor = self.output["dense"](F.gelu(self.intermediate["dense"](x)))
        normed: Tensor = self.output["LayerNorm"](x + grown)
        return normed


class Text(nn.Module):
    """Of med.py."""

    def __init__(self) -> None:
        super().__init__()
        words, places = nn.Embedding(len(VOCABULARY), READ), nn.Embedding(48, READ)
        parts = {"word_embeddings": words, "position_embeddings": places, "LayerNorm": nn.LayerNorm(READ, eps=1e-12)}
        self.embeddings = nn.ModuleDict(parts)
        self.embeddings.register_buffer("position_ids", torch.arange(48)[None])
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([TextLayer() for _ in range(2)])})

    def forward(self, ids: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        words, places, norm = (
            self.embeddings[name] for name in ("word_embeddings", "position_embeddings", "LayerNorm")
        )
        x: Tensor = norm(words(ids) + places(torch.arange(ids.shape[1])))
        layers: Any = self.encoder["layer"]
        for layer in layers:
            x = layer(x, seen, -10000.0 * (1 - mask[:, None, None].float()))
        return x


class Published(nn.Module):
    """Of ImageReward.py, with the projections of BLIP that it has no use for."""

    def __init__(self) -> None:
        super().__init__()
        projections = {"vision_proj": nn.Linear(SEEN, 8), "text_proj": nn.Linear(READ, 8)}
        self.blip = nn.ModuleDict({"visual_encoder": Vision(), "text_encoder": Text(), **projections})
        linear = [nn.Linear(i, o) for i, o in ((READ, 1024), (1024, 128), (128, 64), (64, 16), (16, 1))]
        names = ("0", "2", "4", "6", "7")
        self.mlp = nn.ModuleDict({"layers": nn.ModuleDict(dict(zip(names, linear, strict=True)))})

    @torch.no_grad()
    def forward(self, pictures: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        x: Tensor = self.blip["text_encoder"](ids, mask, self.blip["visual_encoder"](pictures))[:, 0]
        layers: Any = self.mlp["layers"]
        for linear in layers.values():
            x = linear(x)
        return (x[:, 0] - 0.16717362830052426) / 1.0333394966054072


def tokens(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """35 of each: a start, letters, an end, nothing."""
    ids = torch.zeros(len(prompts), 35, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        words = "".join(f" {letter} " if letter in string.punctuation else letter for letter in prompt.lower()).split()
        pieces = [piece for word in words for piece in (word[0], *("##" + letter for letter in word[1:]))]
        kept = ["[CLS]", *pieces[:33], "[SEP]"]
        row[: len(kept)] = torch.tensor([VOCABULARY.index(piece) for piece in kept])
    return ids, (ids > 0).long()


Tiny = tuple[Published, ImageReward]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    checkpoint, base = (tmp_path_factory.mktemp(name) for name in ("reward", "bert"))
    model = Published()
    tiny_clip.shaken(model.blip["visual_encoder"], seed=8, std=0.1)
    tiny_clip.shaken(model.blip["text_encoder"], seed=8, std=0.5)  # enough for every token to count
    tiny_clip.shaken(model.mlp, seed=8, std=0.1)
    torch.save(model.state_dict(), checkpoint / "ImageReward.pt")
    (checkpoint / "med_config.json").write_text(json.dumps(MED))
    BertTokenizer({piece: i for i, piece in enumerate(VOCABULARY)}).save_pretrained(base)
    return model, ImageReward(str(checkpoint), str(base), device="cpu", batch_size=6)


def test_scores_are_those_of_the_published_network(tiny: Tiny) -> None:
    model, reward = tiny
    pixels, prompts = tiny_clip.pictures(), [*tiny_clip.PROMPTS[:2], "", tiny_clip.LONG]
    expected = model(tiny_clip.processed(pixels), *tokens(prompts))
    torch.testing.assert_close(reward.score(pixels, prompts), expected, atol=2e-5, rtol=1e-5)
    assert expected.std() > 0.01


def test_what_lies_beyond_35_tokens_is_not_read(tiny: Tiny) -> None:
    *_, reward = tiny
    pixels = tiny_clip.pictures(1)
    assert torch.equal(reward.score(pixels, [tiny_clip.LONG]), reward.score(pixels, [tiny_clip.LONG[:60] + "a dog"]))
    assert not torch.equal(reward.score(pixels, ["a cat"]), reward.score(pixels, ["a dog"]))


def test_tokens_of_the_last_prompts_are_kept(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "KEPT", 2)
    reward = ImageReward(tiny[-1].checkpoint, tiny[-1].base, device="cpu")
    tokens = reward.networks.tokens
    a, b = tokens("a"), tokens("b")
    assert tokens("a") is a
    tokens("c")
    assert tokens("b") is not b


def test_gradients(tiny: Tiny) -> None:
    tiny_clip.assert_gradient_is_the_slope(tiny[-1], tiny_clip.pictures(2), ["a cat", "one dog"])


@pytest.mark.parametrize("gone", ["med_config.json", "blip.text_encoder.encoder.layer.1.crossattention.self.key.bias"])
def test_what_is_missing_is_told(tiny: Tiny, tmp_path: Path, gone: str) -> None:
    model, reward = tiny
    torch.save(
        {name: weight for name, weight in model.state_dict().items() if name != gone}, tmp_path / "ImageReward.pt"
    )
    if gone != "med_config.json":
        (tmp_path / "med_config.json").write_text(json.dumps(MED))
    with pytest.raises(RollflowError, match=gone.removeprefix("blip.text_encoder.")):
        ImageReward(str(tmp_path), reward.base, device="cpu").load()


class TestSuite(PictureRewardSuite):
    @pytest.fixture
    def reward(self, tiny: Tiny) -> ImageReward:
        return tiny[-1]

    @pytest.fixture
    def samples(self) -> Tensor:
        return tiny_clip.pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return tiny_clip.PROMPTS

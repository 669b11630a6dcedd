"""The embedded model: its weights, its guidance, its rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler
from rollflow.engine import Engine, Job, Task
from rollflow.errors import BadWeights
from rollflow.models import FlowModel
from rollflow.models.scenes import KINDS, PromptError, ScenesBase, ScenesTurbo
from rollflow.models.scenes.model import WEIGHTS
from rollflow.models.scenes.networks import DiT
from rollflow.rewards.scenes.detectors import WEIGHTS as REWARD_WEIGHTS
from rollflow.rewards.scenes.scenes import CountReward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN

PROMPT = "three cats on grass background"


def test_all_embedded_weights_stay_under_forty_megabytes() -> None:
    files = [*WEIGHTS.glob("*.safetensors"), *REWARD_WEIGHTS.glob("*.safetensors")]
    assert {file.stem for file in files} == {"autoencoder", "base", "turbo", "detector", "judge"}
    assert sum(file.stat().st_size for file in files) <= 40_000_000


def test_guidance_extrapolates_from_the_null_prompt() -> None:
    model = ScenesBase()
    tokens = torch.tensor([model.encode(PROMPT)])
    x, t = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0.7])
    with torch.no_grad():
        conditional, null = model.network(x, t, tokens), model.network(x, t, torch.full_like(tokens, DiT.NULL))
    expected = null + model.guidance * (conditional - null)
    torch.testing.assert_close(model.velocity(x, t, tokens.tolist()), expected, rtol=1e-4, atol=1e-4)
    assert model.rows_per_nfe == 2


def test_a_prompt_outside_the_grammar_is_refused() -> None:
    with pytest.raises(PromptError, match="zebras"):
        ScenesBase().encode("three zebras")


@pytest.mark.parametrize("damage", ["missing", "cut short", "another network"])
def test_damaged_weights_are_told_in_one_line(tmp_path: Path, damage: str) -> None:
    for file in WEIGHTS.glob("*.safetensors"):
        shutil.copy(file, tmp_path)
    victim = tmp_path / "base.safetensors"
    if damage == "missing":
        victim.unlink()
    elif damage == "cut short":
        victim.write_bytes(victim.read_bytes()[:10_000])
    else:
        shutil.copy(tmp_path / "autoencoder.safetensors", victim)
    with pytest.raises(BadWeights, match=r"base\.safetensors") as caught:
        ScenesBase(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model_class", [ScenesBase, ScenesTurbo])
@pytest.mark.slow
def test_a_model_draws_what_is_asked_for(model_class: type[FlowModel]) -> None:
    """Of all objects found in 24 plain samples, three quarters and more are of the kind that was asked for."""
    model, counter = model_class(), CountReward()
    sampler = Sampler(Linear(), Euler())
    asked = {"apple": "three apples on snow background", "star": "two stars", "house": "four houses on sky background"}
    tasks = [(kind, Task(model, prompt, counter)) for kind, prompt in asked.items() for _ in range(8)]
    results = Engine().run([Job(task, BestOfN(), 10, seed, sampler) for seed, (_, task) in enumerate(tasks)])
    found = counter.counts(torch.stack([result.sample for result in results]))
    right = sum(int(row[list(KINDS).index(kind)]) for row, (kind, _) in zip(found, tasks, strict=True))
    assert right >= 0.75 * int(found.sum())
    assert right >= 0.75 * sum(8 * count for count in (3, 2, 4))


@pytest.mark.slow
def test_the_turbo_model_shows_early_what_it_will_draw() -> None:
    """From one noise, the clean estimate at t = 0.7 is nearer to the finished sample than the base's is to its own."""
    gaps = []
    for model in (ScenesBase(), ScenesTurbo()):
        conditions = [model.encode(PROMPT)] * 16
        x = torch.randn(16, *model.shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            for i in range(10):
                v = model.velocity(x, torch.full((16,), 1 - i / 10), conditions)
                if i == 3:
                    early = x - 0.7 * v
                x = x - 0.1 * v
        gaps.append(float((early - x).square().mean() / x.var()))
    assert gaps[1] < 0.5 * gaps[0]


def test_the_turbo_model_takes_one_row() -> None:
    model = ScenesTurbo()
    tokens = [model.encode(PROMPT)]
    x, t = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0.7])
    with torch.no_grad():
        assert torch.equal(model.velocity(x, t, tokens), model.network(x, t, torch.tensor(tokens)))
    assert (model.rows_per_nfe, model.few_step) == (1, True)

"""The training loop: the seconds add up over the parts of a run, and nothing is lost between them."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import data
from loop import Loop, Options, optimizers, ship
from rollflow.models.loading import load_weights


def fit(out: Path, minutes: float, steps_until_killed: int | None = None) -> tuple[Loop, list[int]]:
    """Fit a line; returns the loop and the steps that it took."""
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    taken: list[int] = []

    def loss(step: int) -> Tensor:
        if steps_until_killed is not None and len(taken) == steps_until_killed:
            raise KeyboardInterrupt
        taken.append(step)
        x = torch.randn(32, 3, generator=torch.Generator().manual_seed(step))
        loss: Tensor = (network(x) - x.sum(1, keepdim=True)).square().mean()
        return loss

    given = Options("line", minutes, 0, out, False, torch.device("cpu"))
    made = optimizers(network, 1e-2)
    return Loop(given, network, made, loss, lambda average, step: None, report_seconds=0.05), taken


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which every step takes a millisecond."""
    ticks = itertools.count()
    monkeypatch.setattr("loop.time", SimpleNamespace(perf_counter=lambda: next(ticks) / 1000))


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    first, taken = fit(tmp_path, minutes=0.02, steps_until_killed=300)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second, more = fit(tmp_path, minutes=0.02)
    assert 0 < second.step <= len(taken)
    resumed_at = second.step
    average = second.run()
    assert more[0] == resumed_at
    assert second.spent >= 0.02 * 60
    assert isinstance(average, nn.Linear)
    torch.testing.assert_close(average.weight, torch.ones(1, 3), atol=0.1, rtol=0)
    third, none = fit(tmp_path, minutes=0.02)
    third.run()
    assert none == []


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    loop, _ = fit(tmp_path, minutes=0.01)
    loop.loss = lambda step: loop.network.weight.sum() * torch.nan  # type: ignore[operator]
    with pytest.raises(FloatingPointError, match="step 0"):
        loop.run()


def test_shipped_weights_come_back_rounded_to_bfloat16(tmp_path: Path) -> None:
    network, copy = nn.Linear(4, 2), nn.Linear(4, 2)
    ship(network, tmp_path / "line.safetensors", {"seed": "0"})
    load_weights(copy, tmp_path / "line.safetensors")
    assert torch.equal(copy.weight, network.weight.bfloat16().float())


@pytest.mark.slow
def test_a_rendered_scene_is_what_its_caption_says() -> None:
    """Counts and relation of the sprites are those of the caption, for every relation."""
    rng = np.random.default_rng(0)
    relations = set()
    for _ in range(300):
        scene = data.render(data.draw_caption(rng), rng)
        names = [data.KIND_NAMES[kind] for kind in scene.kinds]
        assert {name: names.count(name) for name in names} == scene.caption.counts()
        assert not scene.caption.held_out
        if scene.caption.relation != "and":
            first = scene.centres[[name == scene.caption.groups[0].kind for name in names]]
            second = scene.centres[[name == scene.caption.groups[1].kind for name in names]]
            axis = 0 if "of" in scene.caption.relation else 1
            low, high = (first, second) if scene.caption.relation in ("left of", "above") else (second, first)
            assert low[:, axis].max() <= high[:, axis].min() + 1.5
            relations.add(scene.caption.relation)
    assert len(relations) == 4

"""DFS against a plain loop: where it goes back to, what it keeps, and when it ends."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from support.loops import NOTHING, State, best, stepper, times
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import EulerMaruyama
from rollflow.engine import Engine, Job, Observer, Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import DFS, Progress

REWARD, STEPS = ToyReward(torch.tensor([1.0, 1.5])), 5


class Walked(NamedTuple):
    sample: Tensor
    path: list[int]


def plain(model: ToyModel, search: DFS, nfe: int) -> Walked:
    """One state after another, with the best of every time kept; 1 NFE each, and the end is free."""
    noise, at = Noise(9, 0, model.shape, model.dtype), times(STEPS)
    step = stepper(model, "corners", REWARD, EulerMaruyama(), STEPS)
    seen: list[list[State]] = [[] for _ in range(STEPS)]
    path, state, k = [0], step(NOTHING, 0, noise.normal(0, 0, 0)[None]), 0
    while True:
        seen[k].append(state)
        level = 1 - k / STEPS
        judged = level <= search.start + 1e-9 or k == STEPS - 1
        back, left = max(0, k - search.depth), nfe - len(path)
        if judged and state.reward < search.thresholds[0] and left >= STEPS - back:
            z = noise.normal(back, 1 if back else 0, len(path))[None]
            if back == 0:
                state = step(NOTHING, 0, z)
            else:
                kept = (1 - at[back]) / (1 - at[k])
                x = (kept * state.x + torch.sqrt(at[back] ** 2 - (kept * at[k]) ** 2) * z).to(state.x)
                v = model.velocity(x, at[back][None], ["corners"])
                x0 = denoised_from_velocity(Linear(), v, x, at[back])
                state = State(x, v, x0, float(REWARD.score(x0, ["corners"])))
            k = back
        else:
            if judged and state.reward < search.thresholds[0]:
                state = best(seen[k])
            if k == STEPS - 1:
                return Walked(state.x0[0], path)
            state, k = step(state, k + 1, noise.normal(k + 1, 0, len(path))[None]), k + 1
        path.append(k)


class Path(Observer):
    def __init__(self) -> None:
        self.levels: list[float] = []

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.levels.append(progress.level(job.dynamics))


@pytest.mark.parametrize(
    "search",
    [
        DFS(),
        DFS((-0.3,), start=1.0, depth=1),
        DFS((-0.2,), start=0.6, depth=2),
        DFS((-0.05,), start=0.4, depth=9),
        DFS((-0.03,), start=0.3, depth=1),
        DFS((-1e9,), start=1.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("nfe", [5, 8, 30, 75])
def test_the_plain_loop_gives_the_same_sample(plane: ToyModel, search: DFS, nfe: int) -> None:
    path, job = Path(), Job(Task(plane, "corners", REWARD), search, nfe, 9, Sampler(Linear(), steps=STEPS))
    (result,) = Engine(observers=[path]).run([job])
    expected = plain(plane, search, nfe)
    assert path.levels == pytest.approx([1 - k / STEPS for k in expected.path])
    torch.testing.assert_close(result.sample, expected.sample, rtol=1e-5, atol=1e-5)
    assert result.spent.nfe == result.spent.reward_calls == len(expected.path) <= nfe


def test_the_loop_goes_back_and_the_thresholds_matter(plane: ToyModel) -> None:
    """What the comparison would not show if nothing ever failed or passed."""
    assert plain(plane, DFS((-1e9,), start=1.0), 75).path == [0, 1, 2, 3, 4]
    assert plain(plane, DFS(start=0.6, depth=2), 75).path[:7] == [0, 1, 2, 0, 1, 2, 0]
    assert plain(plane, DFS((-0.2,), start=0.6, depth=2), 75).path[9:17] == [0, 1, 2, 3, 4, 2, 3, 4]
    assert plain(plane, DFS((-0.03,), start=0.3, depth=1), 75).path == [0, 1, 2, *[3, 4] * 4]


def test_the_best_of_a_level_goes_on_when_the_budget_ends(plane: ToyModel) -> None:
    """With a threshold that nothing reaches, at the last of five times alone, the best of all ends is returned."""
    search = DFS(start=0.1, depth=2)
    levels = {round(1 - k / STEPS, 9): k for k in range(STEPS)}
    ends: list[float] = []

    class Ends(Observer):
        def saved(self, job: Job, population: int, progress: Progress) -> None:
            if levels[round(progress.level(job.dynamics), 9)] == STEPS - 1:
                ends.append(float(progress.extra.best.reward[-1]))

    job = Job(Task(plane, "corners", REWARD), search, 23, 9, Sampler(Linear(), steps=STEPS))
    (result,) = Engine(observers=[Ends()]).run([job])
    assert result.spent.nfe == 23
    assert len(ends) == 7  # 5 NFE to the first end, 3 to each other one
    assert result.reward == ends[-1] == max(ends) > ends[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), r"thresholds of dfs must be one number or more, not \(\)"),
        (((0.5,), 0.0), "start of dfs must be a finite number > 0 and <= 1, not 0.0"),
        (((0.5,), 1.0, 0), "depth of dfs must be a whole number >= 1, not 0"),
    ],
)
def test_settings_out_of_range(arguments: tuple[tuple[float, ...], float, int], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        DFS(*arguments)

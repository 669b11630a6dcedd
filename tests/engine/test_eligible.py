"""Samples that must not be chosen never win, are counted by where that arose, and are an error only if all are such."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.tiny import Redness, TinyModel
from torch import Tensor

import rollflow
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Job, JobsFailed, Result, Task
from rollflow.engine.state import PopulationState
from rollflow.errors import BadModel, BadReward, RollflowWarning
from rollflow.models.base import FlowModel, Screened
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Reward
from rollflow.rewards import RewardModel
from rollflow.rewards.mixing import RankAverage, Running, WeightedSum
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SMC, SVDD, BestOfN, CoDe, RolloverBudget, Search, SearchOverPaths
from rollflow.search.rbf.acceptance import AtLeast, OverParent, OverQuantile
from rollflow.search.smc.potentials import MaxPotential, SumPotential
from rollflow.search.smc.tempering import AdaptiveTempering
from rollflow.testing import reference

STEPS4 = Sampler(Linear(), steps=4)
SEARCHES: list[Search] = [
    BestOfN(),
    SVDD(2),
    SVDD(2, temperature=0.3),
    CoDe(2, 2),
    RolloverBudget(2, 3),
    RolloverBudget(2, 3, acceptance=OverParent()),
    RolloverBudget(2, 3, acceptance=OverQuantile(0.0)),
    RolloverBudget(2, 3, acceptance=AtLeast(2)),
    SearchOverPaths(2, 2),
    SMC(),
    SMC(threshold=0.5, potential=MaxPotential()),
    SMC(threshold=0.5, potential=SumPotential(), tempering=AdaptiveTempering(), ratio=0.5),
    SMC(draw=True, threshold=0.0),
]
FEW_STEPS = pytest.mark.filterwarnings("ignore:paths has too few steps:rollflow.errors.RollflowWarning")
every_search = pytest.mark.parametrize(
    "search",
    [
        pytest.param(search, marks=FEW_STEPS if isinstance(search, SearchOverPaths) else (), id=repr(search))
        for search in SEARCHES
    ],
)


class Bright(ToyReward):
    """What a reward does that goes through bytes: a sample that is not finite looks like 0 to it, which is the best."""

    name = "bright"
    probed = False

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.seen.append(samples)
        return -samples[:, 0].nan_to_num(0.0).abs()


class Flaky(ToyModel):
    """A toy of which network, decoder or safety checker fail for states on one side."""

    def __init__(self, line: ToyModel, where: str, edge: float = 0.8) -> None:
        super().__init__(line.mixtures)
        self.where, self.edge = where, edge

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        v = super().velocity(x, t, conditions)
        broken = (x > self.edge) & (t < 0.9)[:, None] & (self.where == "network")
        return torch.where(broken, torch.nan, v)

    def screened(self, x0: Tensor) -> Screened:
        bad = x0 > self.edge
        if self.where == "decoder":
            x0 = torch.where(bad, torch.inf, x0)
        who = [self.where if row and self.where.startswith("the") else None for row in bad[:, 0].tolist()]
        return Screened(x0, tuple(who))


def run(job: Job, *, padded: bool = False) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RollflowWarning)
        [result] = Engine(5, padded=padded, max_grad_rows=3).run([job])
    return result


@every_search
@pytest.mark.parametrize("where", ["network", "decoder", "the safety checker"])
@pytest.mark.slow
def test_no_search_chooses_what_is_not_eligible(line: ToyModel, search: Search, where: str) -> None:
    """Though the reward would like it best; it is never shown to the reward, and the rest is as ``drive`` says."""
    judge = Bright()
    late = where == "network" and isinstance(search, SearchOverPaths)  # else neither stream gets through the first leg
    model = Flaky(line, where, 1.5 if late else 0.8)
    job = Job(Task(model, "wide", judge), search, 60, 3, STEPS4)
    results = [run(job, padded=padded) for padded in (False, True)]
    assert all(torch.cat(judge.seen).isfinite().flatten())
    expected = reference.alone(job).best
    for result in results:
        assert result.ineligible.keys() == {where}
        assert result.x0 <= 0.8 or where == "network"
        assert result.sample.isfinite().all()
        assert math.isfinite(result.reward)
        assert not result.interrupted
        assert torch.equal(result.x0, expected.x0)
        assert result.reward == expected.reward
        assert all(math.isfinite(point.reward) for point in result.trace)
        [told] = result.warnings
        assert f"could not be chosen ({where} {result.ineligible[where]}); first, " in told
        assert "of the prompt 'wide' at noise level" in told


@every_search
@pytest.mark.slow
def test_what_the_reward_does_not_score_is_not_chosen(line: ToyModel, search: Search) -> None:
    """NaN and both infinities, of the reward or of a part of it."""

    class Partial(ToyReward):
        name = "partial"
        probed = False

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            x = samples[:, 0]
            return torch.where(x > 1, torch.nan, torch.where(x > 0.5, torch.inf, torch.where(x < -3, -torch.inf, x)))

    for judge in (Partial(), WeightedSum((Partial(), ToyReward()), normalization=Running())):
        result = run(Job(Task(line, "wide", judge), search, 60, 3, STEPS4))
        assert result.ineligible.keys() == {"reward"}
        assert math.isfinite(result.reward)
        assert -3 <= float(result.x0) <= 0.5


def test_statistics_of_a_population_are_of_eligible_samples(line: ToyModel) -> None:
    """What a relative reward looks back at holds no row of one that was not scored."""

    class Watched(RankAverage):
        def combine(self, scores: Tensor, seen: Tensor) -> Tensor:
            assert scores.isfinite().all()
            assert seen.isfinite().all()
            return super().combine(scores, seen)

    judge = Watched((Bright(), ToyReward()))
    result = run(Job(Task(Flaky(line, "decoder"), "wide", judge), SVDD(2), 60, 3, STEPS4))
    assert 0 < result.reward < 1


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("network", "the network of model 'toy' gave a velocity that is not finite for row 0 of 4"),
        ("decoder", "the decoder of model 'toy' gave pixels that are not finite for row 0 of"),
        ("the safety checker", "the safety checker of model 'toy' rejected the sample for row 0 of"),
    ],
)
@pytest.mark.parametrize("search", [BestOfN(), SVDD(2), SMC(), RolloverBudget(1, 4)], ids=lambda search: search.name)
def test_an_error_says_where_it_arose_if_nothing_else_is_left(
    line: ToyModel, search: Search, where: str, told: str
) -> None:
    job = Job(Task(Flaky(line, where, -1e9), "wide", Bright()), search, 16, 3, STEPS4)
    job = replace(job, sampler=Sampler(Linear(), steps=4))
    if where == "network":  # whose first velocities are finite, so that estimates of pure noise are left
        if search == BestOfN():
            with pytest.raises(JobsFailed, match=told) as failed:
                Engine().run([job])
            assert isinstance(failed.value.failures[0], BadModel)
            return
        result = run(job)
        assert result.interrupted
        assert isinstance(result.cause, BadModel)
        assert result.noise_level == 1
        assert "the network of model 'toy'" in str(result.cause)
        return
    with pytest.raises(JobsFailed, match=told) as failed:
        Engine().run([job])
    assert isinstance(failed.value.failures[0], BadModel)
    assert "of the prompt 'wide' at noise level" in str(failed.value)


def test_an_estimate_is_kept_when_finishing_fails(line: ToyModel) -> None:
    """Finished samples that are all rejected leave the best estimate, as of a run that was stopped."""

    class Late(ToyModel):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            return torch.where((t < 0.3)[:, None], torch.nan, super().velocity(x, t, conditions))

    result = run(Job(Task(Late(line.mixtures), "wide", ToyReward()), SVDD(2), 32, 0, STEPS4))
    assert result.interrupted
    assert isinstance(result.cause, BadModel)
    assert result.noise_level == 0.5
    assert result.ineligible == {"network": 8}


@pytest.mark.slow
def test_guidance_does_not_follow_what_is_not_finite(line: ToyModel) -> None:
    """Rows beside one that is not eligible lean as they would alone."""
    sampler = Sampler(Linear(), steps=4, guidance=DPS(0.2))
    for where in ("network", "decoder", "the safety checker"):
        for search in (BestOfN(), SVDD(2), SMC(), RolloverBudget(2, 3)):
            job = Job(Task(Flaky(line, where, 0.4), "wide", ToyReward(torch.tensor([0.3]))), search, 60, 3, sampler)
            results = [run(job, padded=padded) for padded in (False, True)]
            for result in results:
                assert torch.equal(result.x0, reference.alone(job).best.x0)
                assert result.reward == reference.alone(job).best.reward
                assert result.ineligible.keys() == {where}


def test_it_is_told_once_a_job(line: ToyModel, recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    jobs = [Job(Task(Flaky(line, "decoder"), "wide", Bright()), SVDD(2), 32, i, STEPS4) for i in range(2)]
    Engine().run(jobs)
    assert [w.category for w in recwarn] == [RollflowWarning] * 2
    list(Engine().stream(jobs[:1]))
    assert len(recwarn) == 3


def test_resumed_counts_go_on(line: ToyModel) -> None:
    """What a population had met is in its standing, so that a checkpoint has it."""
    fault = (
        PopulationState().faulty("decoder", "the first").faulty("decoder", "the second").faulty("reward", "the third")
    )
    assert fault.ineligible == {"decoder": 2, "reward": 1}
    assert fault.fault == ("decoder", "the first")
    nothing = PopulationState().scored(Reward(torch.zeros(2, 1), 0.5), torch.tensor([-torch.inf, -torch.inf]))
    assert nothing.best is None
    assert nothing.rises == ()


@pytest.mark.parametrize("as_part", [False, True])
def test_a_score_outside_its_declared_range_is_told(line: ToyModel, as_part: bool) -> None:
    """By name and the value that is furthest away, of the searched and of a held-out reward; rounding is not told."""

    class Ratio(ToyReward):
        name = "ratio"
        probed = False

        def __init__(self, most: float = 1.0) -> None:
            super().__init__()
            self.bounds, self.most = (0.0, 1.0), most

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.where(samples[:, 0] > 0, self.most, 0.5)

    class Checked(Ratio):
        name = "checked"

    class Rounded(Ratio):
        name = "rounded"

    reward: RewardModel = Ratio(1000.0)
    if as_part:
        reward = WeightedSum((reward, ToyReward()))
    task = Task(line, "wide", reward, (Checked(-7.0), Rounded(1.0005)))
    with pytest.warns(RollflowWarning) as caught:
        [result] = Engine().run([Job(task, SVDD(2), 32, 0, STEPS4)])
    assert [str(one.message) for one in caught] == [*result.warnings]
    assert [text for text in result.warnings if "sum" not in text] == [
        "reward 'ratio' gave 1000, outside its declared range of 0 to 1",
        "reward 'checked' gave -7, outside its declared range of 0 to 1",
    ]
    assert not run(Job(Task(line, "wide", Rounded(1.0005)), SVDD(2), 32, 0, STEPS4)).warnings


class Pictures(FlowModel):
    """Every second picture is NaN, as of a decoder that overflows for bright latents."""

    name, description, shape = "overflows", "pictures, every second of which is NaN", (3, 16, 16)

    def encode(self, prompt: str) -> str:
        return prompt

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        t = t.float().view(-1, 1, 1, 1)
        return (x - 0.25 * (1 - t) / (0.25 * (1 - t) ** 2 + t**2) * x) / t

    def decode(self, x0: Tensor) -> Tensor:
        return torch.where(x0.mean((1, 2, 3), keepdim=True) > 0, torch.nan, (x0 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("method", ["bon", "svdd", "rbf", "code", "smc"])
@pytest.mark.parametrize(
    "reward", ["jpeg-compressibility", "colorfulness", "sum(parts=colorfulness;jpeg-compressibility)"]
)
def test_generate_returns_a_picture(method: str, reward: str) -> None:
    with pytest.warns(
        RollflowWarning, match=r"could not be chosen \(decoder \d+\).* 'overflows' gave pixels that are not"
    ):
        result = rollflow.generate("x", model=Pictures(), reward=reward, method=method, nfe=80, steps=5)
    assert result.sample.isfinite().all()
    assert math.isfinite(result.reward)


def test_a_reward_that_never_scores_is_blamed(line: ToyModel, alone: Callable[[Job], Any]) -> None:
    class Blind(ToyReward):
        name = "blind"

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            return samples[:, 0] * torch.nan

    told = "no sample can be chosen: first, reward 'blind' gave nan for row 0 of 16 of the prompt 'wide' at noise level"
    with pytest.raises(JobsFailed, match=told) as failed:
        Engine().run([Job(Task(line, "wide", Blind()), SVDD(2), 64, 0, STEPS4)])
    assert isinstance(failed.value.failures[0], BadReward)


def test_pixels_that_a_file_cannot_hold_are_told() -> None:
    """Within half a byte they are not, since their file is the same."""

    class Glaring(TinyModel):
        beyond: float

        def decode(self, x0: Tensor) -> Tensor:
            return super().decode(x0) * (1 + self.beyond)

    def warnings_of(beyond: float) -> tuple[str, ...]:
        model = Glaring()
        model.beyond = beyond
        [result] = Engine().run([Job(Task(model, "a cat", Redness()), SVDD(2), 32, 0, STEPS4)])
        return result.warnings

    assert warnings_of(0.001) == ()
    with pytest.warns(RollflowWarning, match=r"'scenes-base' decodes pixels from 0 to 1\.5; expected 0 to 1"):
        assert len(warnings_of(0.5)) == 1

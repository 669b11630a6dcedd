"""Wrong types and ranges of every argument are refused at once, by name and value, before anything loads."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import Redness, TinyModel, registered  # noqa: F401

import rollflow as rf
from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.registry import Registry
from rollflow.rewards.clip.clipscore import CLIPScore
from rollflow.rewards.judges.human import Human
from rollflow.rewards.judges.vlm_judge import VLMJudge
from rollflow.rewards.mixing import Constants, RankAverage, Running, WeightedSum
from rollflow.rewards.pixels.jpeg import JpegCompressibility
from rollflow.rewards.remote.client import RemoteReward
from rollflow.rewards.toy import ToyReward

P = "three cats"
NOTHING: Any = None


def plan(**settings: Any) -> Callable[[], object]:
    return lambda: rf.Plan(settings.pop("prompt", P), **settings)


def generated(**settings: Any) -> Callable[[], object]:
    return lambda: rf.generate(P, **settings)


def task(**settings: Any) -> rf.Task:
    return rf.Task(**{"model": TinyModel(), "prompt": P, "reward": Redness(), **settings})


def job(**settings: Any) -> Callable[[], object]:
    return lambda: rf.Job(**{"task": task(), "search": rf.BestOfN(), "nfe": 20, **settings})


class Unnamed(rf.RewardModel):
    def score(self, samples: Any, prompts: Any) -> Any:
        return samples.mean((1, 2, 3))


def no_observer(job: object) -> None: ...


WHOLE: tuple[Any, ...] = (1.5, "10", True, math.nan, math.inf, 10**26, np.float64(3), [3], torch.tensor(3))
REAL: tuple[Any, ...] = ("0.5", True, math.nan, -math.inf, 10**400, 1j, [0.5], None)

CASES: list[tuple[str, Callable[[], object]]] = [
    *(("nfe", plan(nfe=value)) for value in (*WHOLE, None, 10**9)),
    *(("seed", plan(seed=value)) for value in (*WHOLE, None, -1, 2**63)),
    *(("steps", plan(steps=value)) for value in (*WHOLE, 0, -3)),
    *(("prompt", plan(prompt=value)) for value in (None, 3, b"x", "", " \n", ["a"], "\udc80")),
    *(("model", plan(model=value)) for value in (None, 3, TinyModel, Redness(), print)),
    *(("method", plan(method=value)) for value in (None, 3, rf.BestOfN, Redness())),
    *(("reward", plan(reward=value)) for value in (None, 3, Redness, TinyModel(), len, Unnamed())),
    *(("held_out", plan(held_out=value)) for value in ("judge", 3, [3], [Redness], {"judge": 1}, [None])),
    *(("kernel", plan(kernel=value)) for value in (3, rf.DDIM, rf.VP())),
    *(("interpolant", plan(interpolant=value)) for value in (3, rf.VP, rf.Euler())),
    *(("grid", plan(grid=value)) for value in (3, rf.Arc, [1.0, 0.5, 0.0])),
    *(("lookahead", plan(lookahead=value)) for value in (None, 3, rf.Tweedie)),
    *(("guidance", plan(guidance=value)) for value in (3, rf.DPS, rf.VP())),
    *(("finish", plan(finish=value)) for value in ("yes", 1, 0.0)),
    *(("max_rows", generated(max_rows=value)) for value in (*WHOLE, 0, None)),
    *(("max_grad_rows", generated(max_grad_rows=value)) for value in (0, math.nan)),
    *(("observers", generated(observers=value)) for value in ([print], print, "x", rf.Observer(), [rf.Observer])),
    ("seed", generated(seed=1.0)),
    ("steps", generated(steps="10")),
    *(("task", job(task=value)) for value in ("x", None, TinyModel())),
    *(("search", job(search=value)) for value in ("bon", rf.BestOfN, None)),
    *(("nfe", job(nfe=value)) for value in (*WHOLE, 0)),
    *(("seed", job(seed=value)) for value in (-1, 1.0, 2**63)),
    *(("sampler", job(sampler=value)) for value in ("x", rf.Sampler, rf.Euler())),
    *(("caps", job(caps=value)) for value in (None, 5, {"nfe": 3})),
    *(("resume", job(resume=value)) for value in ("checkpoint.pt", 3)),
    *(("model", lambda value=value: task(model=value)) for value in (None, "scenes-base", TinyModel)),
    *(("reward", lambda value=value: task(reward=value)) for value in (None, "caption", Redness, Unnamed())),
    *(("prompt", lambda value=value: task(prompt=value)) for value in (None, 3, b"x")),
    *(("held_out", lambda value=value: task(held_out=value)) for value in (None, Redness(), ("judge",), "judge")),
    *((f"{name} of Caps", lambda name=name, value=value: rf.Caps(**{name: value}))
      for name in ("nfe", "network_rows", "reward_calls", "decodes", "backward_passes") for value in (-1, 1.5, "3")),
    ("max_rows", lambda: rf.Engine(NOTHING)),
    ("overlap", lambda: rf.Engine(overlap=3)),  # type: ignore[arg-type]
    ("padded", lambda: rf.Engine(padded="no")),  # type: ignore[arg-type]
    ("jobs", lambda: rf.Engine().run(rf.Job(task(), rf.BestOfN(), 20))),  # type: ignore[arg-type]
    ("jobs", lambda: rf.Engine().run([3])),  # type: ignore[list-item]
    ("jobs", lambda: rf.Engine().run(NOTHING)),
    ("jobs", lambda: list(rf.Engine().stream(NOTHING))),
    ("a job", lambda: list(rf.Engine().stream([NOTHING]))),
    ("model", lambda: rf.load_model(None)),
    ("model", lambda: rf.load_model(3)),
    ("model", lambda: rf.load_model(Redness)),
    ("model", lambda: rf.load_model(TinyModel())),
    ("ask", lambda: rf.Prompt("x", ask=NOTHING)),
    ("ask", lambda: rf.Prompt("x", ask=["cat"])),  # type: ignore[arg-type]
    ("cat", lambda: rf.Prompt("x", ask={"cat": "two"})),  # type: ignore[dict-item]
    ("cat", lambda: rf.Prompt("x", ask={"cat": 1.5})),  # type: ignore[dict-item]
    ("ask", lambda: rf.Prompt("x", ask={" ": 1})),
    ("the prompt", lambda: rf.Prompt(NOTHING, ask={"cat": 2})),
    *((f"{name} of Sampler", lambda name=name: rf.Sampler(**{name: "x"}))  # type: ignore[arg-type]
      for name in ("interpolant", "kernel", "grid", "lookahead", "finish", "guidance", "steps")),
    ("chains", lambda: rf.RolloverBudget(chains=0)),
    ("acceptance", lambda: rf.RolloverBudget(acceptance="best")),  # type: ignore[arg-type]
    ("quota", lambda: rf.RolloverBudget(quota=rf.UniformQuota)),  # type: ignore[arg-type]
    *(("initial", lambda value=value: rf.RolloverBudget(initial=value)) for value in WHOLE),
    *(("temperature", lambda value=value: rf.SVDD(temperature=value)) for value in REAL),
    *(("temperature", lambda value=value: rf.SMC(temperature=value)) for value in (*REAL, 0, -1)),
    ("resampling", lambda: rf.SMC(resampling="ssp")),  # type: ignore[arg-type]
    ("draw", lambda: rf.SMC(draw=1)),  # type: ignore[arg-type]
    ("copies", lambda: rf.SearchOverPaths(copies=2.0)),  # type: ignore[arg-type]
    ("start", lambda: rf.SearchOverPaths(start=math.nan)),
    ("block", lambda: rf.CoDe(block="2")),  # type: ignore[arg-type]
    ("weights", lambda: rf.WeightedQuota("12")),  # type: ignore[arg-type]
    ("weights", lambda: rf.WeightedQuota(NOTHING)),
    ("rule", lambda: rf.AtLeast(rule="best")),  # type: ignore[arg-type]
    *(("eta", lambda value=value: rf.DDIM(eta=value)) for value in REAL),
    ("n of FlowCPS", lambda: rf.FlowCPS(n=2)),
    ("steps", lambda: rf.GLASS(steps=10**9)),
    ("diffusion", lambda: rf.EulerMaruyama(diffusion=3)),  # type: ignore[arg-type]
    ("scale", lambda: rf.Power(scale=-1)),
    ("exponent", lambda: rf.Power(exponent=math.inf)),
    ("value", lambda: rf.Constant("1")),  # type: ignore[arg-type]
    ("latest", lambda: rf.Memoryless(latest=2)),
    ("beta_max", lambda: rf.VP(beta_max=1e308)),
    ("n of Polynomial", lambda: rf.Polynomial(1e9)),
    ("shift", lambda: rf.Shifted(1e308)),
    ("grid", lambda: rf.Matched(grid="arc")),  # type: ignore[arg-type]
    ("steps", lambda: rf.Uniform()(10**26)),
    ("steps", lambda: rf.ODELookahead(2.0)),  # type: ignore[arg-type]
    ("scale", lambda: rf.DPS("1")),  # type: ignore[arg-type]
    ("step size", lambda: rf.DPS(step_size="big")),
    ("step_size", lambda: rf.DPS(step_size=NOTHING)),
    ("device", lambda: CLIPScore(device="nonsense")),
    ("device", lambda: CLIPScore(device=NOTHING)),
    ("batch_size", lambda: CLIPScore(batch_size=0)),
    ("checkpoint", lambda: CLIPScore(checkpoint=3)),  # type: ignore[arg-type]
    ("timeout", lambda: RemoteReward(timeout=math.nan)),
    ("url", lambda: RemoteReward(NOTHING)),
    ("patience", lambda: RemoteReward(patience="long")),  # type: ignore[arg-type]
    ("concurrency", lambda: VLMJudge(concurrency=10**9)),
    ("rubric", lambda: VLMJudge(rubric=3)),  # type: ignore[arg-type]
    ("mode", lambda: Human(mode=3)),  # type: ignore[arg-type]
    ("parts", lambda: WeightedSum(Redness())),  # type: ignore[arg-type]
    ("parts", lambda: WeightedSum(("a", "b"))),  # type: ignore[arg-type]
    ("weights", lambda: WeightedSum((Redness(), JpegCompressibility()), (1.0, math.nan))),
    ("weights", lambda: RankAverage((Redness(), JpegCompressibility()), "11")),  # type: ignore[arg-type]
    ("normalization", lambda: WeightedSum((Redness(), JpegCompressibility()), normalization="raw")),  # type: ignore[arg-type]
    ("mean", lambda: Constants((math.nan,), (1.0,))),
    ("floor", lambda: Running(0)),
    ("reward", lambda: rf.REWARDS.make(NOTHING)),
    ("name of a pipeline", lambda: rf.PipelineSource("")),
    ("device", lambda: rf.PipelineSource("a/b", device="nonsense")),
    ("arguments", lambda: rf.PipelineSource("a/b", arguments=3)),  # type: ignore[arg-type]
    ("compiled", lambda: rf.PipelineSource("a/b", compiled="yes")),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(("name", "call"), CASES, ids=[f"{i}-{name}" for i, (name, _) in enumerate(CASES)])
def test_a_wrong_call_is_refused_by_name(name: str, call: Callable[[], object]) -> None:
    loads, started = TinyModel.loads, time.process_time()
    with pytest.raises(BadSetting) as refused:
        call()
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert TinyModel.loads - loads <= 1  # the one that a case makes itself
    assert time.process_time() - started < 5


def test_numbers_of_numpy_are_taken_and_become_plain() -> None:
    made = rf.Plan(P, nfe=np.int64(100), seed=np.uint8(3), steps=np.int32(5))  # type: ignore[arg-type]
    assert (made.nfe, made.seed, made.steps) == (100, 3, 5)
    assert {type(value) for value in (made.nfe, made.seed, made.steps)} == {int}
    search = rf.RolloverBudget(chains=np.int64(2), quota=rf.WeightedQuota([2, 1]))  # type: ignore[arg-type]
    assert search == rf.RolloverBudget(quota=rf.WeightedQuota((2, 1)))
    assert type(search.chains) is int
    assert type(rf.SVDD(temperature=np.float32(0.5)).temperature) is float  # type: ignore[arg-type]
    hash(search)


def test_a_plug_in_is_checked_by_its_annotations() -> None:
    with pytest.raises(BadSetting, match=r"often of eager must be a whole number, not 1\.5"):
        Eager(often=1.5)  # type: ignore[arg-type]
    with pytest.raises(BadSetting, match="inner of eager must be a BestSoFar, not 3"):
        Eager(inner=3)  # type: ignore[arg-type]
    assert Eager(anything=3).anything == 3


@pytest.mark.parametrize(
    "value", [10**5000, "x" * 10**6, [0] * 10**6, object()], ids=["number", "text", "list", "object"]
)
def test_a_value_is_shown_in_a_few_words(value: object) -> None:
    with pytest.raises(BadSetting) as refused:
        checks.whole("n", value, at_least=0)
    assert len(str(refused.value)) < 250


def test_a_budget_beyond_bounds_costs_no_time() -> None:
    started = time.process_time()
    sampler = rf.Sampler(rf.Linear(), rf.Heun(), steps=1)
    for search in (rf.SVDD(), rf.SVDD(ratio=0.5), rf.SMC(ratio=0.5), rf.CoDe(), rf.RolloverBudget(), rf.BestOfN()):
        rf.estimate_cost(ToyModel, search, sampler, checks.MOST_NFE)
    rf.estimate_cost(ToyModel, rf.SVDD(ratio=0.5), rf.Sampler(rf.Linear(), steps=10**4), checks.MOST_NFE)
    assert time.process_time() - started < 20


def test_a_grid_that_does_not_fall_is_refused() -> None:
    class Stuck(rf.Grid):
        def __call__(self, steps: int) -> torch.Tensor:
            return torch.ones(steps + 1, dtype=torch.float64)

    with pytest.raises(BadSetting, match="do not fall from 1 to 0 in 10 steps"):
        rf.estimate_cost(ToyModel, rf.BestOfN(), rf.Sampler(grid=Stuck()), 100)


def test_a_reward_that_lacks_a_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rf.REWARDS, "clipscore", CLIPScore)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(rf.RollflowError, match=r'needs the package transformers, .*pip install "rollflow\[rewards\]"'):
        rf.Plan(P, reward="clipscore", held_out=[])


def test_a_registry_shows_what_is_wrong_with_a_class() -> None:
    shapes: Registry[ToyReward] = Registry("toy", ToyReward, {})
    for name in ("..:x", ":", "a:", ":b", "a..b:c", "1:2"):
        with pytest.raises(BadSetting, match="is not a valid name; name a class of your own as module:attribute"):
            shapes.find(name)


@dataclass(frozen=True)
class Eager(rf.Acceptance):
    """A plug-in."""

    often: int = 1
    inner: rf.BestSoFar | None = None
    anything: Any = None
    name = "eager"

    def accepts(self, drawn: Any) -> bool:
        return True

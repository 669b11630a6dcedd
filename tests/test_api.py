"""One call from names to a sample, and the plan that costs nothing to make."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from support.tiny import Broken, Judge, Redness, TinyModel, TinyTurbo, registered  # noqa: F401

import rollflow
from rollflow.api import Plan, generate
from rollflow.dynamics.grids import Levels
from rollflow.dynamics.interpolants import VP, Cosine, Linear
from rollflow.dynamics.kernels import DDIM, EulerMaruyama
from rollflow.engine import Interrupted, Observer, Result
from rollflow.errors import BadReward, BadWeights, BudgetTooSmall, RollflowError, UnknownName
from rollflow.models.scenes import PromptError
from rollflow.rewards.mixing import RankAverage
from rollflow.search import SVDD, Beam, BestOfN, RolloverBudget
from rollflow.search.beam import LEVELS

PROMPT = "a red square"


def bits(result: Result) -> tuple[Any, ...]:
    return result.sample.numpy().tobytes(), result.reward, result.held_out, result.spent, result.trace


def test_same_seed_same_bits() -> None:
    first, again, other = (generate(PROMPT, nfe=90, seed=seed) for seed in (7, 7, 8))
    assert bits(first) == bits(again)
    assert not torch.equal(first.sample, other.sample)


def test_names_and_objects_are_one() -> None:
    named = generate(PROMPT, method="svdd", nfe=60, interpolant="cosine", kernel="ddim", reward="judge")
    judge, model = Judge(), TinyModel()
    given = generate(PROMPT, model=model, method=SVDD(), nfe=60, interpolant=Cosine(), kernel=DDIM(), reward=judge)
    assert bits(named) == bits(given)
    assert given.job.task.model is model


@pytest.mark.parametrize("model", ["scenes-base", "scenes-turbo"])
def test_the_default_is_a_beam(model: str) -> None:
    """A beam at levels of its own, along the linear interpolant."""
    plan = Plan(PROMPT, model=model, reward="judge")
    assert plan.method == "auto"
    assert plan.search == Beam(levels=LEVELS)
    assert (plan.sampler.interpolant, plan.sampler.kernel) == (Linear(), DDIM())
    assert (plan.sampler.grid, plan.sampler.steps) == (Levels(LEVELS), len(LEVELS))
    what, why = plan.explanation
    assert what.startswith("auto: beam at 9 noise levels (1, 0.9,")
    assert why == f"by the default curve: there is no profile of 'judge' on {model} ('rollflow bench profile')"


def test_auto_is_best_of_n_where_children_would_be_the_same() -> None:
    plan = Plan(PROMPT, kernel="ode")
    assert plan.search == BestOfN()
    assert plan.explanation == ("auto: bon", "since kernel Euler() draws no noise, so that children would be the same")


def test_auto_has_fewer_levels_for_a_small_budget() -> None:
    search = Plan(PROMPT, reward="judge", nfe=20).search
    assert isinstance(search, Beam)
    assert search.default_levels == (1.0, 0.8, 0.6, 0.4, 0.15)


def test_rbf_is_the_papers() -> None:
    """Its interpolant is VP where the model's few steps make the paper's grid pay, linear otherwise."""
    for model, interpolant in (("scenes-base", Linear()), ("scenes-turbo", VP())):
        plan = Plan(PROMPT, model=model, method="rbf")
        assert plan.search == RolloverBudget()
        assert (plan.sampler.interpolant, plan.sampler.kernel, plan.sampler.steps) == (interpolant, EulerMaruyama(), 10)


@pytest.mark.parametrize("method", ["bon", "svdd", "rbf"])
@pytest.mark.parametrize("interpolant", ["linear", "vp", "cosine", "polynomial"])
@pytest.mark.parametrize("kernel", ["ode", "heun", "sde", "ddim"])
@pytest.mark.slow
def test_every_combination_spends_what_was_estimate_cost(method: str, interpolant: str, kernel: str) -> None:
    plan = Plan(PROMPT, method=method, interpolant=interpolant, kernel=kernel, nfe=97, steps=4)
    declared = plan.cost()
    assert TinyModel.loads == 0
    result = generate(PROMPT, method=method, interpolant=interpolant, kernel=kernel, nfe=97, steps=4)
    assert result.spent == declared
    assert result.spent.nfe <= 97
    assert result.finished
    rewards = [point.reward for point in result.trace]
    assert all(a <= b for a, b in pairwise(rewards))


def test_a_relative_reward_cannot_be_held_out() -> None:
    ranks = RankAverage((Redness(), Judge()))
    with pytest.raises(RollflowError, match="'rank-average' compares samples with earlier ones"):
        Plan(PROMPT, held_out=[ranks])
    assert generate(PROMPT, nfe=90, reward=ranks).parts.keys() == {"caption", "judge"}


def test_held_out_rewards_are_those_that_the_reward_names() -> None:
    result = generate(PROMPT, nfe=90)
    assert result.held_out == {"judge": pytest.approx(float(Judge().score(result.sample[None], [PROMPT])))}
    assert generate(PROMPT, nfe=90, reward="judge").held_out == {}


@pytest.mark.parametrize(
    ("what", "wrong", "right"),
    [
        ("model", "scenes-bass", "scenes-base"),
        ("method", "rfb", "rbf"),
        ("reward", "captions", "caption"),
        ("interpolant", "linaer", "linear"),
        ("kernel", "dimm", "ddim"),
    ],
)
def test_unknown_names_are_refused_before_anything_loads(what: str, wrong: str, right: str) -> None:
    choice: Any = {what: wrong}
    with pytest.raises(UnknownName, match=f"unknown {what} '{wrong}'; did you mean '{right}'"):
        generate(PROMPT, **choice)
    assert TinyModel.loads == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 2**63}, "seed must be a whole number"),
        ({"steps": 0}, "steps must be a whole number >= 1"),
        ({"nfe": -5}, "the smallest budget is"),
        ({"nfe": 0, "method": "bon"}, "the smallest budget is"),
    ],
)
def test_bad_settings_are_refused_before_anything_loads(settings: Any, message: str) -> None:
    with pytest.raises(RollflowError, match=message):
        generate(**{"prompt": PROMPT, **settings})
    assert TinyModel.loads == 0


@pytest.mark.parametrize("method", ["bon", "svdd", "rbf"])
def test_the_smallest_budget_named_is_one_that_works(method: str) -> None:
    with pytest.raises(BudgetTooSmall) as refused:
        Plan(PROMPT, method=method, nfe=2)
    smallest = refused.value.smallest
    assert generate(PROMPT, method=method, nfe=smallest).spent.nfe <= smallest
    with pytest.raises(BudgetTooSmall):
        Plan(PROMPT, method=method, nfe=smallest - 1)


def test_what_fails_a_run_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadReward, match="'broken' gave nan for row 0"):
        generate(PROMPT, nfe=90, reward="broken")
    with pytest.raises(PromptError):
        generate("a unicorn", nfe=90)

    def no_weights(self: Redness) -> None:
        raise BadWeights("no weights")

    monkeypatch.setattr(Redness, "__init__", no_weights)
    with pytest.raises(BadWeights):
        generate(PROMPT, nfe=90)


def test_interruption_keeps_the_best_so_far() -> None:
    model = TinyModel()
    model.interrupt_at = 12  # type: ignore[misc]
    with pytest.raises(Interrupted) as stopped:
        generate(PROMPT, nfe=90, model=model)
    [result] = stopped.value.results
    assert result is not None
    assert result.interrupted
    assert result.reward == max(point.reward for point in result.trace)


@pytest.mark.slow
def test_the_baseline_is_the_plain_ode_of_the_same_seed() -> None:
    plan = Plan(PROMPT, nfe=90, seed=3, steps=6)
    seen: list[torch.Tensor] = []

    class FirstNoise(TinyModel):
        def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Any) -> torch.Tensor:
            seen.append(x)
            return super().velocity(x, t, conditions)

    generate(PROMPT, model=FirstNoise(), method=BestOfN(), interpolant=Linear(), nfe=6, seed=3, steps=6)
    x, model, times = seen[0], TinyModel(), torch.linspace(1, 0, 7)
    for t, s in pairwise(times):
        x = x + (s - t) * model.velocity(x, t.expand(1), [PROMPT])

    [result] = rollflow.Engine().run([plan.baseline()])
    torch.testing.assert_close(result.x0, x[0], rtol=1e-5, atol=1e-6)
    assert result.finished
    assert result.spent == plan.baseline_cost()
    assert result.spent.nfe == 6
    [other] = rollflow.Engine().run([plan.baseline(seed=4)])
    assert not torch.equal(result.x0, other.x0)


def test_a_plan_loads_once_and_a_given_model_never() -> None:
    plan = Plan(PROMPT, nfe=90)
    assert TinyModel.loads == 0
    assert plan.job().task is plan.baseline().task is plan.job(seed=5).task
    assert TinyModel.loads == 1
    given = Plan(PROMPT, nfe=90, model=plan.task.model, reward=Broken())
    assert given.job().task.model is plan.task.model
    assert TinyModel.loads == 1


def test_a_result_is_shown_in_one_line() -> None:
    result = generate(PROMPT, method="rbf", nfe=90)
    assert repr(result) == f"Result(reward={result.reward:.6g}, nfe=90 of 90, search=rbf, shape=(3, 8, 8))"
    model = TinyModel()
    model.interrupt_at = 12  # type: ignore[misc]
    with pytest.raises(Interrupted) as stopped:
        generate(PROMPT, method="rbf", nfe=90, model=model)
    assert repr(stopped.value.results[0]).endswith(", shape=(3, 8, 8), interrupted)")


def test_finish_follows_the_model_unless_told() -> None:
    assert not generate(PROMPT, model="scenes-turbo", method="rbf", nfe=90).finished
    assert generate(PROMPT, model="scenes-turbo", method="rbf", nfe=90, finish=True).finished
    estimate = generate(PROMPT, method="rbf", nfe=90, interpolant="vp", finish=False)
    assert estimate.noise_level == pytest.approx(estimate.job.dynamics.last_noise_level)
    assert TinyTurbo.few_step


def test_observers_are_told() -> None:
    class Count(Observer):
        steps = 0

        def saved(self, *arguments: Any) -> None:
            self.steps += 1

    count = Count()
    generate(PROMPT, method="rbf", nfe=90, observers=[count])
    assert count.steps == 2 * 10


def test_public_names_are_there() -> None:
    public: list[str] = vars(rollflow)["__all__"]
    assert len(public) > 90
    assert all(getattr(rollflow, name) is not None for name in public)
    assert set(public) <= set(dir(rollflow))
    everything: dict[str, object] = {}
    exec("from rollflow import *", everything)
    assert set(public) <= set(everything)


def test_renamed_names_still_work() -> None:
    with pytest.warns(DeprecationWarning, match=r"rollflow\.declared is now rollflow\.estimate_cost"):
        assert rollflow.declared is rollflow.estimate_cost  # type: ignore[attr-defined]


@pytest.mark.subprocess
def test_importing_is_light() -> None:
    code = (
        "import sys, rollflow.cli; assert 'torch' not in sys.modules, 'help would wait for torch'\n"
        "from rollflow import dynamics, generate\n"
        "assert not {'matplotlib', 'rich.progress'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Searches of others that do what they must not: each is refused in words, warned of, or works exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rollflow import requests
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.engine import (
    Checkpoint,
    Engine,
    Job,
    JobsFailed,
    Observer,
    Result,
    Task,
    load_checkpoint,
    save_checkpoint,
)
from rollflow.errors import BadSetting, RollflowError, RollflowWarning
from rollflow.requests import Asking, Decode, Reward, Save, Velocity
from rollflow.sampler import Sampler
from rollflow.search import BestOfN, Finished, Particles, Progress, Propagator, Search
from rollflow.search.cost import Cost
from rollflow.search.rehearsal import EndlessSearch
from rollflow.testing.jobs import JUDGE, MODEL

SAMPLER = Sampler(Linear(), steps=4)
MOST = 100 * (40 + 4) + 1
"""NFE at which the rehearsal of a search with 40 NFE and 4 steps ends, if it has not."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds that are reached sooner."""
    monkeypatch.setattr("rollflow.search.base._FEWEST", 1000)
    monkeypatch.setattr("rollflow.search.base._ANY_BUDGET", 10)
    monkeypatch.setattr("rollflow.search.rehearsal.MOST_IDLE", 200)
    monkeypatch.setattr("rollflow.engine.population.MOST_IDLE", 200)


@dataclass(frozen=True)
class Sound(Search):
    """Goes on with the best of M children."""

    name = "odd"

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        m = 1 + self.surplus(propagator)
        steps, particle = propagator.begin(resume)
        for step in steps:
            if step > 0:
                particle = particle.rows(torch.zeros(m, dtype=torch.int64))
            particle = (yield from propagator.advance(particle, step, [0] * m, range(m))).best()
            yield from propagator.save(step, particle)
        return (yield from propagator.finish(particle))


class Keeping(Observer):
    def __init__(self) -> None:
        self.kept: list[Checkpoint] = []

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self.kept.append(checkpoint)


def job(search: Search, nfe: int = 40) -> Job:
    return Job(Task(MODEL, "left", JUDGE), search, nfe, 3, SAMPLER)


def run(search: Search) -> Result:
    return Engine().run([job(search)])[0]


def failure(search: Search) -> Exception:
    """What a run fails with, or what a search that fails late ends early with."""
    try:
        cause = run(search).cause
    except JobsFailed as failed:
        cause = failed.failures[0]
    assert cause is not None
    return cause


def assert_resumes(search: Search, folder: Path) -> None:
    """It ends from every checkpoint file as it ends without a stop."""
    keeping, whole = Keeping(), job(search)
    [expected] = Engine(observers=[keeping]).run([whole])
    assert len(keeping.kept) == SAMPLER.steps + 1
    for checkpoint in keeping.kept:
        save_checkpoint(whole, checkpoint, folder / "job.pt")
        [result] = Engine().run([replace(whole, resume=load_checkpoint(whole, folder / "job.pt"))])
        assert torch.equal(result.x0, expected.x0)
        assert (result.reward, result.spent) == (expected.reward, expected.spent)


class Unending(Sound):
    """Draws noises and never returns."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        _, particles = propagator.begin(resume)
        while True:
            particles = yield from propagator.advance(particles, 0, [0], [0])


class Stubborn(Sound):
    """Never returns, whatever is raised in it."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        while True:
            try:
                yield from propagator.start([0], [0])
            except Exception:
                continue


class Saving(Sound):
    """Saves for ever."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        noise = yield from propagator.start([0], [0])
        while True:
            yield from propagator.save(0, noise)


class Demanding(Sound):
    """Draws noises until one is good, which none is in a rehearsal."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        noise, draw = (yield from propagator.start([0], [0])), 0
        while float(noise.reward) < 0.5:
            draw += 1
            noise = yield from propagator.start([0], [draw])
        return (yield from propagator.finish(noise))


class Wider(Sound):
    """Never returns if it is given more than the smallest budget."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        noise = yield from propagator.start([0], [0])
        while self.surplus(propagator):
            noise = yield from propagator.start([0], [0])
        return (yield from propagator.finish(noise))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (Unending, f"spent {MOST:,} NFE"),
        (Stubborn, f"spent {MOST:,} NFE"),
        (Saving, "made 200 requests that cost no NFE"),
        (Demanding, f"spent {MOST:,} NFE"),
        (Wider, f"spent {MOST:,} NFE"),
    ],
)
def test_a_dry_run_of_a_search_without_an_end_ends(kind: type[Sound], what: str) -> None:
    with pytest.raises(EndlessSearch, match=f"method 'odd' does not end: in a rehearsal .* a population {what}"):
        kind().cost(SAMPLER.bind(MODEL), 40)


def test_the_smallest_budget_of_a_search_without_an_end_ends() -> None:
    with pytest.raises(EndlessSearch, match="does not end"):
        Unending().smallest_nfe(SAMPLER.bind(MODEL))


class Quadratic(Sound):
    """Starts from the square of its units, so that the search for the largest number overshoots by far."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        n = (1 + self.surplus(propagator)) ** 2
        return (yield from propagator.finish((yield from propagator.start(range(n), [0] * n))))


def test_a_search_that_grows_fast_is_not_taken_for_one_without_an_end() -> None:
    assert Quadratic().cost(SAMPLER.bind(MODEL), 1500) == Cost(38**2, 38**2, 38**2)


@dataclass(frozen=True)
class Repeating(Sound):
    """Repeats a request for ever once the rewards are real."""

    saves: bool = True
    exact = False

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        noise = yield from propagator.start([0], [0])
        while float(noise.reward) != 0:
            if self.saves:
                yield from propagator.save(0, noise)
            else:
                yield Decode(noise.clean)
        return (yield from propagator.finish(noise))


@pytest.mark.parametrize("saves", [True, False])
def test_a_run_without_an_end_ends(saves: bool) -> None:
    said = "method 'odd' does not end: a population made 200 requests that cost no NFE"
    assert re.match(said, str(failure(Repeating(saves))))


class Sized(Sound):
    """Sizes itself by its share of the budget."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        n = max(1, propagator.nfe // 4)
        steps, particles = propagator.begin(resume)
        for step in steps:
            particles = yield from propagator.advance(particles, step, range(n), [0] * n)
        return (yield from propagator.finish(particles))


class Declared(Sized):
    """Says what it costs by itself."""

    def smallest_nfe(self, dynamics: Any) -> int:
        return 4

    def cost(self, dynamics: Any, nfe: int) -> Cost:
        return Cost(nfe // 4 * 4, nfe // 4 * 4, nfe // 4 * 4)


class Curious(Sound):
    """Looks at its share, and does nothing with it."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        assert propagator.nfe >= 0
        return (yield from super().population(propagator, resume))


def test_a_search_that_sizes_itself_by_its_nfe_is_told_how_to() -> None:
    """It would be given the cost of a rehearsal, where that is 0."""
    said = (
        r"sizes itself by propagator.nfe: where that is 40 it spends 40 NFE, .* 4 NFE; use self.surplus\(propagator\)"
    )
    with pytest.raises(RollflowError, match=said):
        job(Sized())
    assert run(Declared()).spent.nfe == 40
    assert run(Curious()).spent.nfe == 40


class Old(Sound):
    """Written for the names of an earlier release."""

    def population(self, propagator: Any, resume: Progress | None = None) -> Asking[Finished]:
        particles = yield from propagator.start([0], [0])
        particles = yield from propagator.lean(particles, 0)
        finished: Finished = yield from propagator.finish(particles)
        return finished


def test_names_of_earlier_releases_are_answered_with_those_of_today() -> None:
    with pytest.raises(RollflowError, match=r"Propagator\.lean of earlier releases is now Propagator\.guided"):
        job(Old())
    dynamics: Any = SAMPLER.bind(MODEL)
    for old, new in {"lean_nfe": "guidance_nfe", "look_nfe": "evaluate_nfe", "step_nfe": "propagate_nfe"}.items():
        with pytest.raises(AttributeError, match=f"Dynamics.{old} of earlier releases is now Dynamics.{new}"):
            getattr(dynamics, old)
    x = torch.empty(0, 2)
    particles: Any = Particles(x, x, x, torch.empty(0, dtype=torch.float64))
    with pytest.raises(AttributeError, match=r"Particles\.lean of earlier releases is now Particles\.guidance_shift"):
        _ = particles.lean
    with pytest.raises(AttributeError, match="'Dynamics' object has no attribute 'leen'"):
        _ = dynamics.leen
    with pytest.raises(ImportError, match=r"rollflow\.search\.Walk of earlier releases is now rollflow\.search\.Pr"):
        from rollflow.search import Walk  # noqa: F401


class Varying(Sound):
    """Scores its sample once more where rewards are real, and so spends otherwise than in a rehearsal."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        finished = yield from super().population(propagator, resume)
        if finished.reward != 0:
            yield Reward(finished.x0[None], 0.0)
        return finished


class Inexact(Varying):
    exact = False


class Sparing(Sound):
    """Leaves a step out where rewards are real."""

    exact = False

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        steps, particles = propagator.begin(resume)
        for step in steps:
            if step == 0 or float(particles.reward) == 0:
                particles = yield from propagator.advance(particles, step, [0], [0])
        return (yield from propagator.finish(particles))


def test_what_is_not_spent_as_declared_is_warned_of() -> None:
    said = "'odd' spent 41 reward calls, 41 decodes but declared exactly 40 reward calls, 40 decodes.*exact = False if"
    with pytest.warns(RollflowWarning, match=said):
        run(Varying())
    with pytest.warns(RollflowWarning, match="declared at most 40 reward calls, 40 decodes"):
        run(Inexact())
    assert run(Sparing()).spent.nfe == 1  # less is what exact = False allows, and no warning


@dataclass(frozen=True)
class Returning(Sound):
    """Returns something else than its sample."""

    change: Any = None

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Any:
        return self.change((yield from super().population(propagator, resume)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it._replace(x0=torch.ones(7)), r"returned a sample of shape \(7,\) and torch.float32; expected"),
        (lambda it: it._replace(x0=it.x0.float()), r"returned a sample of shape \(\d,\) and torch.float32; expected"),
        (lambda it: it._replace(reward=float("nan")), "the reward that method 'odd' returns must be a number"),
        (lambda it: it._replace(reward=torch.tensor(it.reward)), "the reward that method 'odd' returns must be"),
        (lambda it: it._replace(noise_level=7.0), r"the noise level that .* must be a number in \[0, 1\], not 7.0"),
        (lambda it: it._replace(row=-1), "the row that method 'odd' returns must be a whole number >= 0"),
    ],
)
def test_samples_of_other_models_and_rewards_that_are_none_are_refused(change: Any, said: str) -> None:
    assert re.search(said, str(failure(_of_runs_only(change))))


def _of_runs_only(change: Any) -> Search:
    """A search that is not itself in a run alone, since a rehearsal has states of one element."""
    return Returning(lambda it: it if it.reward == 0 else change(it))


def test_a_reward_that_no_sample_had_is_warned_of() -> None:
    with pytest.warns(RollflowWarning, match=r"returned a sample with reward 1e\+09, but the best that it scored has"):
        run(_of_runs_only(lambda it: it._replace(reward=1e9)))


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda it: None, "what method 'odd' returns must be a Finished, not None"), (lambda it: 3, "a Finished, not 3")],
)
def test_what_is_no_sample_is_refused_in_a_dry_run(change: Any, said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        job(Returning(change))


@dataclass(frozen=True)
class Asker(Sound):
    """Makes one request of its own first."""

    request: Any = None

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Any:
        yield self.request
        return (yield from super().population(propagator, resume))


ONE = torch.ones(1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (("velocity", 3), "method 'odd' yielded tuple, which is not a request; use 'yield from'"),
        (Save("junk"), "what method 'odd' saves must be a Progress, not 'junk'"),
        (Velocity("x", ONE), "method 'odd' failed in a rehearsal of its cost"),  # type: ignore[arg-type]
    ],
)
def test_foreign_requests_are_refused_in_a_dry_run(request_: Any, said: str) -> None:
    with pytest.raises(RollflowError, match=re.escape(said)):
        job(Asker(request_))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            Velocity(torch.zeros(1, 7), ONE),
            "method 'odd' asks with states of shape (1, 7) (Velocity); expected shape",
        ),
        (Velocity(torch.zeros(0, 2), ONE[:0]), "method 'odd' asks with states of shape (0, 2) (Velocity)"),
        (Reward(torch.zeros(2), 0.0), "method 'odd' asks with states of shape (2,) (Reward)"),
        (Velocity(torch.zeros(2, 2), ONE), "method 'odd' asks with times that are not one for each of its 2 states"),
    ],
)
def test_requests_for_no_states_of_the_model_are_refused_in_a_run(request_: Any, said: str) -> None:
    assert said in str(failure(Asker(request_)))


@dataclass(frozen=True)
class Hoarding(Sound):
    """Keeps what it saw in a list of its own."""

    seen: list[Any] = field(default_factory=list, repr=False, compare=False)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        self.seen.append(1)
        return (yield from super().population(propagator, resume))


@dataclass(frozen=True)
class ScheduledHoarding(BestOfN):
    """The same, where no rehearsal shows it."""

    seen: list[Any] = field(default_factory=list, repr=False, compare=False)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        self.seen.append(1)
        return (yield from super().population(propagator, resume))


def test_state_in_the_search_itself_is_refused_or_warned_of() -> None:
    with pytest.raises(RollflowError, match="method 'odd' changes its own seen while it runs"):
        job(Hoarding())
    with pytest.warns(RollflowWarning, match="method 'bon' changes its own seen while it runs"):
        run(ScheduledHoarding())


class Drawing(BestOfN):
    """Draws from torch's own generator."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        finished = yield from super().population(propagator, resume)
        return finished._replace(x0=finished.x0 + torch.rand(2))


class RehearsedDrawing(Sound):
    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        torch.rand(2)
        return (yield from super().population(propagator, resume))


def test_draws_from_the_generator_of_torch_are_refused() -> None:
    assert "method 'bon' drew from torch's own generator" in str(failure(Drawing()))
    with pytest.raises(RollflowError, match="method 'odd' drew from torch's own generator"):
        job(RehearsedDrawing())


class Overwriting(Sound):
    """Changes in place what it has saved."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        steps, particle = propagator.begin(resume)
        for step in steps:
            particle = yield from propagator.advance(particle, step, [0], [0])
            yield from propagator.save(step, particle)
            particle.x.mul_(0.9)
        return (yield from propagator.finish(particle))


def test_a_saved_state_that_is_changed_in_place_is_refused() -> None:
    assert "method 'odd' changed a tensor of the state that it saved at step 0, in place" in str(failure(Overwriting()))


class Raising(Sound):
    """Breaks down where rewards are real."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        steps, particle = propagator.begin(resume)
        for step in steps:
            particle = yield from propagator.advance(particle, step, [0], [0])
            if step == 2 and float(particle.reward) != 0:
                raise KeyError("boom")
        return (yield from propagator.finish(particle))


class Early(Sound):
    """Breaks down in a rehearsal, too."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        yield from propagator.start([0], [0])
        raise KeyError("boom")


def test_what_is_raised_names_the_search() -> None:
    assert str(failure(Raising())) == "method 'odd' failed: KeyError: 'boom'"
    said = "method 'odd' failed in a rehearsal of its cost, in which every reward and propagator.nfe are 0: KeyError"
    with pytest.raises(RollflowError, match=said):
        job(Early())


class Direct(Sound):
    """Asks for velocities without its propagator."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        steps, particle = propagator.begin(resume)
        for step in steps:
            x = propagator.noise.normals(50 + step, [0], [0])
            yield from requests.velocity(x, propagator.time(0))
            particle = yield from propagator.advance(particle, step, [0], [0])
            yield from propagator.save(step, particle)
        return (yield from propagator.finish(particle))


class Copied(Sound):
    """Works with a copy of its propagator."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        own = replace(propagator, noise=replace(propagator.noise, seed=5))
        return (yield from super().population(own, resume))


class Mixed(Sound):
    """Evaluates its noise with another look-ahead, which costs more, and goes on with its own."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        if resume is None:
            dynamics = propagator.dynamics
            other = replace(dynamics, sampler=replace(dynamics.sampler, lookahead=ODELookahead(3)))
            yield from replace(propagator, dynamics=other).start([0], [0])
        return (yield from super().population(propagator, resume))


class Unopened(Sound):
    """Reads what it resumes by itself."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        first, particle = (0, None) if resume is None else (resume.step + 1, resume.particles)
        for step in range(first, propagator.dynamics.sampler.steps):
            if particle is None:
                particle = yield from propagator.start([0], [0])
            else:
                particle = yield from propagator.advance(particle, step, [0], [0])
            yield from propagator.save(step, particle)
        assert particle is not None
        return (yield from propagator.finish(particle))


@pytest.mark.parametrize("kind", [Sound, Direct, Copied, Mixed, Unopened])
def test_unusual_searches_are_counted_and_resumed_exactly(kind: type[Sound], tmp_path: Path) -> None:
    result = run(kind())
    cost = kind().cost(SAMPLER.bind(MODEL), 40)
    assert (result.spent.nfe, result.spent.reward_calls) == (cost.nfe, cost.reward_calls)
    assert_resumes(kind(), tmp_path)


class Forgetful(Sound):
    """Starts over instead of going on."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        return (yield from super().population(propagator, None))


def test_a_search_that_starts_over_when_it_is_resumed_says_so() -> None:
    """It asks for more than is left."""
    keeping, whole = Keeping(), job(Forgetful())
    Engine(observers=[keeping]).run([whole])
    [result] = Engine().run([replace(whole, resume=keeping.kept[2])])
    assert "method 'odd' asks for more than its budget: nfe: 50 would exceed the cap of 40" in str(result.cause)

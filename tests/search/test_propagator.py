"""The propagator request by request: what it asks for, at which times, with which noise, and what it makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.grids import Arc
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama, Heun, Kernel
from rollflow.dynamics.lookahead import Lookahead, ODELookahead, Tweedie
from rollflow.errors import RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, Grad, Request, Reward, Save, Slope, Velocity, drive
from rollflow.sampler import Sampler
from rollflow.search import Finished, Particles, Progress, Propagator

X = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.25]], dtype=torch.float64)
PULL = torch.tensor([[3.0, 4.0], [0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


class Answers:
    """Velocities 2 x, rewards that are first coordinates, and gradients ``PULL``; keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Any:
        self.requests.append(request)
        match request:
            case Velocity(x):
                return 2 * x
            case Reward(x0):
                return x0[:, 0].clone()
            case Grad(x):
                return Slope(2 * x, 3 * x, 10 * x[:, 0], PULL[: len(x)])
        return None

    @property
    def kinds(self) -> list[str]:
        return [type(request).__name__ for request in self.requests]


def propagator(plane: ToyModel, sampler: Sampler, nfe: int = 100, origin: Tensor | None = None) -> Propagator:
    return Propagator(sampler.bind(plane), Noise(3, 1, (2,), torch.float64), nfe, origin)


def linear(
    kernel: Kernel = Euler(),  # noqa: B008
    lookahead: Lookahead = Tweedie(),  # noqa: B008
    *,
    guided: bool = False,
    steps: int = 4,
) -> Sampler:
    guidance = DPS(0.5, "constant") if guided else None
    return Sampler(Linear(), kernel, steps=steps, lookahead=lookahead, guidance=guidance)


def asked(asking: Asking[Any]) -> tuple[Any, Answers]:
    answers = Answers()
    return drive(asking, answers), answers


def particles(x: Tensor, reward: Sequence[float] = (1.0, 5.0, 2.0)) -> Particles:
    return Particles(x, 2 * x, 3 * x, torch.tensor(reward, dtype=torch.float64))


def test_two_propagators_of_the_same_are_equal_whatever_they_have_counted(plane: ToyModel) -> None:
    one, other = propagator(plane, linear()), propagator(plane, linear())
    one.account.add_scores(3)
    assert one == other
    assert one != propagator(plane, linear(), nfe=99)
    assert "account" not in repr(one)


# Evaluation.


def test_an_evaluation_is_scored_and_not_differentiated_unless_told(plane: ToyModel) -> None:
    """Also where there is guidance: E[x0 | x_t] = x - t v on the linear path, with v = 2 x at t = 3 / 4."""
    for sampler in (linear(), linear(guided=True)):
        one = propagator(plane, sampler)
        made, answers = asked(one.evaluate(X, one.time(1)))
        assert answers.kinds == ["Velocity", "Reward"]
        velocity, reward = answers.requests
        assert isinstance(velocity, Velocity)
        assert isinstance(reward, Reward)
        assert torch.equal(velocity.x, X)
        assert velocity.t.tolist() == [0.75] * 3
        assert reward.noise_level == 0.75
        assert (made.x is X, made.guidance_shift) == (True, None)
        assert torch.equal(made.u, 2 * X)
        assert torch.equal(made.clean, X - 0.75 * 2 * X)
        assert torch.equal(reward.x0, made.clean)
        assert torch.equal(made.reward, made.clean[:, 0])
        assert (one.account.nfe, one.account.reward_calls, one.account.backward_passes) == (3, 3, 0)


@pytest.mark.parametrize("guided", [True, False])
def test_an_evaluation_without_a_reward_shows_the_posterior_mean_whatever_the_look_ahead(
    plane: ToyModel, guided: bool
) -> None:
    one = propagator(plane, linear(lookahead=ODELookahead(3), guided=guided))
    made, answers = asked(one.evaluate(X, one.time(1), score=False))
    assert answers.kinds == ["Velocity"]
    assert torch.equal(made.clean, -0.5 * X)
    assert made.reward.isnan().all()
    assert (made.reward.shape, made.reward.dtype) == ((3,), torch.float64)
    assert (one.account.nfe, one.account.reward_calls) == (3, 0)


@pytest.mark.parametrize("score", [True, False])
def test_a_guided_evaluation_is_the_gradients_own(plane: ToyModel, score: bool) -> None:
    """Velocity, estimate and reward come with the gradient, of which the shift is half: the scale of the guidance."""
    one = propagator(plane, linear(guided=True))
    made, answers = asked(one.evaluate(X, one.time(1), score=score, guided=True))
    [request] = answers.requests
    assert isinstance(request, Grad)
    assert torch.equal(request.x, X)
    assert (request.t.tolist(), request.noise_level) == ([0.75] * 3, 0.75)
    for value, expected in zip(made, (X, 2 * X, 3 * X, 10 * X[:, 0], PULL / 2), strict=True):
        assert torch.equal(value, expected)
    assert (one.account.nfe, one.account.reward_calls, one.account.backward_passes) == (3, 3, 3)


def test_a_guided_evaluation_with_a_look_ahead_is_scored_by_what_that_shows(plane: ToyModel) -> None:
    one = propagator(plane, linear(lookahead=ODELookahead(2), guided=True))
    made, answers = asked(one.evaluate(X, one.time(0), guided=True))
    assert answers.kinds == ["Grad", "Velocity", "Reward"]
    half = X - 0.5 * 2 * X  # an Euler step from 1 to 1 / 2; then x - t v
    assert torch.equal(made.clean, half - 0.5 * 2 * half)
    assert torch.equal(made.reward, made.clean[:, 0])
    assert torch.equal(made.guidance_shift, PULL / 2)
    assert (one.account.nfe, one.account.reward_calls, one.account.backward_passes) == (6, 6, 3)


def test_to_be_guided_without_guidance_is_nothing(plane: ToyModel) -> None:
    one = propagator(plane, linear())
    made, answers = asked(one.evaluate(X, one.time(1), guided=True))
    assert answers.kinds == ["Velocity", "Reward"]
    assert made.guidance_shift is None
    assert one.account.backward_passes == 0


@pytest.mark.parametrize("path", [Linear(), VP()], ids=str)
def test_states_of_another_interpolant_are_converted(plane: ToyModel, path: Interpolant) -> None:
    """The model sees x / c at its own time, and the gradient comes back divided by c once more."""
    sampler = Sampler(path, Euler(), steps=4, guidance=DPS(1.0, "constant"))
    one, s = propagator(plane, sampler), propagator(plane, sampler).time(1)
    conversion = one.dynamics.conversion
    scale, t = conversion.scale(s), float(conversion.time(s))
    made, answers = asked(one.evaluate(X, s, guided=True))
    [request] = answers.requests
    assert isinstance(request, Grad)
    torch.testing.assert_close(request.x, X / scale)
    assert request.t.tolist() == pytest.approx([t] * 3)
    assert request.noise_level == pytest.approx(one.dynamics.noise_level(1)) == pytest.approx(t)
    torch.testing.assert_close(made.guidance_shift, PULL / scale)
    assert torch.equal(made.x, X)


# The shift of parents.


def test_the_shift_of_parents(plane: ToyModel) -> None:
    """At their own time; at the last time, without guidance or with a shift already, parents are as they were."""
    one, parents = propagator(plane, linear(guided=True)), particles(X)
    made, answers = asked(one.guided(parents, 2))
    [request] = answers.requests
    assert isinstance(request, Grad)
    assert (request.t.tolist(), request.noise_level) == ([0.5] * 3, 0.5)
    assert torch.equal(made.guidance_shift, PULL / 2)
    assert all(mine is theirs for mine, theirs in zip(made[:4], parents[:4], strict=True))
    assert (one.account.nfe, one.account.reward_calls, one.account.backward_passes) == (3, 3, 3)
    for same, step in ((made, 2), (parents, 3)):
        assert asked(one.guided(same, step))[0] is same
    assert asked(propagator(plane, linear()).guided(parents, 2))[0] is parents
    assert one.account.nfe == 3


# Start, move, advance.


def test_the_start_is_noise_at_the_first_time(plane: ToyModel) -> None:
    one = propagator(plane, linear(guided=True))
    made, answers = asked(one.start([0, 1], [4, 5]))
    assert answers.kinds == ["Velocity", "Reward"]
    assert torch.equal(made.x, one.noise.normals(0, [0, 1], [4, 5]))
    [velocity, _] = answers.requests
    assert isinstance(velocity, Velocity)
    assert velocity.t.tolist() == [1.0, 1.0]
    assert asked(one.start([0], [0], score=False))[1].kinds == ["Velocity"]
    assert asked(one.start([0], [0], guided=True))[1].kinds == ["Grad"]
    alone = propagator(plane, linear(guided=True, steps=1))  # no children, so nothing to lean
    assert asked(alone.start([0], [0], guided=True))[1].kinds == ["Velocity", "Reward"]
    assert asked(propagator(plane, linear(guided=True, steps=2)).start([0], [0], guided=True))[1].kinds == ["Grad"]


def test_an_origin_is_noised(plane: ToyModel) -> None:
    """To the first time of the grid, here 1 / 2 of the linear path."""

    class Later(ToyModel):
        def start(self, steps: int) -> float:
            return 0.25

    origin = torch.tensor([5.0, -7.0])
    one = propagator(Later(plane.mixtures), linear(), origin=origin)
    made, _ = asked(one.start([0, 1], [0, 0]))
    torch.testing.assert_close(made.x, 0.75 * origin.double() + 0.25 * one.noise.normals(0, [0, 1], [0, 0]))


def test_a_move_adds_the_shift_of_the_parent(plane: ToyModel) -> None:
    one, parents = propagator(plane, linear()), particles(X)
    t, s = one.time(1), one.time(2)
    plain, answers = asked(one.move(parents, t, s, None))
    assert answers.requests == []
    assert torch.equal(plain, X - 0.25 * 2 * X)
    leaning, _ = asked(one.move(parents._replace(guidance_shift=PULL), t, s, None))
    assert torch.equal(leaning, plain + PULL)
    assert one.account.nfe == 0


def test_a_kernel_that_asks_is_answered_along_the_samplers_path(plane: ToyModel) -> None:
    """Heun's second evaluation, in the model's coordinates: 1 NFE a row."""
    one = propagator(plane, Sampler(VP(), Heun(), steps=4))
    t, s = one.time(1), one.time(2)
    conversion = one.dynamics.conversion
    made, answers = asked(one.move(particles(X), t, s, None))
    [request] = answers.requests
    assert isinstance(request, Velocity)
    first = conversion.velocity(2 * X, X, t)
    step = X + (s - t) * first
    torch.testing.assert_close(request.x, step / conversion.scale(s))
    torch.testing.assert_close(request.t, conversion.time(s).expand(3))
    second = conversion.velocity(2 * step / conversion.scale(s), step, s)
    torch.testing.assert_close(made, X + (s - t) * (first + second) / 2)
    assert one.account.nfe == 3


@pytest.mark.parametrize(("step", "guided", "kinds"), [(1, True, ["Grad"]), (3, True, ["Velocity", "Reward"])])
def test_a_child_is_drawn_with_the_noise_of_its_step(
    plane: ToyModel, step: int, guided: bool, kinds: list[str]
) -> None:
    """From the time before to its own; at the last time, whose children there are none of, guidance asks nothing."""
    one, parents = propagator(plane, linear(EulerMaruyama(), guided=True)), particles(X)
    made, answers = asked(one.advance(parents, step, [7, 8, 9], [1, 0, 2], guided=guided))
    assert answers.kinds == kinds
    t, s = one.time(step - 1), one.time(step)
    mean, std = EulerMaruyama().moments(Linear(), X, 2 * X, t, s)
    assert torch.equal(made.x, mean + std * one.noise.normals(step, [7, 8, 9], [1, 0, 2]))
    assert isinstance(answers.requests[0], Grad | Velocity)
    assert answers.requests[0].t.tolist() == [float(s)] * 3


def test_a_child_is_scored_and_not_differentiated_unless_told(plane: ToyModel) -> None:
    one, parents = propagator(plane, linear(guided=True)), particles(X)
    labels = [0, 1, 2], [0, 0, 0]
    for step in (0, 1):
        assert asked(one.advance(parents, step, *labels))[1].kinds == ["Velocity", "Reward"]
        assert asked(one.advance(parents, step, *labels, score=False))[1].kinds == ["Velocity"]
        assert asked(one.advance(parents, step, *labels, guided=True))[1].kinds == ["Grad"]
    made, _ = asked(one.advance(parents, 0, *labels))
    assert torch.equal(made.x, one.noise.normals(0, *labels))  # whatever the parents are


# The account of steps, and what is saved.


def test_a_population_begins_with_nothing_or_where_it_was(plane: ToyModel) -> None:
    one = propagator(plane, linear(), nfe=50)
    steps, nothing = one.begin(None)
    assert steps == range(4)
    assert (nothing.x.shape, nothing.u.shape, nothing.clean.shape, nothing.reward.shape) == ((0, 2),) * 3 + ((0,),)
    assert (nothing.x.dtype, nothing.reward.dtype) == (torch.float64, torch.float64)
    assert one.account.settle() == (50, 0)
    assert one.begin(None, 7)[0] == range(7)
    resumed = Progress(1, particles(X), 30, 6)
    steps, kept = one.begin(resumed)
    assert (steps, kept) == (range(2, 4), resumed.particles)
    assert one.account.settle() == (30, 0)
    assert one.begin(resumed, 7)[0] == range(2, 7)


def test_what_is_saved_says_what_the_step_has_cost(plane: ToyModel) -> None:
    one, saved, rows = propagator(plane, linear(), nfe=50), particles(X), torch.tensor([2, 0, 1])
    one.begin(None)
    one.account.nfe += 6
    _, answers = asked(one.save(0, saved))
    one.account.nfe += 3
    _, more = asked(one.save(1, saved, "extra", noise_level=0.3, ancestors=rows))
    [first, second] = (request.state for request in (*answers.requests, *more.requests) if isinstance(request, Save))
    assert first == Progress(0, saved, 44, 6, None, None, None)
    assert second == Progress(1, saved, 41, 3, "extra", 0.3, rows)
    assert first.level(one.dynamics) == 1.0
    assert second.level(one.dynamics) == 0.3
    assert Progress(2, saved, 0, 0, noise_level=0.0).level(one.dynamics) == 0.0


# The end.


@pytest.mark.parametrize("steps", [2, 3])
def test_finishing_is_scored_as_a_sample(plane: ToyModel, steps: int) -> None:
    """The grid ends at a noise level of 0.87 or 0.75: as many steps of Euler, the last of them the clean estimate."""
    one = propagator(plane, Sampler(Linear(), Euler(), Arc(), steps))
    last = float(one.time(steps - 1))
    assert one.dynamics.finishing_steps == steps
    made, answers = asked(one.denoise(particles(X)))
    assert answers.kinds == ["Velocity"] * (steps - 1) + ["Reward"]
    expected, times = X, [last * (steps - i) / steps for i in range(steps)]
    for t, request in zip(times[1:], answers.requests, strict=False):
        expected = expected - last / steps * 2 * expected
        assert isinstance(request, Velocity)
        assert request.t.tolist() == pytest.approx([t] * 3)
    torch.testing.assert_close(made.clean, expected - last / steps * 2 * expected)
    assert torch.equal(made.reward, made.clean[:, 0])
    reward = answers.requests[-1]
    assert isinstance(reward, Reward)
    assert reward.noise_level == 0.0
    assert (one.account.nfe, one.account.reward_calls) == (3 * (steps - 1), 3)


@pytest.mark.parametrize("steps", [1, 4])
def test_where_finishing_is_free_nothing_is_asked(plane: ToyModel, steps: int) -> None:
    one, before = propagator(plane, linear(steps=steps)), particles(X)
    made, answers = asked(one.denoise(before))
    assert (made is before, answers.requests, one.account.nfe, one.account.reward_calls) == (True, [], 0, 0)


@pytest.mark.parametrize(("finish", "level"), [(True, 0.0), (False, None)])
def test_what_is_returned(plane: ToyModel, finish: bool, level: float | None) -> None:
    """The best, or the row that was chosen, row 0 included; and the noise level of an estimate."""
    one = propagator(plane, Sampler(Linear(), Euler(), Arc(), 3, finish=finish))
    level = one.dynamics.last_noise_level if level is None else level
    assert level == 0.0 or level > 0.5
    found = particles(X)
    for row, expected, figures in ((None, 1, None), (0, 0, {"a": 1}), (2, 2, None)):
        best = one.returned(found, row, figures)
        assert torch.equal(best.x0, found.clean[expected])
        assert best[1:] == (float(found.reward[expected]), level, figures, expected)
    assert asked(one.finish(found))[0].row == (0 if finish else 1)  # the finished samples have rewards of their own


def test_the_fields_of_particles_and_results() -> None:
    found = particles(X)
    assert (found.guidance_shift, found.best_row) == (None, 1)
    assert torch.equal(found.best().x, X[1:2])
    assert particles(X, (2.0, 2.0, 1.0)).best_row == 0
    swapped = found._replace(guidance_shift=PULL).rows(torch.tensor([2, 0]))
    for value, before in zip(swapped, (X, 2 * X, 3 * X, found.reward, PULL), strict=True):
        assert value is not None
        assert torch.equal(value, before[[2, 0]])
    assert found.rows(slice(0, 1)).guidance_shift is None
    result = Finished(X[0], 1.0, 0.5)
    assert (result.diagnostics, result.row) == (None, None)


class Narrow(Euler):
    """Loses a column."""

    def step(self, *args: Any) -> Any:
        yield from ()
        return args[1][:, :1]


def test_another_shape_is_refused(plane: ToyModel) -> None:
    one = propagator(plane, linear(Narrow()))
    with pytest.raises(RollflowError, match=r"kernel .* gave \(3, 1\); expected shape \(3, 2\)"):
        asked(one.move(particles(X), one.time(0), one.time(1), None))

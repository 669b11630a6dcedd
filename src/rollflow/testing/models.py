"""The contract of models: shapes, independent rows, prompts, and a velocity that fits the interpolant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.lookahead import integrate
from rollflow.models import FlowModel
from rollflow.requests import Request, Velocity, drive
from rollflow.testing.values import assert_one_line, docstring, undisturbed

ODE_STEPS = 8


class ModelSuite:
    """Tests of a model; a subclass provides ``model`` and two ``prompts`` whose samples differ::

        class TestPaint(ModelSuite):
            @pytest.fixture
            def model(self):
                return Paint()

            @pytest.fixture
            def prompts(self):
                return "warm", "cold"

    Attributes:
        tolerance: Largest relative and absolute difference of a row between batches, which arises where a library
            multiplies matrices of other sizes in another order; None is 0 in float64 and 1e-4 in any other dtype.
    """

    tolerance: ClassVar[float | None] = None

    @pytest.fixture
    def model(self) -> FlowModel:
        """Return the model under test; every test calls this, so load a slow model only once, outside of it."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'model'")

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        """Return two prompts whose samples differ on average."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'prompts'")

    @pytest.fixture
    def bad_prompt(self) -> str | None:
        """Return a prompt that the model must refuse; None if it reads any prompt."""
        return None

    def _assert_close(self, ours: Tensor, theirs: Tensor, model: FlowModel) -> None:
        exact = model.dtype == torch.float64
        tolerance = (0.0 if exact else 1e-4) if self.tolerance is None else self.tolerance
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)

    def test_it_says_what_it_is(self, model: FlowModel) -> None:
        """Attributes that a cost depends on are the same for the class, before weights load, as for the object."""
        docstring(type(model))
        assert_one_line(model.name, "name")
        assert_one_line(model.description, "description")
        assert isinstance(model.interpolant, Interpolant)
        for name in ("name", "description", "suite_family", "few_step", "rows_per_nfe"):
            of_class = getattr(type(model), name, None)
            assert of_class == getattr(model, name), (
                f"{name} is {of_class!r} for the class and {getattr(model, name)!r} for the object"
            )
        assert model.rows_per_nfe >= 1

    def test_shape_and_dtype_are_kept(self, model: FlowModel, prompts: Sequence[str]) -> None:
        """Each state has a finite velocity at all times, and each clean state a sample, with pixels in [0, 1]."""
        x, t, conditions = rows(model, prompts)
        with torch.no_grad():
            v, samples = model.velocity(x, t, conditions), model.decode(x)
        assert (v.shape, v.dtype) == (x.shape, model.dtype)
        assert v.isfinite().all()
        assert len(samples) == len(x)
        assert samples.isfinite().all()
        if samples.ndim == 4 and samples.shape[1] == 3:
            assert samples.min() >= 0
            assert samples.max() <= 1

    def test_rows_of_many_prompts_and_times_share_a_call(self, model: FlowModel, prompts: Sequence[str]) -> None:
        """Each row is the same alone, with others, and in any order, since searches share calls."""
        x, t, conditions = rows(model, prompts)
        with torch.no_grad():
            v, samples = model.velocity(x, t, conditions), model.decode(x)
            self._assert_close(model.velocity(x.flip(0), t.flip(0), conditions[::-1]).flip(0), v, model)
            for i in range(len(x)):
                row = slice(i, i + 1)
                self._assert_close(model.velocity(x[row], t[row], conditions[row]), v[row], model)
                self._assert_close(model.decode(x[row]), samples[row], model)

    def test_the_prompt_matters(self, model: FlowModel, prompts: Sequence[str]) -> None:
        """Two prompts give different velocities at the same pure noise, which contains no other information."""
        x, t, conditions = rows(model, prompts)
        with torch.no_grad():
            one, other = (model.velocity(x, torch.ones_like(t), [condition] * len(x)) for condition in conditions[:2])
        assert (one - other).abs().max() > 1e-3 * one.abs().max()

    def test_nothing_is_drawn_kept_or_written_to(self, model: FlowModel, prompts: Sequence[str]) -> None:
        """A repeated call gives the same bits, after other calls and with the prompt encoded again."""
        x, t, conditions = rows(model, prompts)
        with torch.no_grad(), undisturbed(x, t):
            v, samples = model.velocity(x, t, conditions), model.decode(x)
            again = [model.encode(prompts[i % 2]) for i in range(len(x))]
            model.velocity(x[1:2], t[:1], conditions[:1])
            assert torch.equal(model.velocity(x, t, conditions), v)
            assert torch.equal(model.velocity(x, t, again), v)
            assert torch.equal(model.decode(x), samples)

    def test_gradients_reach_the_states_they_belong_to(self, model: FlowModel, prompts: Sequence[str]) -> None:
        """Gradients of a row flow through velocity and decoder to its own state; skipped if there are none at all."""
        x, t, conditions = rows(model, prompts)
        calls: list[Callable[[Tensor], Tensor]] = [lambda x: model.velocity(x, t, conditions), model.decode]
        for call in calls:
            leaf = (x / 4 + 0.5).requires_grad_()  # most of it within [0, 1], where a decoder to pictures has a slope
            first = call(leaf)[0].sum()
            [gradient] = torch.autograd.grad(first, leaf, allow_unused=True) if first.requires_grad else [None]
            if gradient is None:
                pytest.skip("no gradient flows through this model, so guidance will refuse it")
            assert gradient.isfinite().all()
            assert gradient[0].any(), "the gradient of the first row is 0"
            assert not gradient[1:].any(), "the gradient of one row reaches another's state"

    def test_a_bad_prompt_is_refused(self, model: FlowModel, bad_prompt: str | None) -> None:
        """A bad prompt raises a ValueError with a reason."""
        if bad_prompt is None:
            pytest.skip("this model reads any prompt: the fixture bad_prompt is not provided")
        with pytest.raises(ValueError, match=r"\w"):
            model.encode(bad_prompt)

    def test_its_clean_estimates_are_means(self, model: FlowModel, prompts: Sequence[str]) -> None:
        """Clean estimates of its own samples, noised by its interpolant, err less than simpler estimates do.

        The clean estimate of an exact velocity is the posterior mean, which has the smallest squared error: smaller
        than that of the rescaled state, and than that of the mean of all samples. With a wrong sign, time or
        interpolant, the error exceeds these by more than the fifth that is allowed for training error and chance.
        Skipped for step-distilled models, whose estimates are meant to be samples rather than means.
        """
        conditions = [model.encode(prompt) for prompt in prompts]
        n = max(4, math.ceil(1024 / math.prod(model.shape)))
        path, (x, noise) = model.interpolant, (normal(model, 2 * n, seed) for seed in (0, 1))

        def answer(request: Request) -> Tensor:
            assert isinstance(request, Velocity)
            return model.velocity(request.x, request.t, [condition for condition in conditions for _ in range(n)])

        def clean(x: Tensor, t: Tensor, steps: int) -> Tensor:
            v = answer(Velocity(x, t.expand(len(x))))
            return drive(integrate(path, x, v, t, steps), answer)

        with torch.no_grad():
            x0 = clean(x, torch.ones((), dtype=torch.float64), ODE_STEPS)
            assert x0.isfinite().all(), "the samples of its ODE are not finite"
            if model.few_step:
                pytest.skip("the clean estimate of a step-distilled model need not be a mean")
            spread = torch.stack(x0.chunk(2)).var(1).mean()
            for level in (0.2, 0.8):
                ratio = torch.tensor(level / (1 - level), dtype=torch.float64)
                t = path.time_at_log_snr(-2 * ratio.log())
                x_t = path.alpha(t).to(x0) * x0 + path.sigma(t).to(x0) * noise
                error, seen = (clean(x_t, t, 1) - x0).square().mean(), (ratio.to(x0) * noise).square().mean()
                assert error < 1.2 * min(seen, spread), f"at noise level {level} its clean estimates are not means"


def normal(model: FlowModel, n: int, seed: int) -> Tensor:
    """Draw ``n`` states of pure noise."""
    draw = torch.randn(n, *model.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return draw.to(model.dtype)


def rows(model: FlowModel, prompts: Sequence[str]) -> tuple[Tensor, Tensor, list[Any]]:
    """Return four states, their times, from pure noise to little of it, and their conditions, prompts in turn."""
    t = torch.tensor([1.0, 0.7, 0.4, 0.1], dtype=torch.float64)
    return normal(model, 4, 2), t, [model.encode(prompts[i % 2]) for i in range(4)]

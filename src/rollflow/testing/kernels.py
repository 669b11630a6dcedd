"""The contract of kernels: noise, evaluations, rows, and whether they converge to the data law."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.dynamics.kernels import Kernel
from rollflow.testing.laws import Pixels, ask, distance, finish
from rollflow.testing.values import assert_value, docstring, same, undisturbed

CLAIM = re.compile(r"^Converges to the data law: (yes|no)\b", re.MULTILINE)
SHAPE = (3, 2, 4)
every_interpolant = pytest.mark.parametrize("interpolant", [Linear(), VP(), Cosine(), Polynomial(2)], ids=str)


def times(*t: float) -> Tensor:
    """Return float64 times, of shape () for one and (B,) for several."""
    return torch.tensor(t if len(t) > 1 else t[0], dtype=torch.float64)


def normal(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw three states, or noise for three."""
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def stepped(kernel: Kernel, x: Tensor, t: Tensor, s: Tensor, noise: Tensor | None, path: Interpolant) -> Tensor:
    """Take a step and return x_s."""
    return evaluated(kernel, x, t, s, noise, path)[0]


def evaluated(
    kernel: Kernel, x: Tensor, t: Tensor, s: Tensor, noise: Tensor | None, path: Interpolant
) -> tuple[Tensor, int]:
    """Take a step and return x_s and the number of evaluations beyond v."""
    flow = Pixels(path)
    return finish(kernel.step(path, x, flow.velocity(x, t), t, s, noise, ask), flow)


class KernelSuite:
    """Tests of a kernel; a subclass provides the fixture ``kernel``, best with several settings::

        class TestChurn(KernelSuite):
            @pytest.fixture(params=[Churn(), Churn(0.5)], ids=repr)
            def kernel(self, request):
                return request.param

    A kernel whose ``step`` draws its own noise, or that keeps state between steps, cannot pass.
    """

    @pytest.fixture
    def kernel(self) -> Kernel:
        """Return the kernel under test."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'kernel'")

    def test_it_says_what_it_is(self, kernel: Kernel) -> None:
        """Its docstring has a line "Converges to the data law: yes" or "no", which ``test_the_law`` checks."""
        assert CLAIM.search(docstring(type(kernel))), (
            "the docstring has no line 'Converges to the data law: yes' or 'no'"
        )

    def test_its_settings_are_a_value(self, kernel: Kernel) -> None:
        """It is a frozen dataclass whose ``repr``, which identifies the job of a checkpoint, shows every setting."""
        assert_value(kernel)

    @every_interpolant
    def test_noise_is_used_if_and_only_if_it_is_stochastic(self, kernel: Kernel, interpolant: Interpolant) -> None:
        """A deterministic kernel ignores noise; a stochastic one depends on it and raises without it."""
        x, t, s = normal(0), times(0.6), times(0.4)
        with undisturbed(x):
            one, other = (stepped(kernel, x, t, s, normal(seed), interpolant) for seed in (1, 2))
            assert same(stepped(kernel, x, t, s, normal(1), interpolant), one)
        assert torch.equal(one, other) != kernel.stochastic
        if kernel.stochastic:
            with pytest.raises(ValueError, match="noise"):
                stepped(kernel, x, t, s, None, interpolant)
        else:
            assert torch.equal(stepped(kernel, x, t, s, None, interpolant), one)

    @every_interpolant
    def test_it_asks_for_as_many_velocities_as_it_declares(self, kernel: Kernel, interpolant: Interpolant) -> None:
        """It requests ``extra_nfe`` velocities per row, or fewer for s = 0."""
        x, z = normal(0), normal(1)
        assert evaluated(kernel, x, times(0.6), times(0.4), z, interpolant)[1] == len(x) * kernel.extra_nfe
        assert evaluated(kernel, x, times(0.6), times(0.0), z, interpolant)[1] <= len(x) * kernel.extra_nfe

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_shape_and_dtype_are_kept(self, kernel: Kernel, dtype: torch.dtype) -> None:
        """Times are float64 for states of any type, and single precision agrees with double."""
        t, s = times(0.9, 0.6, 0.2), times(0.8, 0.5, 0.0)
        x_s = stepped(kernel, normal(0, dtype), t, s, normal(1, dtype), VP())
        assert (x_s.shape, x_s.dtype) == (SHAPE, dtype)
        torch.testing.assert_close(
            x_s.double(), stepped(kernel, normal(0), t, s, normal(1), VP()), rtol=1e-4, atol=1e-4
        )

    @every_interpolant
    def test_one_time_for_all_is_that_time_for_each(self, kernel: Kernel, interpolant: Interpolant) -> None:
        """Times of shape () and (B,) are equivalent."""
        for t, s in ((0.7, 0.5), (0.3, 0.0)):
            one = stepped(kernel, normal(0), times(t), times(s), normal(1), interpolant)
            each = stepped(kernel, normal(0), times(t, t, t), times(s, s, s), normal(1), interpolant)
            torch.testing.assert_close(each, one, rtol=1e-12, atol=1e-12)

    @every_interpolant
    def test_rows_do_not_depend_on_each_other(self, kernel: Kernel, interpolant: Interpolant) -> None:
        """Rows at different times end where each would end alone."""
        x, z, t, s = normal(0), normal(1), times(1.0, 0.6, 0.2), times(0.8, 0.5, 0.0)
        together = stepped(kernel, x, t, s, z, interpolant)
        for i in range(len(x)):
            row = slice(i, i + 1)
            alone = stepped(kernel, x[row], t[i], s[i], z[row], interpolant)
            torch.testing.assert_close(together[row], alone, rtol=1e-12, atol=1e-12)

    @every_interpolant
    def test_it_reaches_the_end(self, kernel: Kernel, interpolant: Interpolant) -> None:
        """States stay finite from pure noise to s = 0, in four steps and in one."""
        for way in ((1.0, 0.75, 0.5, 0.25, 0.0), (1.0, 0.0)):
            x = normal(0)
            for i, (t, s) in enumerate(pairwise(way), 1):
                x = stepped(kernel, x, times(t), times(s), normal(i), interpolant)
            assert x.isfinite().all()

    def test_the_law(self, kernel: Kernel) -> None:
        """With default settings, the kernel converges to the data law if and only if its docstring says so.

        Yes: after 200 steps, samples are as far from a mixture of two modes as exact samples are, up to a small bias.
        No: they are clearly farther away, and more steps do not help.
        """
        for setting in fields(kernel):  # type: ignore[arg-type]
            if setting.default not in (MISSING, getattr(kernel, setting.name)):
                pytest.skip(f"the claim is about the default settings, and {setting.name} differs from its default")
        claim = CLAIM.search(docstring(type(kernel)))
        few, some, many = (distance(kernel, steps) for steps in (10, 50, 200))
        if claim is not None and claim[1] == "yes":
            assert many.w1 < many.floor + 1.5 / 200
            assert many.w1 < max(few.w1 / 2, many.floor)
        else:
            assert many.w1 > 2.5 * many.floor
            assert many.w1 > 0.75 * some.w1

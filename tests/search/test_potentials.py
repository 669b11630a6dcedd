"""Potentials and temperings by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.particles.weights import ess
from rollflow.search.smc.potentials import (
    POTENTIALS,
    DifferencePotential,
    MaxPotential,
    Memory,
    Potential,
    SumPotential,
)
from rollflow.search.smc.tempering import (
    TEMPERINGS,
    AdaptiveTempering,
    GeometricTempering,
    LinearTempering,
    NoTempering,
    Tempering,
)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("potential", "values"),
    [
        (DifferencePotential(), [[1, -1], [3, -4], [2, -3]]),
        (MaxPotential(), [[1, -1], [4, -2], [7, -3]]),
        (SumPotential(), [[1, -1], [5, -6], [11, -14]]),
    ],
    ids=repr,
)
def test_the_value_of_a_path(potential: Potential, values: list[list[float]]) -> None:
    """Rewards 1, 3, 2 and -1, -4, -3; then the two paths exchanged, as by a resampling."""
    memory: Memory | None = None
    for reward, expected in zip(([1, -1], [3, -4], [2, -3]), values, strict=True):
        before, memory = memory, potential.update(memory, double(*reward))
        assert memory.value.tolist() == expected
    assert before is not None
    swapped = potential.update(before.rows(torch.tensor([1, 0])), double(-3, 2))
    assert swapped.value.tolist() == values[-1][::-1]


def test_the_memory_of_some_paths() -> None:
    some = Memory(double(1, 2, 3), double(4, 5, 6)).rows(torch.tensor([2, 0, 0]))
    assert (some.value.tolist(), some.summary.tolist()) == ([3, 1, 1], [6, 4, 4])


def gammas(tempering: Tempering, steps: int) -> list[float]:
    return [tempering.gamma(step, steps, 0.0, double(0), double(0)) for step in range(steps)]


def test_fixed_schedules() -> None:
    assert gammas(NoTempering(), 3) == [1, 1, 1]
    assert gammas(LinearTempering(), 4) == [0.25, 0.5, 0.75, 1]
    assert gammas(GeometricTempering(1.0), 3) == [1, 1, 1]
    assert gammas(GeometricTempering(0.5), 3) == pytest.approx([0.5, 1, 1])
    free = gammas(GeometricTempering(), 6)
    assert free == pytest.approx([2 ** (k / 6) - 1 for k in range(1, 7)])
    assert free[-1] == pytest.approx(1)
    theirs = gammas(GeometricTempering(0.008), 100)
    assert theirs[:2] == pytest.approx([0.008, 0.008 + 0.008 * 1.008])
    assert theirs.index(1.0) == math.ceil(math.log(2) / math.log(1.008)) - 1
    assert all(a <= b for a, b in pairwise(theirs))


some = st.lists(st.tuples(st.floats(-2, 2), st.floats(-9, 9)), min_size=2, max_size=9)


@given(some, st.floats(0, 1), st.floats(0.05, 0.95))
def test_adaptive_stops_where_the_sample_size_does(pairs: list[tuple[float, float]], low: float, keep: float) -> None:
    """1 if that is still enough; else a gamma that is enough, or the last one, beyond which it is not."""
    log_w, phi = double(*(a for a, _ in pairs)), double(*(b for _, b in pairs))
    gamma = AdaptiveTempering(keep).gamma(1, 5, low, log_w, phi)
    assert low <= gamma <= 1
    if ess(log_w + phi) >= keep * len(pairs):
        assert gamma == 1
    else:
        assert gamma == low or ess(log_w + gamma * phi) >= keep * len(pairs)
        assert ess(log_w + (gamma + 1e-9) * phi) < keep * len(pairs) + 1e-6


def test_adaptive_in_closed_form() -> None:
    """Weights 1 and e^gamma: ESS / 2 = (1 + e^gamma)^2 / (2 + 2 e^(2 gamma)) is 0.9 where e^gamma is 2."""
    gamma = AdaptiveTempering(0.9).gamma(0, 5, 0.0, double(0, 0), double(0, 1))
    assert gamma == pytest.approx(math.log(2), abs=1e-9)
    carried = AdaptiveTempering(0.9).gamma(0, 5, 0.0, double(0, math.log(1.5)), double(0, 1))
    assert carried == pytest.approx(math.log(2 / 1.5), abs=1e-9)


def test_adaptive_finds_forty_bits_and_takes_what_is_just_enough() -> None:
    """Of log 2 = 0.B17217F7D1CF... in hexadecimal; and of two weights of four, half of which are to be kept."""
    assert AdaptiveTempering(0.9).gamma(0, 5, 0.0, double(0, 0), double(0, 1)) == 0xB17217F7D1 / 2**40
    assert AdaptiveTempering(0.5).gamma(0, 5, 0.0, double(0, 0, 0, 0), double(0, 0, -1e6, -1e6)) == 1


def test_names_and_settings() -> None:
    assert set(POTENTIALS) == {"difference", "max", "sum"}
    assert set(TEMPERINGS) == {"none", "linear", "geometric", "adaptive"}
    with pytest.raises(RollflowError, match="rate of geometric tempering must be a finite number > 0, not -1"):
        GeometricTempering(-1)
    with pytest.raises(RollflowError, match="keep of adaptive tempering must be a finite number > 0 and < 1, not 1"):
        AdaptiveTempering(1)

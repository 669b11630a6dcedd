"""One weighting after another, and what tempering is told of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.dynamics.kernels import EulerMaruyama
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.sampler import Sampler
from rollflow.search import Particles, Propagator
from rollflow.search.smc.potentials import DifferencePotential, Memory
from rollflow.search.smc.tempering import Tempering
from rollflow.search.smc.weighing import Target, Weighing, log_ratio

DEAD = -math.inf


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Asked(Tempering):
    """Keeps what it is asked with; gamma is (k + 1) / 10."""

    name = "asked"

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, float, list[float], list[float]]] = []

    def gamma(self, step: int, steps: int, previous: float, log_w: Tensor, phi: Tensor) -> float:
        self.calls.append((step, steps, previous, log_w.tolist(), phi.tolist()))
        return (step + 1) / 10


def test_tempering_is_told_of_the_living_alone() -> None:
    """The last gamma, the weights without any potential, and the potentials in units of the temperature."""
    tempering = Asked()
    target, weighing = Target(DifferencePotential(), tempering, 0.5), Weighing.equal(3)
    weighing = target.weigh(weighing, double(1, 2, DEAD), 0, 5)
    assert weighing.log_w.tolist() == pytest.approx([0.2, 0.4, DEAD])
    assert weighing.tilt.tolist() == pytest.approx([0.2, 0.4, 0])
    weighing = target.weigh(weighing, double(3, 4, 5), 1, 5)
    assert weighing.log_w.tolist() == pytest.approx([1.2, 1.6, DEAD])
    weighing = target.weigh(weighing, double(5, DEAD, 7), 2, 5)
    assert weighing.log_w.tolist() == pytest.approx([3, DEAD, DEAD])
    assert weighing.gamma == (0.1, 0.2, 3 / 10)
    assert weighing.ess[0] == pytest.approx((math.exp(0.2) + math.exp(0.4)) ** 2 / (math.exp(0.4) + math.exp(0.8)))
    assert weighing.ess[2] == pytest.approx(1)
    steps, previous, log_w, phi = zip(*(call[1:] for call in tempering.calls), strict=True)
    assert [call[0] for call in tempering.calls] == [0, 1, 2]
    assert (steps, previous) == ((5, 5, 5), (0.0, 0.1, 0.2))
    assert [len(values) for values in log_w] == [2, 2, 1]
    assert all(value == pytest.approx(0) for values in log_w for value in values)
    assert phi == ([2, 4], [6, 8], [10])


def test_a_step_that_leaves_none_weighs_nothing_but_the_last_one_does() -> None:
    """gamma stays as it was: 0 at first. In the end there is none, so that the population is over."""
    target = Target(DifferencePotential(), Asked(), 0.5)
    first = target.weigh(Weighing.equal(2), double(DEAD, DEAD), 0, 4)
    assert (first.log_w.tolist(), first.gamma, first.ess, first.over) == ([0, 0], (0.0,), (2.0,), False)
    second = target.weigh(first, double(1, 1), 1, 4)
    third = target.weigh(second, double(DEAD, DEAD), 2, 4)
    assert torch.equal(third.log_w, second.log_w)
    assert (third.gamma, third.ess) == ((0.0, 0.2, 0.2), (2.0, 2.0, 2.0))
    last = target.weigh(third, double(DEAD, DEAD), 3, 4)
    assert (last.log_w.tolist(), last.ess[-1], last.gamma[-1], last.over) == ([DEAD, DEAD], 0.0, 0.2, True)


def test_a_resampling_moves_the_weights_into_z() -> None:
    before = Weighing(double(0, math.log(3)), double(1, 2), Memory(double(3, 4), double(5, 6)), torch.arange(2), 0.5)
    after = before.resampled(torch.tensor([1, 1, 0]))
    assert before.log_evidence == pytest.approx(0.5 + math.log(2))
    assert after.log_w.tolist() == [0, 0, 0]
    assert after.tilt.tolist() == [2, 2, 1]
    assert after.memory is not None
    assert (after.memory.value.tolist(), after.memory.summary.tolist()) == ([4, 4, 3], [6, 6, 5])
    assert after.root.tolist() == [1, 1, 0]
    assert after.log_z == pytest.approx(0.5 + math.log(2))
    assert after.resamplings == 1
    assert after.log_evidence == after.log_z
    assert before._replace(memory=None).resampled(torch.tensor([0])).memory is None


@pytest.mark.parametrize("path", [Linear(), VP()], ids=str)
def test_the_ratio_of_two_densities(plane: ToyModel, path: Interpolant) -> None:
    """Of the kernel's law to the one that is moved by the shift; children that are not finite have weight 0."""
    sampler = Sampler(path, EulerMaruyama(), steps=4, guidance=DPS(0.1))
    propagator = Propagator(sampler.bind(plane), Noise(0, 0, (2,), torch.float64), 0)
    x, u = torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double(), torch.tensor([[0.3, 0.1], [-1.0, 2.0]]).double()
    shift = torch.tensor([[0.2, -0.1], [0.0, 0.4]]).double()
    parents, (t, s) = Particles(x, u, x, x[:, 0], shift), (propagator.time(1), propagator.time(2))
    mean, std = EulerMaruyama().moments(path, x, propagator.dynamics.conversion.velocity(u, x, t), t, s)
    children = mean + std * torch.tensor([[0.7, -0.4], [1.5, 0.2]]).double()
    law, leaning = torch.distributions.Normal(mean, std), torch.distributions.Normal(mean + shift, std)
    expected = (law.log_prob(children) - leaning.log_prob(children)).sum(1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(log_ratio(propagator, parents, children, 2), expected)
    for wrong in (math.nan, math.inf):
        children[0, 1] = wrong
        ratio = log_ratio(propagator, parents, children, 2)
        assert ratio[0] == DEAD
        assert ratio[1] == pytest.approx(float(expected[1]))
    assert log_ratio(propagator, parents._replace(guidance_shift=None), children, 2).tolist() == [0.0, 0.0]

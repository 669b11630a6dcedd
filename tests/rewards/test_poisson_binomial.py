"""The law of a number of independent events against sums over subsets, the binomial law, and its own extremes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from rollflow.rewards.poisson_binomial import log_count_probability
from rollflow.rewards.scenes.scenes import count_probability

P = torch.tensor([0.9, 0.2, 0.55, 0.999, 1e-9], dtype=torch.float64)


@pytest.mark.parametrize("count", range(6))
def test_it_is_the_sum_over_subsets(count: int) -> None:
    exact = 0.0
    for chosen in itertools.combinations(range(len(P)), count):
        exact += math.prod(float(p if i in chosen else 1 - p) for i, p in enumerate(P))
    found = log_count_probability(P.logit()[None], torch.tensor([count]))
    assert float(found.exp()) == pytest.approx(exact, rel=1e-12)


def test_equal_events_have_the_binomial_law() -> None:
    counts = torch.arange(25)
    logits = torch.full((25, 24), math.log(0.3 / 0.7), dtype=torch.float64)
    exact = [math.log(math.comb(24, k)) + k * math.log(0.3) + (24 - k) * math.log(0.7) for k in range(25)]
    assert log_count_probability(logits, counts).tolist() == pytest.approx(exact, rel=1e-12)


def test_each_row_has_its_own_count() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.tensor([0, 5, 2])
    alone = [float(log_count_probability(logits[i : i + 1], counts[i : i + 1])) for i in range(3)]
    assert log_count_probability(logits, counts).tolist() == pytest.approx(alone, rel=1e-14)
    assert log_count_probability(logits, counts).exp().tolist() == pytest.approx(
        count_probability(logits.sigmoid(), counts).tolist(), rel=1e-12
    )


def test_nothing_underflows() -> None:
    """Twenty events of probability exp(-200) have probability exp(-4000), which no float64 holds."""
    logits = torch.full((1, 20), -200.0)
    assert float(log_count_probability(logits, torch.tensor([20]))) == pytest.approx(-4000.0, rel=1e-12)
    assert float(log_count_probability(-logits, torch.tensor([0]))) == pytest.approx(-4000.0, rel=1e-12)
    assert float(log_count_probability(-logits, torch.tensor([20]))) == pytest.approx(0.0, abs=1e-80)


def test_what_cannot_happen() -> None:
    assert float(log_count_probability(torch.zeros(1, 2), torch.tensor([3]))) == -math.inf
    assert log_count_probability(torch.zeros(2, 0), torch.tensor([0, 1])).tolist() == [0.0, -math.inf]


def test_its_gradient_is_how_much_likelier_each_event_gets() -> None:
    """d log P(N = n) / d logit_i = P(event i | N = n) - p_i."""
    logits = P[:4].logit()[None].requires_grad_()
    [gradient] = torch.autograd.grad(log_count_probability(logits, torch.tensor([2])).sum(), logits)
    p = P[:4].tolist()
    weights = {
        chosen: math.prod(p[i] if i in chosen else 1 - p[i] for i in range(4))
        for chosen in itertools.combinations(range(4), 2)
    }
    total = sum(weights.values())
    exact = [sum(weight for chosen, weight in weights.items() if i in chosen) / total - p[i] for i in range(4)]
    assert gradient[0].tolist() == pytest.approx(exact, rel=1e-10)

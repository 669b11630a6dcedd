"""A job of a committed experiment is run again from its record, and still gives the published sample.

What must be equal where: the identity of the job (id, noise), its models and rewards, and its account, everywhere. The
reward within 1e-5, since CPUs round sums in different orders. The sample to the last bit, by its digest, where torch is
of the recorded version and this CPU computes as the one of then did, which is told by what it makes of the operations
that the networks consist of (``arithmetic``): they are torch's alone, so that no change of the library hides behind it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rollflow.bench.replay import find, replay, trial_of

RESULTS = Path(__file__).parents[2] / "results"
THEN = "6e20ebf7e5f014c2"
"""Digest by ``arithmetic`` on the kind of CPU that ran the experiments in ``results``."""


def arithmetic() -> str:
    """Return a digest of convolutions, products, norms, attention and transcendental functions."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randint(-512, 513, shape, generator=generator).float() / 256

    x, told = some(16, 128, 8, 8), hashlib.sha256()
    for _ in range(2):
        x = F.conv2d(F.silu(F.group_norm(x, 8)), some(128, 128, 3, 3) / 32, some(128), padding=1)
    h = F.conv2d(x, some(288, 128, 2, 2) / 16, stride=2).flatten(2).transpose(1, 2)
    q, k, v = (
        F.rms_norm(F.linear(h, some(288, 288) / 16).view(16, 16, 6, 48).transpose(1, 2), (48,)) for _ in range(3)
    )
    h = F.layer_norm(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(16, 16, 288), (288,))
    h = F.linear(F.gelu(F.linear(h, some(1152, 288) / 16), approximate="tanh"), some(288, 1152) / 32)
    picture = F.conv2d(some(16, 48, 32, 32), some(12, 48, 3, 3) / 16, padding=1)
    for one in (x, h, h.sin(), h.exp().log(), picture):
        told.update(one.contiguous().numpy().tobytes())
    return told.hexdigest()[:16]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "job"),
    [("init", "a49eb0a0aa7d8980"), pytest.param("init", "fb631d6f27810151", marks=pytest.mark.exhaustive)],
    ids=["plain", "svdd"],
)
def test_a_committed_job(name: str, job: str) -> None:
    path = RESULTS / f"{name}.jsonl.gz"
    stored, record = find(path, job)
    trial = trial_of(stored.config, record)
    assert (trial.id, trial.noise) == (job, record.noise)
    again = replay(path, job)
    assert again.provenance == []
    result = again.result
    spent = {key: getattr(result.spent, key) for key in ("nfe", "network_rows", "reward_calls", "decodes")}
    assert spent == {key: getattr(record, key) for key in spent}
    assert (result.noise_level, result.interrupted) == (record.noise_level, False)
    assert result.reward == pytest.approx(record.reward, abs=1e-5)
    for judge, score in record.held_out.items():
        assert result.held_out[judge] == pytest.approx(score, abs=1e-3)
    if again.versions == [] and arithmetic() == THEN:
        assert again.same
        assert (result.reward, len(result.trace)) == (record.reward, len(record.trace))

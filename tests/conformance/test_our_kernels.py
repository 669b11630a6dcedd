"""The library's own kernels through the suite that is shipped."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rollflow.dynamics.kernels import (
    DDIM,
    GLASS,
    KERNELS,
    Converted,
    Euler,
    EulerMaruyama,
    FlowCPS,
    Heun,
    Kernel,
    Memoryless,
    Renoise,
)
from rollflow.testing import KernelSuite

CASES: list[Kernel] = [
    Euler(),
    Heun(),
    EulerMaruyama(),
    EulerMaruyama(Memoryless(math.sqrt(0.5))),
    EulerMaruyama(Converted(latest=0.95)),
    DDIM(),
    DDIM(0.4),
    DDIM(0.0),
    FlowCPS(),
    FlowCPS(0.0),
    Renoise(),
    GLASS(),
    GLASS(2, 0.3),
]


def test_every_registered_kernel_is_tested_as_it_is_by_default() -> None:
    assert {kind() for kind in KERNELS.values()} <= set(CASES)


class TestOwn(KernelSuite):
    @pytest.fixture(params=CASES, ids=repr)
    def kernel(self, request: pytest.FixtureRequest) -> Any:
        return request.param

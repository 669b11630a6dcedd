"""Fixtures for all tests: small Gaussian mixtures in closed form, and jobs run without the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, settings
from support import shapes
from torch import Tensor

shapes.check_shapes("rollflow.dynamics", "rollflow.particles", "rollflow.search", "rollflow.engine")

from rollflow.engine import Job
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward
from rollflow.testing import reference
from rollflow.testing.jobs import SAMPLERS
from rollflow.testing.reference import Alone

if TYPE_CHECKING:
    from fork_server import ForkServer

torch.set_num_threads(1)  # a sum's order, and so its last bit, can depend on the number of threads
settings.register_profile(
    "rollflow", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rollflow")


FAST = [SAMPLERS[name] for name in ("linear", "vp", "guided")]
"""Dynamics along which the conformance of every search is among the fast tests."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=0, help="Kills of tests/faults/test_kills.py; 0 is the short form.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "fork_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.subprocess)
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if item.path.name == "test_our_searches.py" and parameters.get("sampler", FAST[0]) not in FAST:
            again = item.get_closest_marker("slow") is not None  # further settings along further dynamics
            item.add_marker(pytest.mark.exhaustive if again else pytest.mark.slow)
        if item.path.name == "test_our_kernels.py" and item.name.startswith("test_the_law["):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_power_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk, since tests write thousands of small files; tests of durability record the calls."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def _shapes() -> None:
    """Check the shapes of the first calls of every function in each test."""
    shapes.renew()


def line_mixtures() -> dict[str, GaussianMixture]:
    """Three one-dimensional mixtures, by prompt."""
    return {
        "left": GaussianMixture(torch.tensor([0.7, 0.3]), torch.tensor([[-2.0], [0.5]]), torch.tensor([0.3, 0.6])),
        "right": GaussianMixture(torch.tensor([0.2, 0.8]), torch.tensor([[-1.0], [1.5]]), torch.tensor([0.4, 0.5])),
        "wide": GaussianMixture(torch.tensor([1.0]), torch.tensor([[0.2]]), torch.tensor([1.7])),
    }


def plane_mixtures() -> dict[str, GaussianMixture]:
    """Two two-dimensional mixtures, by prompt."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.5], [2.0, -1.0]])
    return {
        "corners": GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), corners, torch.tensor([0.3, 0.5, 0.4])),
        "pair": GaussianMixture(torch.tensor([0.5, 0.5]), corners[:2], torch.tensor([0.2, 0.8])),
    }


class Call(NamedTuple):
    """One call of a model: the times and the prompts of its rows."""

    times: tuple[float, ...]
    prompts: tuple[str, ...]


class SpyModel(ToyModel):
    """A toy model that records its calls, and raises ``trouble``, if any, in all calls after ``fails_at``."""

    def __init__(self, mixtures: dict[str, GaussianMixture]) -> None:
        super().__init__(mixtures)
        self.calls: list[Call] = []
        self.trouble: BaseException | None = None
        self.fails_at = 0

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        self.calls.append(Call(tuple(t.tolist()), tuple(conditions)))
        if self.trouble is not None and len(self.calls) > self.fails_at:
            raise self.trouble
        return super().velocity(x, t, conditions)

    @property
    def rows(self) -> int:
        """NFE by the model's own count."""
        return sum(len(call.times) for call in self.calls)


@pytest.fixture(scope="session")
def line() -> ToyModel:
    return ToyModel(line_mixtures())


@pytest.fixture(scope="session")
def plane() -> ToyModel:
    return ToyModel(plane_mixtures())


@pytest.fixture
def spy() -> SpyModel:
    return SpyModel(line_mixtures())


@pytest.fixture(scope="session")
def toy_reward() -> ToyReward:
    """The first coordinate, in any dimension."""
    return ToyReward()


@pytest.fixture(scope="session")
def alone() -> Callable[[Job], Alone]:
    """The specification of the engine: drives a job's populations one after another, each request by itself."""
    return reference.alone


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Starts processes that can be killed, for tests/faults."""
    from fork_server import ForkServer  # only those tests have its folder on their path

    server = ForkServer()
    yield server
    server.close()

"""Conformance suites: the contract of searches, kernels, models and rewards, as tests to inherit.

A suite is a class of tests. A subclass whose name begins with ``Test`` provides the object under test as a fixture, and
pytest does the rest::

    class TestBeam(SearchSuite):
        @pytest.fixture(params=[Beam(), Beam(width=3)], ids=repr)
        def search(self, request):
            return request.param

The library's own classes pass the same suites; docs/extending explains how to write others. This is the only part of
rollflow that needs pytest, which the extra ``test`` installs: ``pip install "rollflow[test]"``.
"""

import pytest

pytest.register_assert_rewrite(  # before they are imported, so that a failure shows its values
    *(f"{__name__}.{module}" for module in ("jobs", "kernels", "models", "rewards", "searches", "values"))
)

from rollflow.testing.kernels import KernelSuite  # noqa: E402
from rollflow.testing.models import ModelSuite  # noqa: E402
from rollflow.testing.rewards import RewardSuite  # noqa: E402
from rollflow.testing.searches import SearchSuite  # noqa: E402

__all__ = ["KernelSuite", "ModelSuite", "RewardSuite", "SearchSuite"]

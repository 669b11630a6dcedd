"""What models say of themselves before anything loads."""

from __future__ import annotations

import pytest

from rollflow.errors import BadSetting
from rollflow.models import MODELS, PipelineSource
from rollflow.models.base import check_attributes
from rollflow.models.mixture.model import ToyModel


def test_the_family_of_suites_is_known_without_weights() -> None:
    assert {name: model.suite_family for name, model in MODELS.items()} == {
        "scenes-turbo": "scenes",
        "scenes-base": "scenes",
    }
    assert ToyModel.suite_family is None
    assert PipelineSource("owner/name").suite_family is None


@pytest.mark.parametrize("family", [3, "", True])
def test_a_family_of_suites_that_is_no_text_is_refused(family: object) -> None:
    class Odd(ToyModel):
        suite_family = family  # type: ignore[assignment]

    with pytest.raises(BadSetting, match="model 'toy': suite_family"):
        check_attributes(Odd)

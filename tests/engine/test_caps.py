"""Caps as they are given: whole numbers from 0, plain ones whatever they came as."""

from __future__ import annotations

import numpy as np
import pytest

from rollflow.engine import Caps
from rollflow.errors import BadSetting


@pytest.mark.parametrize("name", ["nfe", "network_rows", "reward_calls", "decodes", "backward_passes"])
def test_bounds(name: str) -> None:
    assert getattr(Caps(), name) is None
    assert getattr(Caps(**{name: 0}), name) == 0
    assert type(getattr(Caps(**{name: np.int64(3)}), name)) is int  # type: ignore[arg-type]
    for wrong in (-1, 2**63, 1.5, "3"):
        with pytest.raises(BadSetting, match=f"{name} of Caps"):
            Caps(**{name: wrong})  # type: ignore[arg-type]

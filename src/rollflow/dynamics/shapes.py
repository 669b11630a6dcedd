"""Types of the tensors that dynamics work on, with their shapes in jaxtyping's notation.

``B`` is the number of rows of a batch and ``*state`` the shape of one state. Nothing is checked at run time unless
jaxtyping's import hook is installed, as the tests do.
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Float, Float64
from torch import Tensor

States: TypeAlias = Float[Tensor, " B *state"]
"""A batch of states, or of anything of their shape: velocities, clean estimates, noise, gradients."""

Times: TypeAlias = Float64[Tensor, ""] | Float64[Tensor, " B"]
"""One time for all rows, or a time for each; coefficients at such times have the same shapes."""

Time: TypeAlias = Float[Tensor, "*times"] | float | int
"""Times of any shape, or a number."""

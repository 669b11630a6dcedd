"""The position of a search's state in the latents that a pipeline prepares."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

DIGITS = 128
"""Base of the digits that mark positions; whole numbers below it are exact in every dtype."""


class Layout(NamedTuple):
    """Places of a state's numbers in prepared latents.

    Args:
        at: (n,) index in one row's flat latents of each number of the state; None if the state is the latents.
        rest: (1, ...) latents with everything besides the state, such as a given first frame.
    """

    at: Tensor | None = None
    rest: Tensor | None = None

    def latents_with(self, state: Tensor, latents: Tensor) -> Tensor:
        """Put a state (B, ...) in place of prepared latents, or of the part of them that the pipeline steps.

        The result also takes their layout in memory, which decides the last bit of some networks' outputs.
        """
        if self.at is not None:
            whole = (latents if self.rest is None else self.rest.expand_as(latents)).detach().flatten(1).clone()
            whole[:, self.at.to(whole.device)] = state.flatten(1).to(whole)
            state = whole.view(latents.shape)
        return latents.detach().clone().copy_(state)

    def state_in(self, latents: Tensor) -> Tensor:
        """Take the state (B, ...) out of prepared latents; it is flat where it is only a part of them."""
        return latents if self.at is None else latents.flatten(1)[:, self.at.to(latents.device)]

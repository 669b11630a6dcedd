"""Models that break one promise each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rollflow.dynamics.interpolants import Cosine, Interpolant, Linear
from rollflow.models import FlowModel
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.testing import ModelSuite

PROMPTS = ("left", "right")


class Meddled(ToyModel):
    """The toy, meddled with."""

    def __init__(self, interpolant: Interpolant = Linear()) -> None:  # noqa: B008
        means, stds = torch.tensor([[-1.0, -1.0], [1.0, 1.5]]), torch.tensor([0.3, 0.5])
        weights = torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])
        super().__init__(
            {p: GaussianMixture(w, means, stds, interpolant) for p, w in zip(PROMPTS, weights, strict=True)}
        )

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        return self.wrong(super().velocity(x, t, conditions), x)

    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        return v


class Nameless(Meddled):
    """Has no name."""

    name = ""


class Verbose(Meddled):
    """Has too much to say."""

    description = "one\ntwo"


class Surprising(Meddled):
    """Tells what a NFE costs only when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.rows_per_nfe = 2  # type: ignore[misc]


class Single(Meddled):
    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        return v.float()


class Singular(Meddled):
    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        return v / 0


class Summary(Meddled):
    def decode(self, x0: Tensor) -> Tensor:
        return x0.mean(0, keepdim=True)


class Glaring(Meddled):
    def decode(self, x0: Tensor) -> Tensor:
        return 5 * x0[:, :1, None, None].expand(-1, 3, 2, 2)


class Averaging(Meddled):
    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        return v + 1e-9 * x.mean(0)


class Stretching(Meddled):
    def decode(self, x0: Tensor) -> Tensor:
        return x0 / x0.abs().max()


class Deaf(Meddled):
    def encode(self, prompt: str) -> str:
        return "left"


class Drawing(Meddled):
    """Draws what it does not use."""

    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        torch.randn(1)
        return v


class Switching(Meddled):
    """Turns gradients on for whoever comes next."""

    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        return v


class Warming(Meddled):
    """Another answer to every call."""

    calls = 0

    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return v * self.calls


class Scribbling(Meddled):
    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        return super().velocity(x.clamp_(-1, 1), t, conditions)


class Kinked(Meddled):
    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        return v + (x - x.detach()).abs().sqrt()


class Numb(Meddled):
    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        return v.detach() + 0 * x


class Leaking(Meddled):
    def decode(self, x0: Tensor) -> Tensor:
        mean = x0.mean(0)
        return x0 + mean - mean.detach()


class Gullible(Meddled):
    def encode(self, prompt: str) -> str:
        return prompt if prompt in PROMPTS else "left"


class Backwards(Meddled):
    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        return -v


class Reversed(Meddled):
    """Has its noise at t = 0 and its data at t = 1."""

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        return -super().velocity(x, 1 - t, conditions)


class Late(Meddled):
    """Counts time from the data."""

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        return super().velocity(x, 1 - t, conditions)


class Curved(Meddled):
    """Says that it is linear, and is not."""

    def __init__(self) -> None:
        super().__init__(Cosine())
        self.interpolant = Linear()


class Exploding(Meddled):
    def wrong(self, v: Tensor, x: Tensor) -> Tensor:
        return 1e200 * v


of = ModelSuite
CASES: list[tuple[Any, FlowModel, tuple[Any, ...]]] = [
    *((of.test_it_says_what_it_is, kind(), ()) for kind in (Nameless, Verbose, Surprising)),
    *((of.test_shape_and_dtype_are_kept, kind(), (PROMPTS,)) for kind in (Single, Singular, Summary, Glaring)),
    *((of.test_rows_of_many_prompts_and_times_share_a_call, kind(), (PROMPTS,)) for kind in (Averaging, Stretching)),
    *((of.test_the_prompt_matters, kind(), (PROMPTS,)) for kind in (Deaf, Reversed)),
    *((of.test_nothing_is_drawn_kept_or_written_to, kind(), (PROMPTS,)) for kind in (Drawing, Switching)),
    *((of.test_nothing_is_drawn_kept_or_written_to, kind(), (PROMPTS,)) for kind in (Warming, Scribbling)),
    *((of.test_gradients_reach_the_states_they_belong_to, kind(), (PROMPTS,)) for kind in (Kinked, Numb, Leaking)),
    (of.test_a_bad_prompt_is_refused, Gullible(), ("nowhere",)),
    *((of.test_its_clean_estimates_are_means, kind(), (PROMPTS,)) for kind in (Backwards, Late, Curved, Exploding)),
]

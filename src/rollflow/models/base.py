"""The interface of pretrained flow models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rollflow import checks
from rollflow.canonical import with_settings
from rollflow.dynamics.grids import Grid
from rollflow.dynamics.interpolants import Interpolant, Linear
from rollflow.errors import BadSetting


class Screened(NamedTuple):
    """Decoded samples, and which of them the model itself rejects.

    Args:
        samples: (B, ...) samples as ``FlowModel.decode`` returns them.
        rejected: For each sample, what rejected it, such as "the safety checker"; None if nothing did.
    """

    samples: Tensor
    rejected: tuple[str | None, ...]


class FlowModel(ABC):
    """A velocity field u_t(x | condition) with its decoder.

    What is known without weights is a class attribute, so that a cost can be computed before anything loads.

    Attributes:
        name: Name on the command line.
        description: One-line description.
        interpolant: Interpolant that it was trained on.
        grid: Time grid that it was published with, along its interpolant; None if it has none.
        suite_family: Family of benchmark suites whose prompts the model was trained on, such as ``scenes``: experiments
            on it take that family's suites, rewards and distances by default. None for a model that reads any text,
            whose experiments take the published suites.
        few_step: Whether it is step-distilled, so that its clean estimate is sharp long before t = 0.
        rows_per_nfe: Network rows that one guided evaluation takes (2 with classifier-free guidance).
        shape: Shape of one state.
        dtype: Type in which a search computes with states.
        device: Device of the network; None if irrelevant.
        origin: (...) clean state that sampling starts from, noised to time ``start``; None starts from pure noise.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    suite_family: ClassVar[str | None] = None
    few_step: ClassVar[bool] = False
    rows_per_nfe: ClassVar[int] = 1
    interpolant: Interpolant = Linear()
    grid: Grid | None = None
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None
    origin: Tensor | None = None

    def start(self, steps: int) -> float:
        """Return the time along its interpolant at which sampling in ``steps`` starts; 1 without an ``origin``."""
        return 1.0

    @property
    def identity(self) -> str:
        """Text that distinguishes it from other models and other settings; a checkpoint belongs to one identity.

        By default it consists of the name and the constructor settings that are kept as attributes of the same names.
        Override it if anything else matters, such as weights; it must be the same in another process.
        """
        return with_settings(self.name, self)

    @classmethod  # noqa: B027 - most accept any prompt
    def check_prompt(cls, prompt: str) -> None:
        """Raise a ValueError on a prompt that ``encode`` cannot read; called before anything is loaded."""

    @abstractmethod
    def encode(self, prompt: str) -> Any:
        """Return the prompt as the network takes it; called once a job. Raises a ValueError on an unreadable prompt."""

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        """Return guided velocities.

        Args:
            x: (B, ...) states along the model's interpolant, of its ``dtype``.
            t: (B,) float64 times in (0, 1].
            conditions: Encoded prompt of each row.

        Returns:
            (B, ...) velocities.
        """

    def decode(self, x0: Tensor) -> Tensor:
        """Decode clean states (B, ...) to samples (B, ...): pixels (B, 3, H, W) in [0, 1] for images."""
        return x0

    def screened(self, x0: Tensor) -> Screened:
        """Decode clean states (B, ...) and mark the samples that must neither be scored nor returned.

        The engine decodes with this method. Override it for a model with a safety checker; ``decode`` shows all.
        """
        samples = self.decode(x0)
        return Screened(samples, (None,) * len(samples))


def check_attributes(model: FlowModel | type[FlowModel]) -> None:
    """Raise a BadSetting if an attribute of a model, or of its class, has the wrong type or is out of range."""
    checks.attributes(model, _ATTRIBUTES, what="model", optional=("shape",))
    if isinstance(model, FlowModel) and not hasattr(model, "shape"):
        raise BadSetting(f"model '{model.name}' has no shape; set the shape of one state, such as shape = (3, 64, 64)")


def _shape(name: str, value: object) -> None:
    checks.each(name, value, _side, "a tuple of whole numbers")


def _side(name: str, value: object) -> int:
    return checks.whole(name, value, at_least=1)


def _rows(name: str, value: object) -> None:
    if value is not None:  # None until it is loaded
        checks.whole(name, value, at_least=1)


def _dtype(name: str, value: object) -> None:
    if not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise checks.refused(name, "a floating-point torch.dtype", value)


def _interpolant(name: str, value: object) -> None:
    checks.instance(name, value, Interpolant)


def _grid(name: str, value: object) -> None:
    checks.instance(name, value, Grid, NoneType)


def _device(name: str, value: object) -> None:
    checks.instance(name, value, torch.device, NoneType, what="a torch.device or None")


def _family(name: str, value: object) -> None:
    if value is not None:
        checks.text(name, value)


_ATTRIBUTES: dict[str, Callable[[str, Any], object]] = {
    "suite_family": _family,
    "few_step": checks.flag,
    "rows_per_nfe": _rows,
    "interpolant": _interpolant,
    "grid": _grid,
    "dtype": _dtype,
    "device": _device,
    "shape": _shape,
}


class Source(ABC):
    """A model that is not loaded yet; its attributes are those of a ``FlowModel``.

    Attributes:
        suite_family: Family of benchmark suites; None for a model that reads any text.
        rows_per_nfe: Network rows of one guided evaluation; None if known only once the model is loaded.
    """

    suite_family: ClassVar[str | None] = None
    rows_per_nfe: int | None

    @property
    @abstractmethod
    def few_step(self) -> bool: ...

    @property
    @abstractmethod
    def interpolant(self) -> Interpolant: ...

    @property
    @abstractmethod
    def grid(self) -> Grid | None: ...

    @abstractmethod
    def load(self) -> FlowModel:
        """Load the model. Raises a RollflowError if that fails."""


ModelSpec: TypeAlias = FlowModel | type[FlowModel] | Source
"""A model, its class, or its source: all that a cost needs."""

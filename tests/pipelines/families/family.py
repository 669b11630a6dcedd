"""What a builder returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias


class Tiny(NamedTuple):
    """A pipeline, and what its call needs beside a prompt: sizes as small as it takes, guidance on where it has any.

    Args:
        pipeline: On the CPU, in float32, its scheduler a ``FlowMatchEulerDiscreteScheduler`` where it is a flow's and
            a ``DDIMScheduler`` where it is a diffusion model's, so that its own sampling can be repeated step by step.
        arguments: Of its call.
    """

    pipeline: Any
    arguments: dict[str, Any]


Family: TypeAlias = Callable[[], Tiny]

"""Inference-time scaling of flow models: a model, a reward and a budget in, the best sample it can buy out.

The public names are those of ``rollflow._public``. They load at first use, so that the command line can say how it
is used without waiting for torch.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rollflow._public import *  # noqa: F403

__version__ = version("rollflow")


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        if find_spec(f"rollflow.{name}"):  # `from rollflow import kernels` asks here before it looks for the module
            return import_module(f"rollflow.{name}")
        public = import_module("rollflow._public")
        if name in public.__all__:
            return getattr(public, name)
    raise AttributeError(f"module 'rollflow' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *import_module("rollflow._public").__all__]

"""Inference-time scaling of flow models: search for the best sample that a compute budget can buy, by any reward.

The public names are those of ``__init__.pyi``. They load at first use, so that the command line can show its help
without waiting for torch.
"""

import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_RENAMED = {"declared": "estimate_cost"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow to import for a command that only shows its help

        return version("rollflow")
    if name in _RENAMED:
        warnings.warn(f"rollflow.{name} is now rollflow.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return _public(_RENAMED[name])
    if name in __all__ or name.startswith("_") or not find_spec(f"rollflow.{name}"):
        return _public(name)
    return import_module(f"rollflow.{name}")  # so that `rollflow.engine` works without importing it

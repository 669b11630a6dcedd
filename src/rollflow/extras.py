"""Packages that only some uses need: one error for all of them, with the command that installs the extra."""

from __future__ import annotations

import importlib.util
import sys

from rollflow.errors import EXTRAS, MissingPackage, extra_of, install_command


def installed(module: str) -> bool:
    """Return whether a module can be found; nothing is imported but the packages that contain it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that contains it
        return False


def check_installed(who: str, *packages: str, extra: str | None = None) -> None:
    """Raise an error if a package is not installed, without importing it.

    Args:
        who: What needs the packages, as the beginning of the error.
        packages: Names of modules.
        extra: Extra that installs them; None is the first that has them all, or else those which are missing.

    Raises:
        MissingPackage: If one of them is not installed.
    """
    missing = [package for package in packages if not installed(package)]
    if missing:
        raise _missing(who, missing, extra or extra_of(packages))


class requiring:
    """Convert a failed import within a block to an error that says what to install.

        with requiring("a report", "bench"):
            from jinja2 import Environment

    Some packages, such as diffusers, import their own dependencies only when a name is looked up, and their errors do
    not name the missing package; the extra's packages are then looked for.

    Args:
        who: What needs the import, as the beginning of the error.
        extra: Extra that installs what is imported; None if ``packages`` belong to none.
        packages: Names of modules that belong to no extra.
    """

    def __init__(self, who: str, extra: str | None = None, *packages: str) -> None:
        self.who, self.extra, self.packages = who, extra, packages

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, ImportError):
            return
        named = [] if error.name is None or installed(error.name.partition(".")[0]) else [error.name.partition(".")[0]]
        among = self.packages if self.extra is None else EXTRAS[self.extra]
        missing = named or [package for package in among if not installed(package)]
        if missing:
            raise _missing(self.who, missing, self.extra) from error
        text = " ".join(str(error).split())[:300].rstrip(".")
        raise MissingPackage(
            f"{self.who} cannot import what it needs: {text}; update it with: "
            f"{install_command(self.packages, self.extra).replace('install', 'install --upgrade')}"
        ) from error


def _missing(who: str, packages: list[str], extra: str | None) -> MissingPackage:
    noun = "package" if len(packages) == 1 else "packages"
    return MissingPackage(
        f"{who} needs the {noun} {', '.join(packages)}, which {'is' if len(packages) == 1 else 'are'} not installed; "
        f"install it with: {install_command(packages, extra)}"
    )

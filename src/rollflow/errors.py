"""Errors, whose text says what was wrong, what was expected and what to do; commands print each in one line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class RollflowError(Exception):
    """Base class of every error that a user can cause and fix.

    Errors can be pickled and copied with their text and attributes, whatever the arguments of their constructor.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, dict(vars(self)))


def _restored(kind: type[RollflowError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> RollflowError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(attributes)
    return error


class BadSetting(RollflowError, ValueError):
    """A setting or argument has the wrong type or is out of range; raised before anything is computed."""


class UnknownName(BadSetting):
    """A name is not in its registry."""


class UnknownOption(UnknownName, TypeError):
    """An argument of a call is not an option; as any call with an unknown argument it is a TypeError, too."""


class BudgetTooSmall(BadSetting):
    """The budget is too small for the method; ``smallest`` is the smallest that works.

    Args:
        method: Name of the search.
        nfe: Budget that was given.
        smallest: Smallest budget that works with the same settings.
    """

    def __init__(self, method: str, nfe: int, smallest: int) -> None:
        super().__init__(method, nfe, smallest)
        self.method = method
        self.nfe = nfe
        self.smallest = smallest

    def __str__(self) -> str:
        return (
            f"{self.method} cannot run in {self.nfe} NFE with these settings; the smallest budget is {self.smallest} "
            "NFE"
        )


class BudgetExceeded(RollflowError):
    """A request exceeds a cap of the meter; it was refused before anything was evaluated."""


class BadModel(RollflowError):
    """The network or decoder of a model raised an exception, or returned values that are not finite or misshapen."""


class BadReward(RollflowError):
    """A reward raised an exception, refused a sample, or did not return one finite number per sample."""


class RewardUnavailable(RollflowError):
    """A reward temporarily does not answer; its job ends with the best sample so far and can be resumed."""


class Stopped(RollflowError):
    """The user stopped the run."""


class BadWeights(RollflowError):
    """A weights file is missing, truncated or not what the network expects."""


class BadCheckpoint(RollflowError):
    """A checkpoint cannot be read, or belongs to another job."""


class FolderError(RollflowError):
    """A folder cannot be written to or read: the disk is full, or the folder was moved, deleted or locked."""


class MissingPackage(RollflowError):
    """A package is not installed that only some uses need; the text ends with the command that installs it."""


class NotDifferentiable(BadSetting):
    """Guidance was requested with a reward that is not differentiable."""


class RollflowWarning(UserWarning):
    """Something the user should know that does not stop the run."""


def unknown(what: str, name: str, known: Iterable[str], kind: type[UnknownName] = UnknownName) -> UnknownName:
    """Make the error for an unknown name, with a known one that begins like it or is the most similar."""
    names = sorted(known)
    begins = [one for one in names if one.startswith(f"{name}-")]
    near = begins or (difflib.get_close_matches(name, names, n=1, cutoff=0.5) if len(name) <= 80 else [])
    hint = f"did you mean '{near[0]}'? " if near else ""
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    listed = f"known: {', '.join(names)}" if names else "there are none"
    return kind(f"unknown {what} '{shown}'; {hint}{listed}")


def former_names(kind: str, **names: str) -> Callable[[object, str], Any]:
    """Make a ``__getattr__`` whose errors say what attributes of earlier releases are called now.

    Args:
        kind: Name of the class.
        names: Present name of each attribute, by its former one.
    """

    def missing(self: object, name: str) -> Any:
        if name in names:
            raise AttributeError(f"{kind}.{name} of earlier releases is now {kind}.{names[name]}", name=name, obj=self)
        return object.__getattribute__(self, name)  # raises again what made Python ask here

    return missing


EXTRAS = {
    "rewards": ("transformers", "accelerate", "sentencepiece", "google.protobuf", "httpx", "yaml"),
    "server": ("fastapi", "uvicorn", "httpx", "pydantic"),
    "bench": ("scipy", "jinja2", "yaml"),
    "diffusers": ("diffusers", "transformers", "accelerate", "sentencepiece", "google.protobuf", "ftfy"),
}
"""The modules that each extra of this package installs."""


def install_command(packages: Iterable[str], extra: str | None = None) -> str:
    """Return the command that installs packages: an extra of this package if there is one that has them.

    Double quotes are understood by every shell, including those of Windows.

    Args:
        packages: Names of modules.
        extra: Extra to prefer; None is the first that has all the packages.
    """
    wanted = sorted(set(packages))
    found = extra or extra_of(wanted)
    return f"pip install {' '.join(wanted)}" if found is None else f'pip install "rollflow[{found}]"'


def extra_of(packages: Iterable[str]) -> str | None:
    """Return the first extra that installs all these modules; None if there is none."""
    wanted = set(packages)
    return next((name for name, modules in EXTRAS.items() if wanted and wanted <= set(modules)), None)


def _root(module: str) -> str:
    return "google.protobuf" if module.startswith("google") else module.partition(".")[0]


def described(error: BaseException) -> str:
    """Describe an exception: its type and text, and what to do about a missing package or a lack of memory."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception without a readable text must not hide what happened
        text = ""
    if isinstance(error, ValueError) and type(error) is ValueError and text:
        return text
    if isinstance(error, ImportError) and error.name and "rollflow[" in (how := install_command([_root(error.name)])):
        return f"a package is missing: {text}; install it with: {how}"
    if isinstance(error, ImportError) and text:
        return text
    if isinstance(error, MemoryError) or "out of memory" in text:
        return f"out of memory{f': {text}' if text else ''}; ask for less at once, such as a smaller batch"
    if isinstance(error, SystemExit):
        return f"it called exit({'' if error.code is None else repr(error.code)}), which must not end the program"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class blamed:
    """Convert exceptions of other people's code to errors of this package that name the code.

    Errors of this package pass unchanged, and so does Ctrl-C. This is a class, since Ctrl-C can abandon a context
    before its end: an object is then just dropped, whereas a generator would be closed and see that as an error.

    Args:
        who: Beginning of the error: what failed, such as "reward 'mine:Sharp' cannot be created".
        kind: Class of the error; instead of a plain RollflowError, a ValueError becomes a BadSetting.
    """

    def __init__(self, who: str, kind: type[RollflowError] = RollflowError) -> None:
        self.who, self.kind = who, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or isinstance(error, RollflowError | KeyboardInterrupt):
            return
        # Whatever else it is, such as GeneratorExit, CancelledError or SystemExit.
        of = BadSetting if isinstance(error, ValueError) and self.kind is RollflowError else self.kind
        raise of(f"{self.who}: {described(error)}") from error

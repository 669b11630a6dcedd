"""A function as a reward: ``f(images, prompts)``, which scores pictures as PIL images, arrays or tensors."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor, nn

from rollflow import checks
from rollflow.canonical import canonical, digest
from rollflow.errors import BadReward, BadSetting, described
from rollflow.files.pictures import as_pictures, is_visible
from rollflow.registry import Registry
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import numbers_of

T = TypeVar("T")

RewardFunction: TypeAlias = Callable[[Any, Any], Any]
"""f(images, prompts): pictures and their prompts to one number each, as a list, an array or a tensor."""
ImageForm: TypeAlias = Literal["pil", "np", "pt"]
"""What a function receives, in the words of diffusers' ``output_type``: PIL images, an array, or a tensor."""
_LONGEST = 200
"""Longest text of a function in an identity, in characters; the digest of a longer one follows."""


class FunctionReward(RewardModel):
    """The scores that a function ``f(images, prompts)`` returns, as a list, an array or a tensor (B,).

    A function is accepted wherever a reward is: ``generate(..., reward=f)``, and ``--reward module:f``. It receives as
    ``images``

    - ``pil``: a list of PIL images, with the pixels of the saved file; for films a list of lists of frames;
    - ``np``: an array (B, H, W, 3), or (B, F, H, W, 3) for films, float32 in [0, 1];
    - ``pt``: a tensor of the decoded samples, (B, 3, H, W) or (B, F, 3, H, W) with pixels in [0, 1].

    The annotation of its first parameter decides which, as ``images: list[Image.Image]``, ``np.ndarray`` or
    ``torch.Tensor``; an ``nn.Module`` without one receives tensors. Anything else receives PIL images, or tensors where
    samples are neither pictures nor films. ``prompts`` is a list of strings.

    The score of a sample must not depend on the others in its call. Before a search, the function is tried on one and
    on two samples, outside the budget.

    The ``identity``, by which a checkpoint recognises its reward, covers the function's name, source, defaults and
    enclosed variables, and the global variables of its module that it reads, as that of ``FunctionModel`` does.

    Args:
        function: The function, or another object that can be called like it.
        images: Form of the images; None decides by the annotation.
        differentiable: Whether gradients flow from the scores to the images, which must then be tensors.
        batch_size: Largest number of samples in one call.
        name: Name in results; None means that of the function, with its module if a reward of the library has it.

    Raises:
        BadSetting: If it cannot be called as ``f(images, prompts)``, or a setting is wrong.
    """

    name = "function"
    description = "a function f(images, prompts)"
    loads_later = True

    def __init__(
        self,
        function: RewardFunction,
        *,
        images: ImageForm | None = None,
        differentiable: bool = False,
        batch_size: int = 64,
        name: str | None = None,
    ) -> None:
        if isinstance(function, type) or not callable(function):
            raise checks.refused("function of the reward", "a function f(images, prompts)", function)
        self.function = function
        self.name = _name(function) if name is None else checks.text("name of the reward", name)  # type: ignore[misc]
        _check_call(function, self.name)
        if images is not None:
            checks.one_of(f"images of reward '{self.name}'", images, typing.get_args(ImageForm))
        self.images = images
        self._form = images or _annotated(function)
        self.differentiable = checks.flag("differentiable", differentiable)  # type: ignore[misc]
        if self.differentiable and self._form != "pt":
            raise BadSetting(
                f"reward '{self.name}' is to be differentiable, for which it must receive tensors; annotate its first "
                "parameter as torch.Tensor, or give images='pt'"
            )
        self.batch_size = checks.whole("batch_size", batch_size, at_least=1)

    @classmethod
    def of(cls, function: RewardFunction) -> type[FunctionReward]:
        """Return the class of a function's rewards, whose settings are those of ``FunctionReward`` but the function."""
        own = _name(function)

        def init(
            self: FunctionReward,
            *,
            images: ImageForm | None = None,
            differentiable: bool = False,
            batch_size: int = 64,
            name: str = own,
        ) -> None:
            cls.__init__(self, function, images=images, differentiable=differentiable, batch_size=batch_size, name=name)

        doc = (inspect.getdoc(function) or cls.description) if inspect.isroutine(function) else cls.description
        described = {"name": own, "description": doc.partition("\n")[0], "__doc__": doc}
        return type(cls.__name__, (cls,), {"__init__": init, "__module__": __name__, **described})

    def __reduce__(self) -> Any:
        settings: dict[str, Any] = {name: getattr(self, name) for name in ("images", "differentiable", "batch_size")}
        return partial(FunctionReward, self.function, **settings, name=self.name), ()

    @property
    def identity(self) -> str:
        function = canonical(self.function)
        if not inspect.isroutine(self.function):
            function += canonical(type(self.function).__call__)
        if len(function) > _LONGEST:  # what it holds, such as the vocabulary of a tokenizer, may take megabytes
            function = f"{function[:_LONGEST]}... {digest(function)}"
        return f"{self.name}(function={function}, images={self._form})"

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        if self._form in ("pil", "np") and not is_visible(shape):
            return (
                f"the function receives pictures (3, H, W) or films (F, 3, H, W), got {shape}; annotate its first "
                "parameter as torch.Tensor to receive the samples as they are"
            )
        return None

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        why = self.unfit(tuple(samples.shape[1:]))
        if why is not None:
            raise BadReward(f"reward '{self.name}' cannot score these samples: {why}")
        form = self._form or ("pil" if is_visible(samples.shape[1:]) else "pt")
        try:
            scores = self.function(_converted(samples, form), list(prompts))
        except (AttributeError, TypeError) as error:
            if self._form is not None:
                raise
            received = "PIL images" if form == "pil" else "a tensor"
            raise BadReward(
                f"reward '{self.name}' failed: {described(error)}; it received {received}: annotate its first "
                "parameter (torch.Tensor, np.ndarray or list[Image.Image]) to choose"
            ) from error
        numbers = numbers_of(self, scores, len(samples))
        return numbers if self.differentiable else numbers.detach()


def as_reward(reward: T | RewardFunction) -> T | RewardModel:
    """Return a function as a ``FunctionReward``, and anything else unchanged, such as names, rewards and classes."""
    if isinstance(reward, RewardModel | str | type) or not callable(reward):
        return reward  # type: ignore[return-value]
    return FunctionReward(reward)


def _converted(samples: Tensor, form: str) -> Any:
    if form == "pt":
        return samples
    if form == "np":
        return samples.detach().float().cpu().movedim(-3, -1).numpy()
    return as_pictures(samples) if samples.ndim == 4 else [as_pictures(film) for film in samples]


def _name(function: Any) -> str:
    """Name a reward by its function, with the module in front if a reward of the library has this name."""
    while isinstance(function, partial):
        function = function.func
    if getattr(function, "__name__", None) == "__call__":
        function = function.__self__
    own = getattr(function, "__name__", None) or type(function).__name__
    name = "lambda" if own == "<lambda>" else str(own)
    taken = name in Registry.of[RewardModel] if RewardModel in Registry.of else False
    return f"{getattr(function, '__module__', None) or 'function'}.{name}" if taken else name


def _check_call(function: Any, name: str) -> None:
    """Raise a BadSetting if a function cannot be called as ``f(images, prompts)``."""
    call = type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        raise BadSetting(f"reward '{name}' is an async function; expected a plain one: def {name}(images, prompts)")
    try:
        signature = inspect.signature(_signed(function))
    except (TypeError, ValueError):  # of functions in C, which do not all have one
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise BadSetting(
            f"reward '{name}' has the parameters {signature}; expected a function of two, f(images, prompts), that "
            "returns one number per image"
        ) from None


def _signed(function: Any) -> Any:
    """Return what has the signature of a call: of a network its ``forward``."""
    return function.forward if isinstance(function, nn.Module) else function


_BY_NAME = {"Tensor": "pt", "ndarray": "np", "Image": "pil"}
_FORMS = {"pt": Tensor, "np": np.ndarray, "pil": Image.Image}


def _annotated(function: Any) -> str | None:
    """Return the form of images that the first parameter of a function is annotated with; None if with none."""
    default = "pt" if isinstance(function, nn.Module) else None
    signed = _signed(function)
    try:
        parameters = inspect.signature(signed, eval_str=True).parameters
    except Exception:  # an annotation that cannot be evaluated, such as a name that only type checkers import
        try:
            parameters = inspect.signature(signed).parameters
        except (TypeError, ValueError):
            return default
    first = next(iter(parameters.values()), None)
    if first is None or first.annotation is inspect.Parameter.empty:
        return default
    return _form(first.annotation) or default


def _form(annotation: Any) -> str | None:
    if annotation is Image:  # the module, which some annotate with in place of its class
        return "pil"
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return next((_BY_NAME[word] for word in re.findall(r"\w+", annotation) if word in _BY_NAME), None)
    inner = [form for form in map(_form, typing.get_args(annotation)) if form is not None]
    kind = getattr(annotation, "array_type", None) or typing.get_origin(annotation) or annotation  # jaxtyping has it
    own = next((form for form, base in _FORMS.items() if isinstance(kind, type) and issubclass(kind, base)), None)
    return own or next(iter(inner), None)

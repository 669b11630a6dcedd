"""From names to a sample in one call."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, overload

from rollflow.api.plan import Plan
from rollflow.api.together import run_together
from rollflow.engine import Observer, Result
from rollflow.options import PlanOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def generate(prompt: str, *, observers: Iterable[Observer] = (), **options: Unpack[PlanOptions]) -> Result: ...


@overload
def generate(
    prompt: list[str] | tuple[str, ...], *, observers: Iterable[Observer] = (), **options: Unpack[PlanOptions]
) -> list[Result]: ...


def generate(
    prompt: str | list[str] | tuple[str, ...],
    *,
    observers: Iterable[Observer] = (),
    **options: Unpack[PlanOptions],
) -> Result | list[Result]:
    """Search for the best sample for a prompt that ``nfe`` evaluations of the model can buy.

        result = generate("three cats on grass background", method="rbf", nfe=200)
        result.image.save("cats.png")
        result.reward, result.held_out, result.spent.nfe

    A list of prompts gives a list of results: one run, in which all searches share the calls of model and rewards.
    Each has the whole budget, and the result that it has alone.

    The options are those of ``Plan``, which describes them. A model given by name is loaded at every call: to call this
    often, load it once (``load_model``) and pass the object.

    Args:
        prompt: Description of the sample, or a list of them; a ``Prompt`` also holds the counts that rewards check.
        observers: Observers of every step.
        options: Options of the plan: ``model``, ``method``, ``as_published``, ``reward``, ``surrogate``, ``held_out``,
            ``choose_by``, ``shortlist``, ``nfe``, ``seed``, ``interpolant``, ``kernel``, ``steps``, ``grid``,
            ``lookahead``, ``guidance``, ``finish``, ``best_seen``, ``max_rows`` and ``max_grad_rows``.

    Raises:
        RollflowError: On bad input, before anything is loaded; also if the run fails (``BadModel``, ``BadReward``,
            ``BadWeights``) before any sample was scored. A later failure is a warning, and the ``cause`` of the
            interrupted result.
        ValueError: If the model cannot read the prompt.
        JobsFailed: If one of several searches failed before any of its samples was scored; ``results`` has the others.
        Interrupted: On Ctrl-C, with the best sample so far in ``results``.
    """
    if isinstance(prompt, list | tuple):
        return run_together(prompt, observers, **options)
    return Plan(prompt, **options).run(observers=observers)


def _signature() -> inspect.Signature:
    """Return the signature with every option of a plan, for ``help`` and notebooks."""
    own = inspect.signature(generate)
    plan = [one for one in inspect.signature(Plan).parameters.values() if one.name != "prompt"]
    parameters = [*list(own.parameters.values())[:1], *plan, own.parameters["observers"]]
    return own.replace(parameters=parameters)


generate.__signature__ = _signature()  # type: ignore[attr-defined]

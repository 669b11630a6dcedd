"""Searches for several prompts in one run, which share the loaded model, the rewards and their calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rollflow.api.plan import Plan, warn_of_early_end
from rollflow.engine import Engine, Observer, Result
from rollflow.errors import BadSetting

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from rollflow.options import PlanOptions


def run_together(
    prompts: Sequence[str], observers: Iterable[Observer] = (), **options: Unpack[PlanOptions]
) -> list[Result]:
    """Search for the best sample for each prompt; every search has the whole budget ``nfe`` and the same seed.

    Every result equals that of its prompt alone.

    Args:
        prompts: At least one prompt; all are checked before anything is loaded.
        observers: Observers of every step of every search.
        options: Options of ``Plan``.

    Returns:
        Results in the order of the prompts.

    Raises:
        RollflowError: As for ``generate``.
        JobsFailed: If a search failed before any of its samples was scored, after the others have ended; it has their
            ``results``.
        Interrupted: On Ctrl-C, with the best samples so far in ``results``.
    """
    if not prompts:
        raise BadSetting("the list of prompts is empty; give at least one prompt")
    first = Plan(prompts[0], **options)
    plans = [first, *(replace(first, prompt=prompt) for prompt in prompts[1:])]
    engine = Engine(first.max_rows, observers, max_grad_rows=first.max_grad_rows)  # checks before loading
    results = engine.run([plan.job(task=first.task) for plan in plans])
    for result in results:
        warn_of_early_end(result)
    return results

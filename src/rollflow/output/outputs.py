"""Writes the files of a run that a recorder observed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollflow.engine import Result
from rollflow.engine.checkpoint.file import fingerprint
from rollflow.engine.record import plain
from rollflow.engine.result import FILM as FILM
from rollflow.engine.result import IMAGE as IMAGE
from rollflow.engine.result import job_digest
from rollflow.errors import RollflowWarning
from rollflow.files.atomic import trouble
from rollflow.files.pictures import is_film, sample_files
from rollflow.files.run_folder import RESULT as RESULT
from rollflow.files.run_folder import RunFolder
from rollflow.output.overoptimization import Judged
from rollflow.output.overoptimization import warnings as overoptimized
from rollflow.output.recorder import Recorder
from rollflow.runtime import interruption

BASELINE, TRACE, FILMSTRIP = "baseline.png", "trace.png", "filmstrip.png"
BASELINE_FILM = "baseline.webp"
_PLOTTING = 3.0
"""Longest time, in seconds, that the plots of an interrupted run may take."""

PICTURES = (IMAGE, FILM, BASELINE, BASELINE_FILM, TRACE, FILMSTRIP)


def summary(
    result: Result, recorder: Recorder, seconds: float, baseline: Result | None = None, path: Sequence[Judged] = ()
) -> dict[str, Any]:
    """Return the content of ``result.json``: ``Result.content`` and the observations of the search.

    Args:
        result: Result of the search.
        recorder: Observer of the search.
        seconds: Duration of the search, without loading.
        baseline: Plain sample to compare with, if there is one.
        path: Path that led to the result, with held-out scores; empty unless these were requested.
    """
    content = result.content() | {"seconds": round(seconds, 3), "quota": recorder.quota}
    content["warnings"] += overoptimized(result, baseline, path)
    if path:
        content["path"] = [[level, plain(reward), plain(held_out)] for level, reward, held_out in path]
    if baseline is not None:
        content["baseline"] = {
            "image": BASELINE,
            **({"film": BASELINE_FILM} if is_film(baseline.sample) else {}),
            "reward": None if result.job.task.reward.relative else plain(baseline.reward),
            **({"parts": plain(baseline.parts)} if baseline.parts else {}),
            "held_out": plain(baseline.held_out),
            "nfe_used": baseline.spent.nfe,
            "plan": baseline.job.plan,
        }
    return content


def choice(content: Mapping[str, Any], name: str) -> str:
    """Return a choice of a run as the command line writes it, such as ``ddim(eta=0.5)``.

    Args:
        content: Content of its ``result.json``.
        name: Name of the option, such as ``kernel``.
    """
    plan = content.get("plan")
    text = plan.get(name) if isinstance(plan, Mapping) else None
    return text if isinstance(text, str) else str(content.get(name))


def write_run(
    folder: Path,
    result: Result,
    recorder: Recorder,
    seconds: float,
    baseline: Result | None = None,
) -> dict[str, Any]:
    """Write all files of a run and return the content of ``result.json``; the arguments are those of ``summary``.

    Raises:
        FolderError: If another run is writing to the folder.
        OSError: If the files cannot be written.
    """
    with RunFolder(folder) as out:
        return save_run(out, result, recorder, seconds, baseline)


def save_run(
    out: RunFolder,
    result: Result,
    recorder: Recorder,
    seconds: float,
    baseline: Result | None = None,
    path: Callable[[], Sequence[Judged]] | None = None,
) -> dict[str, Any]:
    """Write all files of a run and return the content of ``result.json``.

    The sample and ``result.json`` are written first and are on disk before anything else is tried: a failure to draw or
    write the plots causes a warning and nothing else. Rollflow's own pictures of an earlier run that this one does not
    replace are removed, so that nobody takes them for its own; files of the user are neither replaced nor removed. The
    plots of an interrupted run are left out if they take long, or after another Ctrl-C.

    Args:
        out: Output folder.
        result: Result of the search.
        recorder: Observer of the search.
        seconds: Duration of the search, without loading.
        baseline: Plain sample to compare with, if there is one.
        path: Function that scores the path that led to the result, called after everything else is written; None does
            not score it.

    Raises:
        OSError: If the sample and ``result.json`` cannot be written.
    """
    names, job = {name: out.free(name) for name in PICTURES}, job_digest(fingerprint(result.job))

    def content(path: Sequence[Judged] = ()) -> dict[str, Any]:
        summed = summary(result, recorder, seconds, baseline, path)
        for part in (summed, summed.get("baseline", {})):
            part.update({key: names[part[key]] for key in ("image", "film") if key in part})
        return summed | {"job": job}

    files = sample_files(result.sample, names[IMAGE], names[FILM])
    if baseline is not None:
        files |= sample_files(baseline.sample, names[BASELINE], names[BASELINE_FILM])
    with interruption.shielded():
        written = out.keep(content(), files)
        out.remove_earlier()
    interruption.check()
    drawn = {}
    try:
        with interruption.skippable(_PLOTTING):
            drawn = _plots(result, recorder, baseline, names)
    except KeyboardInterrupt:
        if not result.interrupted:
            raise
    scored = path() if path is not None else ()
    if drawn or scored:
        try:
            with interruption.shielded():
                written = out.keep(content(scored), drawn)
        except OSError as error:
            _warn(f"the plots could not be written: {trouble(out.path, error)}")
    return written


def _plots(result: Result, recorder: Recorder, baseline: Result | None, names: Mapping[str, str]) -> dict[str, bytes]:
    """Draw the plots of a run; warn and return none if they cannot be drawn."""
    try:
        from rollflow.output import plots  # matplotlib is slow to import: only when the search is done

        with plots.style():
            trace = plots.figure_png(plots.trace(result, recorder, baseline))
            return {names[TRACE]: trace, names[FILMSTRIP]: plots.figure_png(plots.filmstrip(result, recorder))}
    except Exception as error:
        _warn(f"the plots could not be drawn: {type(error).__name__}: {error}")
        return {}


def _warn(message: str) -> None:
    warnings.warn(f"{message}; the sample and result.json are written", RollflowWarning, stacklevel=3)

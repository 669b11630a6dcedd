"""The files of a run, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rollflow
from rollflow import prompts
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import KERNELS
from rollflow.engine import Result
from rollflow.engine.checkpoint import fingerprint
from rollflow.errors import RollflowWarning
from rollflow.files.atomic import trouble
from rollflow.files.pictures import is_film, picture, png, still, webp
from rollflow.output.overoptimization import Judged
from rollflow.output.overoptimization import warnings as overoptimized
from rollflow.output.recorder import Recorder
from rollflow.output.run_folder import RESULT as RESULT
from rollflow.output.run_folder import RunFolder
from rollflow.runtime import interruption
from rollflow.search import SEARCHES

IMAGE, BASELINE, TRACE, FILMSTRIP = "image.png", "baseline.png", "trace.png", "filmstrip.png"
FILM, BASELINE_FILM = "film.webp", "baseline.webp"
_PLOTTING = 3.0
"""Seconds that the plots of an interrupted run may take."""

PICTURES = (IMAGE, FILM, BASELINE, BASELINE_FILM, TRACE, FILMSTRIP)


def _name(thing: object, registry: Mapping[str, type]) -> str:
    """The registered name of an object with default settings, else its settings in full."""
    names = [name for name, kind in registry.items() if type(thing) is kind and thing == kind()]
    return names[0] if names else repr(thing)


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity; a held-out reward may be either."""
    return value if math.isfinite(value) else None


def _numbers(rewards: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(reward) for name, reward in rewards.items()}


def summary(
    result: Result, recorder: Recorder, seconds: float, baseline: Result | None = None, path: Sequence[Judged] = ()
) -> dict[str, Any]:
    """The content of ``result.json``.

    Args:
        result: Of the search.
        recorder: That watched it.
        seconds: That it took, loading not included.
        baseline: The plain sample to compare with, if one was made.
        path: That led to the result, scored by the held-out rewards, if that was asked for.
    """
    job, spent = result.job, result.spent
    structured = any(reward.structured for reward in (job.task.reward, *job.task.held_out))
    content: dict[str, Any] = {
        "prompt": job.task.prompt,
        **({"ask": prompts.asked(job.task.prompt)} if structured else {}),
        "model": job.task.model.name,
        "method": _name(job.search, SEARCHES),
        "interpolant": _name(job.sampler.interpolant, INTERPOLANTS),
        "kernel": _name(job.sampler.kernel, KERNELS),
        "steps": job.sampler.steps,
        "seed": job.seed,
        "nfe_budget": job.nfe,
        "nfe_used": spent.nfe,
        "network_rows": spent.network_rows,
        "reward_calls": spent.reward_calls,
        "decodes": spent.decodes,
        "backward_passes": spent.backward_passes,
        "reward_name": job.task.reward.name,
        "reward": _number(result.reward),
        **({"parts": _numbers(result.parts)} if result.parts else {}),
        "held_out": _numbers(result.held_out),
        **({"missing": result.missing} if result.missing else {}),
        "warnings": [*result.warnings, *overoptimized(result, baseline, path)],
        **({"ineligible": result.ineligible} if result.ineligible else {}),
        "finished": result.finished,
        "noise_level": result.noise_level,
        "interrupted": result.interrupted,
        **({"cause": str(result.cause)} if result.cause is not None else {}),
        "image": IMAGE,
        **({"film": FILM} if is_film(result.sample) else {}),
        "seconds": round(seconds, 3),
        "trace": [[point.nfe, _number(point.reward)] for point in result.trace],
        "quota": recorder.quota,
        **({"path": [[level, _number(reward), _numbers(told)] for level, reward, told in path]} if path else {}),
        "versions": {
            "rollflow": rollflow.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    if baseline is not None:
        content["baseline"] = {
            "image": BASELINE,
            **({"film": BASELINE_FILM} if is_film(baseline.sample) else {}),
            "reward": None if job.task.reward.relative else _number(baseline.reward),
            **({"parts": _numbers(baseline.parts)} if baseline.parts else {}),
            "held_out": _numbers(baseline.held_out),
            "nfe_used": baseline.spent.nfe,
        }
    return content


def _shown(sample: Tensor, image: str, film: str) -> dict[str, bytes]:
    """Files of a sample; of a film a still picture and all of it."""
    files = {image: png(picture(still(sample)))}
    return {**files, film: webp(sample)} if is_film(sample) else files


def job_digest(fingerprint: Mapping[str, str]) -> str:
    """What tells the results of one job from those of another."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()


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
        OSError: If they cannot be written.
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

    Sample and account come first, and are on disk before anything else is tried: plots that cannot be drawn or written
    are warned of and cost nothing else. Rollflow's own pictures of an earlier run that this one does not make are
    removed, lest they be taken for its own; files of the user are neither replaced nor removed. Of an interrupted run
    the plots are left out when they take long, or at one more Ctrl-C.

    Args:
        out: Where they go.
        result: Of the search.
        recorder: That watched it.
        seconds: That it took, loading not included.
        baseline: The plain sample to compare with, if one was made.
        path: Scores the path that led to the result, after all else is written; None leaves it out.

    Raises:
        OSError: If sample and account cannot be written.
    """
    names, job = {name: out.free(name) for name in PICTURES}, job_digest(fingerprint(result.job))

    def content(path: Sequence[Judged] = ()) -> dict[str, Any]:
        told = summary(result, recorder, seconds, baseline, path)
        for part in (told, told.get("baseline", {})):
            part.update({key: names[part[key]] for key in ("image", "film") if key in part})
        return told | {"job": job}

    files = _shown(result.sample, names[IMAGE], names[FILM])
    if baseline is not None:
        files |= _shown(baseline.sample, names[BASELINE], names[BASELINE_FILM])
    with interruption.shielded():
        told = out.keep(content(), files)
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
                told = out.keep(content(scored), drawn)
        except OSError as error:
            _warn(f"the plots could not be written: {trouble(out.path, error)}")
    return told


def _plots(result: Result, recorder: Recorder, baseline: Result | None, names: Mapping[str, str]) -> dict[str, bytes]:
    """The plots of a run; none where they cannot be drawn, which is warned of."""
    try:
        from rollflow.output import plots  # matplotlib is slow to load: not before the search is done

        with plots.style():
            trace = plots.figure_png(plots.trace(result, recorder, baseline))
            return {names[TRACE]: trace, names[FILMSTRIP]: plots.figure_png(plots.filmstrip(result, recorder))}
    except Exception as error:
        _warn(f"the plots could not be drawn: {type(error).__name__}: {error}")
        return {}


def _warn(message: str) -> None:
    warnings.warn(f"{message}; the sample and result.json are written", RollflowWarning, stacklevel=3)

"""The files of a run, written whole or not at all."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rollflow
from rollflow import interruption, prompts
from rollflow.engine import Result
from rollflow.files.atomic import write
from rollflow.interpolants import INTERPOLANTS
from rollflow.kernels import KERNELS
from rollflow.report.overoptimization import Judged, warnings
from rollflow.report.pictures import is_film, picture, png, still, webp
from rollflow.report.recorder import Recorder
from rollflow.search import SEARCHES

IMAGE, BASELINE, TRACE, FILMSTRIP, RESULT = "image.png", "baseline.png", "trace.png", "filmstrip.png", "result.json"
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
        "warnings": [*result.warnings, *warnings(result, baseline, path)],
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


def encode(content: Mapping[str, Any]) -> str:
    """Strict JSON, one key a line, lists of numbers on one."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _shown(sample: Tensor, image: str, film: str) -> dict[str, bytes]:
    """Files of a sample; of a film a still picture and all of it."""
    files = {image: png(picture(still(sample)))}
    return {**files, film: webp(sample)} if is_film(sample) else files


def write_run(
    folder: Path,
    result: Result,
    recorder: Recorder,
    seconds: float,
    baseline: Result | None = None,
) -> dict[str, Any]:
    """Write all files of a run and return the content of ``result.json``; the arguments are those of ``summary``.

    Sample and account come first, so that a failure to draw the plots loses neither. Pictures that an earlier run
    left and that this one does not make are removed, lest they be taken for its own. Of an interrupted run the plots
    are left out when they take long, or at one more Ctrl-C.
    """
    from rollflow.report import plots  # matplotlib is slow to load: not before the search is done

    content = summary(result, recorder, seconds, baseline)
    files = _shown(result.sample, IMAGE, FILM)
    if baseline is not None:
        files |= _shown(baseline.sample, BASELINE, BASELINE_FILM)
    with interruption.shielded():
        write(folder, {**files, RESULT: encode(content).encode()})
        for name in PICTURES:
            if name not in files:
                (folder / name).unlink(missing_ok=True)
    interruption.check()
    try:
        with interruption.skippable(_PLOTTING):
            trace = plots.trace(result, recorder, baseline)
            write(folder, {TRACE: plots.png(trace), FILMSTRIP: plots.png(plots.filmstrip(result, recorder))})
    except KeyboardInterrupt:
        if not result.interrupted:
            raise
    return content

"""Plots of a search: where its budget went and how its sample developed.

Figures are drawn without pyplot, so that no global state changes and no display is needed.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollflow.engine import Result, in_lockstep
from rollflow.files.own import GENERATOR
from rollflow.files.pictures import still
from rollflow.output.recorder import Recorder

_FRAMES_A_ROW = 12


def short(text: str, most: int = 60) -> str:
    """Shorten a label to one line that can be drawn; names may come from anyone."""
    line = " ".join(text[: 2 * most].split())
    return line if len(line) <= most and len(text) <= 2 * most else f"{line[: most - 3]}..."


@contextmanager
def style() -> Iterator[None]:
    """Use matplotlib's defaults, and treat every label as plain text.

    A ``matplotlibrc`` in the working directory, which takes precedence over any other, has no effect: the working
    directory may be somebody else's folder. Labels between dollar signs are not parsed as mathematics.
    """
    defaults = {**matplotlib.rcParamsDefault, "text.parse_math": False}
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcParams.update({name: value for name, value in defaults.items() if name != "backend"})
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def figure_png(figure: Figure) -> bytes:
    """Encode a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": GENERATOR})
    return buffer.getvalue()


def trace(result: Result, recorder: Recorder, baseline: Result | None = None) -> Figure:
    """Plot rewards against NFE (dots: every score; line: the best so far), and the NFE per step of each chain."""
    figure = Figure(figsize=(10, 3.8), dpi=120, layout="constrained")
    rewards, quotas = figure.subplots(1, 2)
    name = short(result.job.task.objective.name)
    rewards.plot(
        [in_lockstep(point.nfe, result.shares) for point in recorder.points],
        [point.reward for point in recorder.points],
        ".",
        color="0.75",
        markersize=4,
        label="scored",
    )
    nfe, best = [point.nfe for point in result.trace], [point.reward for point in result.trace]
    rewards.step(nfe, best, where="post", color="C0", label="best so far")
    rewards.plot(result.spent.nfe, result.objective, "o", color="C1", label="result", clip_on=False)
    if baseline is not None:
        rewards.axhline(baseline.objective, color="C2", linestyle="--", label="baseline")
    rewards.set(xlabel="NFE", ylabel=f"reward '{name}'", title="Reward against budget")
    rewards.set_xlim(0, max(result.job.nfe, 1))
    rewards.legend(fontsize="small")

    chains = recorder.quota
    width = 0.8 / max(len(chains), 1)
    for i, spent in enumerate(chains):
        places = [step + (i - (len(chains) - 1) / 2) * width for step in range(len(spent))]
        quotas.bar(places, spent, width, color=f"C{i}", label=f"chain {i + 1}")
    quotas.xaxis.set_major_locator(MaxNLocator(integer=True))
    quotas.set(xlabel="step, from noise to data", ylabel="NFE", title="NFE spent on each step")
    if len(chains) > 1:
        quotas.legend(fontsize="small")
    return figure


def filmstrip(result: Result, recorder: Recorder) -> Figure:
    """Plot the decoded clean estimates on the path to the result, each with its noise level and reward."""
    frames = recorder.path(result)
    pictures = result.job.task.model.screened(torch.stack([frame.x0 for frame in frames])).samples
    columns = min(len(frames), _FRAMES_A_ROW)
    rows = math.ceil(len(frames) / columns)
    figure = Figure(figsize=(1.5 * columns, 2.1 * rows), dpi=120, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, frame, sample in zip(grid.flat, frames, pictures, strict=False):
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        shown = still(sample).detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
        axes.imshow(shown, interpolation="nearest")  # small pictures are shown by their own pixels
        reward = "not scored" if math.isnan(frame.reward) else f"reward {frame.reward:.3g}"
        level = "finished" if frame.noise_level == 0 else f"noise {frame.noise_level:.2f}"
        axes.set_xlabel(f"{level}\n{reward}", fontsize="small")
    grid.flat[len(frames) - 1].set_title("result", fontsize="small", fontweight="bold")
    return figure

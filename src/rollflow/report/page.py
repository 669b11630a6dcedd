"""Report of an experiment as one self-contained HTML file, without scripts or references to other files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from rollflow.bench.analysis.estimates import best_so_far, budget_shares, effective_sizes, largest, over_optimised
from rollflow.bench.analysis.results import ExperimentResults, prompt_of
from rollflow.bench.analysis.scaling import against_budget
from rollflow.bench.probes.plots import budgets
from rollflow.bench.run.reading import inside
from rollflow.bench.run.records import FailedJob
from rollflow.engine import JobRecord
from rollflow.extras import requiring
from rollflow.files.media import BadPicture, open_picture
from rollflow.output import plots
from rollflow.report import figures
from rollflow.report.citations import cited
from rollflow.report.tables import BEST_SO_FAR_NOTE, BUDGETS_NOTE, EVEN_TIME_NOTE, seconds_note
from rollflow.report.typeset import Table, shown

THUMBNAIL = 320
"""Largest side of a picture in the gallery, in pixels."""
MOST_PIXELS = 1 << 24
"""Largest size of a picture that is shown, in pixels."""
MOST_LINKS = 10_000
"""Largest number of links between parents and children in a genealogy that is drawn."""
BANDS_NOTE = "Bands are pointwise 95 % intervals over prompts, as in the tables."


class Shown(NamedTuple):
    """A figure of the report.

    Args:
        section: Section that the figure belongs to.
        uri: Picture as a data URI.
        alt: Description of the picture for readers who cannot see it.
        caption: Caption below the picture.
    """

    section: str
    uri: str
    alt: str
    caption: str


class Tile(NamedTuple):
    """A picture of the gallery, or the reason why there is none.

    Args:
        arm: Arm of the job.
        uri: Picture as a data URI; None if there is none.
        text: Rewards of the picture, or what became of the job.
    """

    arm: str
    uri: str | None
    text: str


class Row(NamedTuple):
    """Pictures of all arms for one prompt and seed.

    Args:
        prompt: Text of the prompt.
        seed: Seed within the experiment.
        tiles: Picture of each arm.
    """

    prompt: str
    seed: int
    tiles: list[Tile]


def page(results: ExperimentResults, tables: Sequence[Table], gallery: int = 8) -> str:
    """Return the report of an experiment as HTML.

    Args:
        results: Results of the experiment.
        tables: Tables of the experiment, as returned by ``report.tables.tables``.
        gallery: Number of prompts and seeds to show in pictures.

    Raises:
        RollflowError: If jinja2 is not installed.
    """
    with requiring("a report", "bench"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(
        loader=PackageLoader("rollflow.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["shown"] = shown
    with plots.style():
        drawn = list(_figures(results))
    return environment.get_template("experiment.html.j2").render(
        results=results,
        tables=tables,
        figures=drawn,
        over_optimised=over_optimised(results),
        gallery=rows(results, gallery),
        prompts=list({prompt_of(record): record.prompt for record in results.ended}.values()),
        settings=json.dumps(results.config, indent=1, ensure_ascii=False),
        versions=sorted({_versions(record) for record in results.done}),
        citations=cited(results.config),
    )


def _versions(record: JobRecord) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.versions.items())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _figures(results: ExperimentResults) -> Iterator[Shown]:
    searches = "one line an arm, with some of its numbers in the table at equal cost"
    for field, unit in (("nfe", "NFE"), ("seconds", "seconds")):
        most, seconds = largest(results, field), field == "seconds"
        if most > 0:
            ends = [max((getattr(record, field) for record in results.of(arm)), default=most) for arm in results.arms]
            curves = best_so_far(results, np.union1d(np.linspace(0, most, 201)[1:], ends), seconds=seconds)
            drawn = figures.lines(curves, results.arms, unit, f"best {results.given.name} so far")
            timed = f" {seconds_note(results)} {EVEN_TIME_NOTE}" if seconds else ""
            caption = f"{BEST_SO_FAR_NOTE}{timed} {BANDS_NOTE}"
            alt = f"Best {results.given.name} so far against {unit}: {searches}."
            yield Shown("cost", _uri("png", plots.figure_png(drawn)), alt, caption)
    yield from _scaling(results)
    yield from _shares(results)
    for judge in results.held_out:
        uri = _uri("png", plots.figure_png(figures.scatter(results, judge)))
        caption = (
            "A dot a prompt, its seeds averaged; means of arms with 95 % intervals over prompts, as in the tables."
        )
        yield Shown("held-out", uri, f"{judge.label} against {results.given.label}, arm by arm.", caption)
    yield from _sequential(results)


def _scaling(results: ExperimentResults) -> Iterator[Shown]:
    for measure in (results.given, *results.held_out):
        curves = {family: curve for family, curve in against_budget(results, measure).items() if curve}
        if curves:
            uri = _uri("png", plots.figure_png(budgets(curves, {}, measure.label)))
            caption = f"{BUDGETS_NOTE} {BANDS_NOTE}"
            alt = f"{measure.label} of the sample returned against budget: one line a method and dynamics."
            yield Shown("scaling", uri, alt, caption)


def _shares(results: ExperimentResults) -> Iterator[Shown]:
    by_arm = {arm: shares for arm in results.arms if (shares := budget_shares(results.of(arm))) is not None}
    if by_arm:
        curves = {arm: shares.curve for arm, shares in by_arm.items()}
        drawn = figures.lines(curves, results.arms, "step, from noise to data", "share of NFE", whole=True)
        left_out = sum(shares.left_out for shares in by_arm.values())
        resumed = f" {left_out} jobs that were resumed are left out." if left_out else ""
        caption = f"Of the NFE spent on steps, finishing left out. {BANDS_NOTE}{resumed}"
        uri = _uri("png", plots.figure_png(drawn))
        yield Shown("budget", uri, "Share of the budget that each step took: one line an arm.", caption)


def _sequential(results: ExperimentResults) -> Iterator[Shown]:
    sizes = {arm: curve for arm in results.arms if (curve := effective_sizes(results.of(arm))) is not None}
    if sizes:
        drawn = figures.lines(sizes, results.arms, "weighting", "effective sample size", whole=True)
        uri = _uri("png", plots.figure_png(drawn))
        yield Shown("sequential", uri, "Effective sample size after every weighting: one line an arm.", BANDS_NOTE)
    for arm in sizes:
        record = next((record for record in results.of(arm) if _has_genealogy(record)), None)
        if record is not None and record.ancestors is not None:
            uri = _uri("png", plots.figure_png(figures.genealogy(record.ancestors[0])))
            caption = f"{arm}, '{record.prompt}', seed {record.seed}: in colour the lines that reach the end."
            yield Shown("sequential", uri, f"Genealogy of the particles of one job of {arm}.", caption)


def _has_genealogy(record: JobRecord) -> bool:
    """Return whether a job's genealogy is known and small enough to be drawn."""
    ancestors = record.ancestors
    if not ancestors or not any(ancestors):
        return False
    return sum(len(parents) for parents in figures.parents_of(ancestors[0])) <= MOST_LINKS


def rows(results: ExperimentResults, count: int) -> list[Row]:
    """Return the first ``count`` prompts and seeds of the experiment, each with the pictures of all arms."""
    jobs: dict[tuple[int, str], dict[str, JobRecord | FailedJob]] = {}
    for record in sorted(results.ended, key=lambda record: (record.seed, record.place)):
        jobs.setdefault((record.seed, prompt_of(record)), {})[record.arm] = record
    gallery = []
    for (seed, _), by_arm in list(jobs.items())[:count]:
        prompt = next(iter(by_arm.values())).prompt
        gallery.append(Row(prompt, seed, [_tile(results, arm, by_arm.get(arm)) for arm in results.arms]))
    return gallery


def _tile(results: ExperimentResults, arm: str, record: JobRecord | FailedJob | None) -> Tile:
    if record is None:
        return Tile(arm, None, "not done")
    if isinstance(record, FailedJob):
        return Tile(arm, None, f"failed: {record.error}")
    values = [(measure.label, measure.of(record)) for measure in results.rewards if not measure.accuracy]
    parts = [f"{label} {'not known' if value is None else format(value, '.4g')}" for label, value in values]
    picture = None if results.pictures is None else _thumbnail(results.pictures, f"images/{record.id}.png")
    if results.pictures is None:
        lacking = [f"rollflow replay makes its picture, job {record.id}"]
    else:
        lacking = [] if picture else ["its picture is missing or cannot be used"]
    parts += [f"{record.nfe} NFE", *lacking]
    return Tile(arm, picture, "; ".join(parts))


def _thumbnail(folder: Path, name: str) -> str | None:
    """Return a picture of an untrusted folder as a data URI, in the size of the gallery.

    Small pictures are enlarged by a whole factor, each pixel to a square, without loss. The result is None if the
    picture is missing, broken, too large or outside the folder.
    """
    buffer = io.BytesIO()
    try:
        with open_picture(inside(folder, name), max_pixels=MOST_PIXELS, formats=["PNG"]) as image:
            small = image.convert("RGB")
        factor = THUMBNAIL // max(small.size)
        if factor > 0:
            small = small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)
        else:
            small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.save(buffer, "WEBP", quality=90, lossless=factor > 0)
    except (OSError, ValueError, BadPicture):
        return None
    return _uri("webp", buffer.getvalue())

"""A result as a notebook shows it: the picture, the rewards, the account, and the trace of the search."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from rollflow.engine.state import Point
from rollflow.files.media import FRAME_MILLISECONDS
from rollflow.files.pictures import is_visible, pictures

_SIDE = 320
"""Longest side of a shown picture, in pixels; smaller ones are enlarged, with hard edges."""
_WIDTH, _HEIGHT = 320, 120
"""Size of the trace, in pixels."""
_ROW = "<tr><th style='text-align:left'>{}</th><td style='text-align:left'>{}</td></tr>"


def result_html(content: Mapping[str, Any], sample: Tensor, trace: Sequence[Point]) -> str:
    """Return a fragment of HTML that needs nothing from outside it and holds no script.

    Args:
        content: Description of the result (``Result.to_dict``).
        sample: The decoded sample.
        trace: Best score so far by what the search optimises, against NFE.
    """
    scores = [(content["reward_name"], content["reward"])]
    if "surrogate_name" in content:
        scores.append((f"surrogate {content['surrogate_name']}", content.get("surrogate")))
    if "chosen_by" in content:
        scores.append((f"chosen by {content['chosen_by']}", content.get("chosen")))
    scores += content.get("parts", {}).items()
    scores += [(f"held out: {name}", score) for name, score in content["held_out"].items()]
    ended = " (interrupted)" if content["interrupted"] else ""
    rows = [
        ("prompt", content["prompt"]),
        *((name, "missing" if score is None else f"{score:.6g}") for name, score in scores),
        ("NFE", f"{content['nfe_used']} of {content['nfe_budget']}{ended}"),
        *((name, str(content[name])) for name in ("method", "model", "seed")),
        *(("warning", text) for text in content["warnings"]),
    ]
    objective = content.get("surrogate_name", content["reward_name"])
    return (
        "<div style='display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start'>"
        f"{_picture(sample, content['prompt'])}<div><table>{_table(rows)}</table>"
        f"{_trace(trace, content['nfe_budget'], objective)}</div></div>"
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(_ROW.format(html.escape(name), html.escape(text)) for name, text in rows)


def _picture(sample: Tensor, prompt: str) -> str:
    """Return a small copy of a picture or film, or the shape of a sample that is neither."""
    if not is_visible(sample.shape):
        return f"<code>sample of shape {tuple(sample.shape)}</code>"
    frames = pictures(sample)
    scale = _SIDE / max(frames[0].size)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in frames[0].size)
        frames = [frame.resize((size[0], size[1]), Image.Resampling.LANCZOS) for frame in frames]
    kind, buffer = ("PNG", io.BytesIO()) if len(frames) == 1 else ("WEBP", io.BytesIO())
    if kind == "PNG":
        frames[0].save(buffer, kind)
    else:
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=FRAME_MILLISECONDS, loop=0)
    content = base64.b64encode(buffer.getvalue()).decode()
    side = "width" if frames[0].width >= frames[0].height else "height"
    style = f"{side}:{_SIDE}px{';image-rendering:pixelated' if scale > 1 else ''}"
    alt = html.escape(prompt, quote=True)
    return f'<img src="data:image/{kind.lower()};base64,{content}" style="{style}" alt="{alt}">'


def _trace(trace: Sequence[Point], budget: int, reward: str) -> str:
    """Draw the best score so far against NFE; nothing if there are no two scores to compare."""
    points = [point for point in trace if math.isfinite(point.reward)]
    if len(points) < 2:
        return ""
    low, high = min(point.reward for point in points), max(point.reward for point in points)

    def place(point: Point) -> tuple[str, str]:
        height = 0.5 if high == low else (point.reward - low) / (high - low)
        return f"{point.nfe / max(budget, 1) * _WIDTH:.1f}", f"{_HEIGHT - 4 - height * (_HEIGHT - 8):.1f}"

    x, y = place(points[0])
    path = [f"M{x} {y}", *(f"H{x}V{y}" for x, y in map(place, points[1:]))]
    label = html.escape(f"best {reward} so far, {low:.4g} to {high:.4g}, against NFE, 0 to {budget}")
    return (
        f'<figure style="margin:.5em 0"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{label}"><path d="{"".join(path)}" fill="none" stroke="#1f77b4" stroke-width="2"/>'
        f"</svg><figcaption>{label}</figcaption></figure>"
    )

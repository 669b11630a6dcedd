"""Draw the README's second picture, best of N and the default search with equal budgets: python tools/equal_nfe.py

One prompt and one seed, chosen before the first picture was drawn: the first hard tuning prompt of scenes-quantity, and
seed 0. Below each picture is its given reward, and whether the held-out judge finds every count right.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import rollflow
from rollflow.bench.suites.load import load
from rollflow.files.pictures import picture
from rollflow.output.plots import figure_png, style

OUT = Path(__file__).parents[1] / "docs/images/equal-nfe.png"
ROWS: dict[str, dict[str, Any]] = {
    "best of N": {"method": "bon", "interpolant": "linear", "kernel": "ode"},
    "auto": {"method": "auto"},
}


def drawn(model: str, prompt: str, seed: int, budgets: list[int]) -> Figure:
    """Return the figure: a row for each search, a column for each budget."""
    figure = Figure(figsize=(1.5 * len(budgets), 1.75 * len(ROWS) + 0.3), dpi=100, layout="constrained")
    figure.suptitle(prompt, fontsize="small")
    panels = figure.subplots(len(ROWS), len(budgets), squeeze=False)
    for line, (label, options) in zip(panels, ROWS.items(), strict=True):
        for axes, nfe in zip(line, budgets, strict=True):
            result = rollflow.generate(
                prompt, model=model, reward="caption", held_out=["judge"], nfe=nfe, seed=seed, **options
            )
            axes.imshow(picture(result.sample), interpolation="nearest")
            verdict = "right" if result.held_out["judge"] == 0 else "wrong"
            axes.set_xlabel(f"{result.reward:.3f}, {verdict}", fontsize="x-small")
            axes.set_xticks([])
            axes.set_yticks([])
            if label == next(iter(ROWS)):
                axes.set_title(f"{nfe} NFE", fontsize="small")
        line[0].set_ylabel(label, fontsize="small")
    return figure


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-base", help="flow model")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws")
    parser.add_argument("--nfe", default="25,50,100,200", help="budgets, separated by commas")
    parser.add_argument("--out", type=Path, default=OUT, help="PNG file to write")
    given = parser.parse_args(argv)
    prompt = load("scenes-quantity").only("hard").split("tuning").items[0].prompt
    with style():
        figure = drawn(given.model, prompt, given.seed, [int(nfe) for nfe in given.nfe.split(",")])
        given.out.write_bytes(figure_png(figure))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the adapter and the engine add to the transformer's time: python tools/overhead.py

FLUX pipelines of random weights, of the larger of which a call of one row takes 50 ms or more, sampled by BestOfN with
the SDE kernel. Everything is timed in one run: the time that the engine takes as a whole, and inside it the time in the
transformer; the rest is what is added, in the pipeline's own call, the adapter, the kernel and the engine. The prompt's
encoding and decoding are left out, since any program has to do them. Beside it the transformer is called in a bare loop
on the inputs of the pipeline's own calls, in turn with the runs, to show that a call takes as long there.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/pipelines"))

import diffusers
from families import flux
from families.parts import seeded

from rollflow import BestOfN, Engine, Job, Task
from rollflow.bench.intervals import interval
from rollflow.dynamics.interpolants import Linear
from rollflow.models import DiffusersModel
from rollflow.rewards import RewardModel
from rollflow.sampler import Sampler

REPORT = Path(__file__).parents[1] / "docs/results/overhead.md"
SIDE = 48
"""Pixels of a side: 144 tokens a row, four by four pixels each."""


class Brightness(RewardModel):
    """Costs nothing."""

    name = "brightness"

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples.double().flatten(1).mean(1)


class Timed:
    """A function that adds up the time it takes, and keeps what it was last given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds, self.calls = function, 0.0, 0
        self.given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.given, begun = (args, kwargs), time.perf_counter()
        made = self.function(*args, **kwargs)
        self.seconds, self.calls = self.seconds + time.perf_counter() - begun, self.calls + 1
        return made


def large(width: int, layers: int) -> tuple[Any, dict[str, Any]]:
    """The tiny FLUX of the tests with a transformer of so many layers, half of them double, heads of 64."""
    seeded()
    tiny = flux.distilled()
    config = dict(tiny.pipeline.transformer.config)
    settings = {
        "num_layers": layers // 2,
        "num_single_layers": layers - layers // 2,
        "attention_head_dim": 64,
        "num_attention_heads": width // 64,
        "axes_dims_rope": (8, 28, 28),
    }
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    tiny.pipeline.transformer = diffusers.FluxTransformer2DModel(**{**known, **settings}).eval()
    return tiny.pipeline, {**tiny.arguments, "height": SIDE, "width": SIDE}


def timed(width: int, layers: int) -> tuple[DiffusersModel, Timed, list[Timed]]:
    """A model whose transformer is timed, and so are its encoder and its decoder."""
    pipeline, arguments = large(width, layers)
    model = DiffusersModel(pipeline, arguments)
    network, encoder, decoder = Timed(pipeline.transformer.forward), Timed(model.encode), Timed(model.decode)
    pipeline.transformer.forward = network
    vars(model).update(encode=encoder, decode=decoder)  # in place of its methods
    return model, network, [encoder, decoder]


def measured(model: DiffusersModel, network: Timed, others: list[Timed], rows: int, steps: int, repeats: int) -> str:
    """The end of a line of the table: what ``repeats`` runs add, in percent, and how long a call takes."""
    sampler = Sampler(Linear(), steps=steps)
    job = Job(Task(model, "a cat", Brightness()), BestOfN(), rows * steps, 0, sampler)
    added, calls, bare = [], [], []
    for repeat in range(repeats + 1):  # the first warms up
        for part in (network, *others):
            part.seconds, part.calls = 0.0, 0
        begun = time.perf_counter()
        Engine(max_rows=rows).run([job])
        whole = time.perf_counter() - begun - sum(part.seconds for part in others)
        inside, made = network.seconds, network.calls
        args, kwargs = network.given
        begun = time.perf_counter()
        with torch.no_grad():
            for _ in range(made):
                network.function(*args, **kwargs)
        if repeat:
            added.append((whole - inside) / inside)
            calls.append(1000 * inside / made)
            bare.append(1000 * (time.perf_counter() - begun) / made)
    share = interval(added).percent()
    return f"| {rows} | {np.median(calls):.0f} ms | {np.median(bare):.0f} ms | {share} | {100 * max(added):.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16], help="trajectories, which share every call")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, nargs="+", default=[256, 768], help="of the transformers")
    parser.add_argument("--layers", type=int, default=4)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()

    lines = [
        "# Overhead of the adapter and the engine",
        "",
        f"Written by `{' '.join(['python tools/overhead.py', *sys.argv[1:]])}`: {given.repeats} runs of "
        f"{given.steps} steps on {torch.get_num_threads()} CPU threads;",
        f"torch {torch.__version__}, diffusers {diffusers.__version__}. Added by pipeline, adapter, kernel and engine",
        "to the time in the transformer; means over runs with 95 % intervals (Student's).",
        "",
        "| width | rows a call | a call, within the engine | in a bare loop | added | at most |",
        "|---|---|---|---|---|---|",
    ]
    for width in given.width:
        model, network, others = timed(width, given.layers)
        for rows in given.rows:
            lines.append(f"| {width} {measured(model, network, others, rows, given.steps, given.repeats)}")
    REPORT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

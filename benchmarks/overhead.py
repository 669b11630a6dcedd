"""What the adapter and the engine add to the transformer's time: python benchmarks/overhead.py

A FLUX pipeline of random weights, large enough that a call of its transformer takes 50 ms or more, sampled by
BestOfN with the SDE kernel. Everything is timed in one run: the time that the engine takes as a whole, and inside it
the time in the transformer; the rest is what is added, in the pipeline's own call, the adapter, the kernel and the
engine. Decoding is left out on both sides, since any program has to decode. Beside it the transformer is called in a
bare loop on the inputs of the pipeline's own calls, in turn with the runs, to show that a call takes as long there.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
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
from rollflow.bench.statistics import bootstrap
from rollflow.interpolants import Linear
from rollflow.models import DiffusersModel
from rollflow.rewards import RewardModel
from rollflow.sampler import Sampler

REPORT = Path(__file__).parents[1] / "docs/results/overhead.md"
SIDE = 48
"""Pixels of a side: 144 tokens a row, four by four pixels each."""


class Brightness(RewardModel):
    """Costs nothing."""

    name = "brightness"

    def score(self, samples: Tensor, prompts: list[str]) -> Tensor:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4, help="trajectories, which share every call")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()

    pipeline, arguments = large(given.width, given.layers)
    model = DiffusersModel(pipeline, arguments)
    network, decoder = Timed(pipeline.transformer.forward), Timed(pipeline.vae.decode)
    pipeline.transformer.forward, pipeline.vae.decode = network, decoder
    job = Job(
        Task(model, "a cat", Brightness()), BestOfN(), given.rows * given.steps, 0, Sampler(Linear(), steps=given.steps)
    )
    added, calls, bare = [], [], []
    for repeat in range(given.repeats + 1):  # the first warms up
        network.seconds = decoder.seconds = 0.0
        network.calls, begun = 0, time.perf_counter()
        Engine(max_rows=given.rows).run([job])
        whole = time.perf_counter() - begun - decoder.seconds
        inside, made = network.seconds, network.calls
        args, kwargs = network.given
        begun = time.perf_counter()
        with torch.no_grad():
            for _ in range(made):
                network.function(*args, **kwargs)
        if repeat:
            added.append(100 * (whole - inside) / inside)
            calls.append(1000 * inside / made)
            bare.append(1000 * (time.perf_counter() - begun) / made)
    share = bootstrap(added)
    lines = [
        "# Overhead of the adapter and the engine",
        "",
        f"Written by `python benchmarks/overhead.py {' '.join(sys.argv[1:])}`".rstrip() + f": {given.repeats} runs of "
        f"{given.rows} trajectories and {given.steps} steps, a call {given.rows} rows, on {torch.get_num_threads()} "
        f"CPU threads; torch {torch.__version__}, diffusers {diffusers.__version__}.",
        "",
        "| | |",
        "|---|---|",
        f"| a call of the transformer, within the engine | {np.median(calls):.1f} ms |",
        f"| the same in a bare loop | {np.median(bare):.1f} ms |",
        f"| added by pipeline, adapter, kernel and engine | {share.mean:.2f} % [{share.low:.2f}, {share.high:.2f}] |",
        "",
        f"Mean over the runs with its 95 % bootstrap interval; the largest was {max(added):.2f} %.",
    ]
    REPORT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

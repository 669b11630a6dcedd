"""Options that several commands have: where a pipeline of diffusers runs, and how it is loaded and called."""

from __future__ import annotations

from typing import Annotated

import typer

PipelineArg = Annotated[
    list[str] | None,
    typer.Option(help="Argument of a pipeline's call, height=512 or image=photo.png; any number of times."),
]
Device = Annotated[str | None, typer.Option(help="Of a pipeline: cpu, cuda:0, mps.  [default: the best]")]
Dtype = Annotated[str | None, typer.Option(help="Of a pipeline: float32, bfloat16, float16.  [default: by device]")]
Offload = Annotated[
    str | None, typer.Option(help="Keep on the device only what runs: model, sequential.  [default: none]")
]
Quantize = Annotated[str | None, typer.Option(help="Weights of a pipeline in 8bit or 4bit.  [default: not]")]
Compile = Annotated[bool | None, typer.Option("--compile", help="Compile the network of a pipeline.")]
FewStep = Annotated[
    bool | None,
    typer.Option("--few-step/--many-step", help="Whether a pipeline is step-distilled.  [default: by its name]"),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a repository.")]

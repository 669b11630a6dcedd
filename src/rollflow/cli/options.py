"""Options of several commands: those of a plan, made from its fields, and those of a diffusers pipeline."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field
from typing import Annotated, Any

import typer

from rollflow.options import Option, Options, options_of

PipelineArg = Annotated[
    list[str] | None,
    typer.Option(help="Argument of the pipeline's call, such as height=512 or image=photo.png; may be repeated."),
]
Device = Annotated[
    str | None, typer.Option(help="Device of a pipeline: cpu, cuda:0, mps.  [default: the best available]")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Precision of a pipeline: float32, bfloat16, float16; or of an embedded model.  [default: by device]"
    ),
]
Offload = Annotated[
    str | None,
    typer.Option(help="Keep only the running part of a pipeline on the device: model, sequential.  [default: none]"),
]
Quantize = Annotated[str | None, typer.Option(help="Quantize a pipeline's weights: 8bit, 4bit.  [default: no]")]
Compile = Annotated[bool | None, typer.Option("--compile", help="Compile the network of a pipeline.")]
FewStep = Annotated[
    bool | None,
    typer.Option("--few-step/--many-step", help="Whether a pipeline is step-distilled.  [default: by its name]"),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a pipeline's repository.")]


def with_plan_options(command: Callable[..., None], kind: type[Options] = Options) -> Callable[..., None]:
    """Give a command the options of a plan after its own first parameter, in place of its ``**options``.

    Args:
        command: Function that takes the options as keyword arguments.
        kind: Class whose fields are the options.
    """
    signature = inspect.signature(command, eval_str=True)
    first, *others = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    options = [_parameter(*declared) for declared in options_of(kind).values()]
    # Typer passes everything by keyword, so that a parameter without a default may follow one that has one.
    parameters = [one.replace(kind=one.KEYWORD_ONLY) for one in (first, *options, *others)]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _parameter(field: Field[Any], option: Option) -> inspect.Parameter:
    flag = f"--{field.name.replace('_', '-')}"
    flags = f"{flag}/--no-{flag[2:]}" if option.kind is bool else flag
    shown = option.help if option.unset is None else f"{option.help}  [default: {option.unset}]"
    kind: Any = list[str] if option.repeated else option.kind
    if field.default is None:
        kind = kind | None
    annotation = Annotated[kind, typer.Option(flags, help=shown)]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)

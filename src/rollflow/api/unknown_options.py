"""Arguments that are no options, refused with what was probably meant."""

from __future__ import annotations

from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

from rollflow.errors import UnknownOption, unknown
from rollflow.options import Options

T = TypeVar("T", bound=Options)

_ELSEWHERE = {
    "ask": "said by the prompt: Prompt(text, {'cat': 3})",
    "settings": "given in parentheses or as objects: method='svdd(streams=4)', kernel=DDIM(0.5)",
    **{
        name: f"a setting of PipelineSource: model=PipelineSource('owner/name', {setting}=...)"
        for name, setting in {
            **{name: name for name in ("device", "dtype", "offload", "quantize", "revision", "arguments")},
            **{"pipeline_arg": "arguments", "compile": "compiled", "compiled": "compiled"},
            **{"few_step": "distilled", "distilled": "distilled"},
        }.items()
    },
    **{
        name: f"an argument of the pipeline's call: model=(pipe, {{'{name}': ...}})"
        for name in (
            *("height", "width", "guidance_scale", "true_cfg_scale", "negative_prompt", "image", "strength"),
            *("num_frames", "max_sequence_length"),
        )
    },
    "num_inference_steps": "called steps",
    "generator": "called seed",
    "out": "an argument of Plan.run: Plan(prompt, ...).run(out='folder')",
    **{
        name: f"an argument of Plan.run: Plan(prompt, ...).run(out='folder', {name}=True)"
        for name in ("resume", "compare", "held_out_path")
    },
}
"""Options of the command line that Python takes elsewhere, with what to write there."""


def known_options_only(kind: type[T]) -> type[T]:
    """Decorate a class of options so that unknown arguments are refused with what was probably meant."""
    made = kind.__init__

    @wraps(made)
    def init(self: T, *arguments: Any, **options: Any) -> None:
        known = {one.name for one in fields(self)}
        for name in options:
            if name not in known and name in _ELSEWHERE:
                raise UnknownOption(f"{name} is not an option of a {kind.__name__.lower()}, but {_ELSEWHERE[name]}")
            if name not in known:
                raise unknown("option", name, known, UnknownOption)
        made(self, *arguments, **options)

    kind.__init__ = init  # type: ignore[assignment]
    return kind

"""``rollflow generate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollflow.cli import errors, options
from rollflow.cli.errors import complain, refusing, warn
from rollflow.runtime import interruption

if TYPE_CHECKING:
    from rollflow.cli.progress import LiveProgress
    from rollflow.engine import Job


def command(
    prompt: Annotated[
        str | None,
        typer.Argument(help="Description of the sample, e.g. 'three cats on grass background'.", metavar="PROMPT"),
    ] = None,
    context: typer.Context = None,  # type: ignore[assignment]  # given by Typer
    ask: Annotated[
        list[str] | None,
        typer.Option(
            help="Count that the prompt asks for: airplanes=6; may be repeated.  [default: read from the prompt]"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Setting of the method (initial=5) or of another choice (kernel.eta=0.5); may be repeated.",
        ),
    ] = None,
    pipeline_arg: options.PipelineArg = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    offload: options.Offload = None,
    quantize: options.Quantize = None,
    compiled: options.Compile = None,
    few_step: options.FewStep = None,
    revision: options.Revision = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Repeat the run of this result.json (or its folder); options that you give replace those of the run.",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Let --from load the modules, files and models and contact the servers that it names."
        ),
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also make a plain sample of the same seed, without a search.")
    ] = False,
    held_out_path: Annotated[
        bool, typer.Option("--held-out-path", help="Also score the path to the sample with the held-out rewards.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a stopped run with the same options and the same --out.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cost of the run and load nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("rollflow-out"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of result.json and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
    **plan_options: Any,
) -> None:
    """Make the best sample for PROMPT within a budget.

    With --from, PROMPT and all options of the search come from an earlier run, except those given here.
    """
    from rollflow.api.earlier import read_run
    from rollflow.cli import tables
    from rollflow.cli.settings import Given, check_output, plan_of
    from rollflow.files.atomic import check_folder
    from rollflow.output.runs import check_folder_of, run_in_folder

    pipeline = {
        "device": device,
        "dtype": dtype,
        "offload": offload,
        "quantize": quantize,
        "compiled": compiled,
        "distilled": few_step,
        "revision": revision,
    }
    given = {name: value for name, value in plan_options.items() if _is_given(context, name)}
    with refusing(2):
        asked = Given(prompt, tuple(ask or ()), given, tuple(settings or ()), tuple(pipeline_arg or ()), pipeline)
        earlier = None if source is None else read_run(source)
        plan = plan_of(asked, earlier, trusted=trust)
        costs = {"search": plan.cost()} | ({"baseline": plan.baseline_cost()} if compare else {})
        if dry_run:
            check_output(out)
        else:
            check_folder(out)
    if dry_run:
        with refusing(1):
            check_folder_of(plan, out, compare=compare, resume=resume)
        unknown = {} if plan.rows_per_nfe else {"network_rows": None}
        as_dicts = {name: asdict(cost) | unknown for name, cost in costs.items()}
        if not (as_json or quiet):
            tables.explain(plan.explanation)
        print(json.dumps(as_dicts) if as_json else tables.costs(as_dicts))
        return
    show = not (as_json or quiet)
    if show and plan.structured:
        print(tables.asked(plan.prompt), file=sys.stderr)

    @contextmanager
    def progress(job: Job) -> Iterator[LiveProgress]:
        from rollflow.cli.progress import LiveProgress

        chooser = [] if job.task.choice is None else [job.task.choice.reward]
        rewards = (job.task.objective, job.task.reward, *chooser, *job.task.held_out)
        asks = any(one.interactive for one in rewards)
        with LiveProgress(show and not asks) as watcher:
            yield watcher

    with refusing(1), nullcontext() if earlier is None else earlier.as_it_ran():
        outcome = run_in_folder(
            plan, out, compare=compare, resume=resume, held_out_path=held_out_path, watching=progress
        )
    repeats = earlier is not None and (asked.empty or plan.to_json() == earlier.record.plan)
    if earlier is not None and repeats and not outcome.content["interrupted"]:
        different = earlier.differences(outcome.content)
        if earlier.interrupted:
            if show:
                print(
                    f"the run of '{earlier.path}' ended early; this one came to its end, so that its sample may differ"
                )
        elif different is not None:
            warn(f"the sample is not that of '{earlier.path}': {different}")
        elif show:
            print(f"the sample is that of '{earlier.path}', to the last bit")
    if show and outcome.replaced is not None:
        print(f"replaced the result of {outcome.replaced}; choose another --out to keep both")
    if show:
        tables.explain(plan.explanation)
    _finish(outcome.content, out, as_json=as_json, quiet=quiet)


command = options.with_plan_options(command)


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _finish(content: dict[str, Any], out: Path, *, as_json: bool, quiet: bool) -> None:
    """Print the outcome of a run, and exit with its exit code."""
    from rollflow.cli import tables
    from rollflow.output.folder_checks import CHECKPOINT

    code = 0
    if content["interrupted"]:
        kept = f"the best sample so far is in '{out}'"
        if (out / CHECKPOINT).exists():  # missing if the run was stopped before its first step
            kept += "; continue with --resume"
        if "cause" not in content:
            code = errors.interrupted(f"{interruption.described()}; {kept}")
        else:
            code = 1
            complain(f"{content['cause']}; {kept}")
    if as_json:
        print(json.dumps(content, indent=2, allow_nan=False))
    elif not quiet:
        print(tables.outcome(content, out))
    if code:
        raise typer.Exit(code)

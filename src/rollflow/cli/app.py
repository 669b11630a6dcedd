"""The commands. What is slow to import is imported when a command needs it, so that help appears at once."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rollflow import defaults
from rollflow.cli import bench, errors, experiments, options, report, score, serve
from rollflow.cli.errors import complain, refusing
from rollflow.runtime import interruption


class _Commands(TyperGroup):
    """All commands; what interrupts one is reported, which Typer itself would not do."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise typer.Exit(errors.report(stop)) from None


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search for the best sample of a flow model that a compute budget can buy.",
)
app.add_typer(bench.app, name="bench")
app.command()(score.score)
app.command("serve-reward")(serve.serve_reward)
app.command()(experiments.replay)
app.command()(report.report)
app.command()(report.compare)
bench.app.command("run")(experiments.run)
bench.app.command()(experiments.presets)
bench.app.command()(experiments.pack)


@app.callback()
def options_of_all(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; like ROLLFLOW_DEBUG=1.")
    ] = False,
) -> None:
    """Search for the best sample of a flow model that a compute budget can buy."""


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to make, e.g. 'three cats on grass background'.")],
    model: Annotated[
        str, typer.Option(help="See 'rollflow models'; or a pipeline of diffusers: owner/name, or a folder.")
    ] = defaults.DEFAULT_MODEL,
    method: Annotated[str, typer.Option(help="See 'rollflow methods'.")] = defaults.DEFAULT_METHOD,
    reward: Annotated[
        str, typer.Option(help="See 'rollflow rewards'; of several: 'sum(parts=A;B, weights=1;0.5)'.")
    ] = defaults.DEFAULT_REWARD,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="Reward that the search never sees; any number of times.  [default: by reward]"),
    ] = None,
    held_out_path: Annotated[
        bool, typer.Option("--held-out-path", help="Score the path to the sample by the held-out rewards, too.")
    ] = False,
    ask: Annotated[
        list[str] | None,
        typer.Option(help="What the prompt asks for, airplanes=6; any number of times.  [default: read from it]"),
    ] = None,
    nfe: Annotated[int, typer.Option(help="Budget in guided evaluations of the model.")] = defaults.DEFAULT_NFE,
    seed: Annotated[int, typer.Option(help="The same seed gives the same sample.")] = 0,
    interpolant: Annotated[
        str | None, typer.Option(help="Path sampled along: vp, linear, cosine, polynomial.  [default: by model]")
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(help="Steps along it: sde, ddim, ode, heun, cps, stochastic, glass.  [default: by method]"),
    ] = None,
    steps: Annotated[int, typer.Option(help="Evaluation times from noise to data.")] = defaults.DEFAULT_STEPS,
    grid: Annotated[
        str | None, typer.Option(help="Where they lie: uniform, arc, shifted, matched.  [default: by interpolant]")
    ] = None,
    lookahead: Annotated[
        str, typer.Option(help="Clean sample shown to the reward: tweedie, ode.")
    ] = defaults.DEFAULT_LOOKAHEAD,
    guidance: Annotated[str | None, typer.Option(help="Lean along the reward's gradient: dps.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A method's setting, initial=5, or another's, kernel.eta=0.5; any number of times."),
    ] = None,
    finish: Annotated[
        bool | None,
        typer.Option(
            "--finish/--no-finish", help="Denoise the sample fully, or return the last estimate.  [default: by model]"
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
    compare: Annotated[bool, typer.Option("--compare", help="Also make the plain sample of the same seed.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run with the same options and --out was stopped.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost; load nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("rollflow-out"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of result.json and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
) -> None:
    """Make the best sample for PROMPT within a budget."""
    from rollflow.api import Plan
    from rollflow.cli import session, tables
    from rollflow.cli.settings import check_output, chosen, pipeline
    from rollflow.files.atomic import check_folder
    from rollflow.prompts import Prompt, read_ask

    with refusing(2):
        plan = Plan(
            Prompt(prompt, read_ask(ask)) if ask else prompt,
            model=pipeline(
                model,
                pipeline_arg or [],
                device=device,
                dtype=dtype,
                offload=offload,
                quantize=quantize,
                compiled=compiled,
                distilled=few_step,
                revision=revision,
            ),
            reward=reward,
            held_out=held_out,
            nfe=nfe,
            seed=seed,
            steps=steps,
            finish=finish,
            **chosen(
                settings or [],
                method=method,
                interpolant=interpolant,
                kernel=kernel,
                grid=grid,
                lookahead=lookahead,
                guidance=guidance,
            ),
        )
        costs = {"search": plan.cost()} | ({"baseline": plan.baseline_cost()} if compare else {})
        if dry_run:
            check_output(out)
        else:
            check_folder(out)
    if dry_run:
        with refusing(1):
            session.check(plan, out, compare=compare, resume=resume)
        unknown = {} if plan.rows_per_nfe else {"network_rows": None}
        as_dicts = {name: asdict(cost) | unknown for name, cost in costs.items()}
        print(json.dumps(as_dicts) if as_json else tables.costs(as_dicts))
        return
    show = not (as_json or quiet)
    if show and plan.structured:
        print(tables.asked(plan.prompt), file=sys.stderr)
    with refusing(1):
        content = session.execute(plan, out, compare=compare, resume=resume, show=show, held_out_path=held_out_path)
    code = 0
    if content["interrupted"]:
        kept = f"the best sample until then is in '{out}'"
        if (out / session.CHECKPOINT).exists():  # of a run that was stopped before its first step there is none
            kept += "; go on with --resume"
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


@app.command()
def methods(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Update rule, reference, cost and settings of each.")
    ] = False,
) -> None:
    """List the search methods; with --verbose also kernels, grids, look-aheads and guidance, in full."""
    from rollflow.cli import tables
    from rollflow.dynamics.grids import GRIDS
    from rollflow.dynamics.guidance import GUIDANCE
    from rollflow.dynamics.interpolants import INTERPOLANTS
    from rollflow.dynamics.kernels import KERNELS
    from rollflow.dynamics.lookahead import LOOKAHEADS
    from rollflow.search import SEARCHES

    if verbose:
        registries = (SEARCHES, KERNELS, INTERPOLANTS, GRIDS, LOOKAHEADS, GUIDANCE)
        print("\n\n".join(tables.explained(registry) for registry in registries))
    else:
        print(tables.listed(SEARCHES))


@app.command()
def models() -> None:
    """List the models."""
    from rollflow.cli import tables
    from rollflow.models import MODELS

    print(tables.listed(MODELS))


@app.command()
def rewards(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Range, size, memory, licence, reference and settings of each.")
    ] = False,
) -> None:
    """List the rewards."""
    from rollflow.cli import tables
    from rollflow.rewards import REWARDS

    print(tables.explained_rewards(REWARDS) if verbose else tables.listed(REWARDS))

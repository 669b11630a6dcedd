"""``rollflow bench``: one command for each measurement of searches, rewards and samples."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from rollflow.cli import options
from rollflow.cli.errors import refusing
from rollflow.cli.help import App
from rollflow.defaults import DEFAULT_MODEL
from rollflow.errors import BadSetting

app = App(help="Run experiments and measurements.", no_args_is_help=True)

MOST_PROMPTS, MOST_STEPS, MOST_TRAJECTORIES, MOST_SEED = 10_000, 10_000, 4096, 2**63 - 1
Model = Annotated[str, typer.Option(help="Name of the flow model.")]


def budgets_of(text: str) -> list[int]:
    """Read budgets in NFE that are separated by commas."""
    try:
        wanted = [int(nfe) for nfe in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"expected budgets as whole numbers separated by commas, got '{text}'") from None
    if len(set(wanted)) < len(wanted) or not all(1 <= nfe <= 1_000_000 for nfe in wanted):
        raise typer.BadParameter(f"expected distinct budgets from 1 to 1,000,000, got '{text}'")
    return wanted


@app.command()
def grade(
    out: Annotated[Path, typer.Option(help="Suite file to write, NAME.jsonl; grades are written beside it.")],
    model: Model = DEFAULT_MODEL,
    candidates: Annotated[
        int, typer.Option(help="Number of held-out prompts to grade.", min=1, max=MOST_PROMPTS)
    ] = 1000,
    samples: Annotated[int, typer.Option(help="Number of plain samples per prompt.", min=1)] = 16,
    confirming: Annotated[int, typer.Option(help="Number of further samples per prompt that seems hard.", min=0)] = 64,
    per_difficulty: Annotated[
        int, typer.Option("--per-difficulty", "--per-tier", help="Number of prompts to keep per difficulty.", min=1)
    ] = 60,
    steps: Annotated[int, typer.Option(help="Number of steps of a plain sample.", min=1, max=MOST_STEPS)] = 10,
    seed: Annotated[int, typer.Option(help="Seed for drawing the candidates.", min=0)] = 11,
    totals: Annotated[
        tuple[int, int], typer.Option(help="Smallest and largest total number of objects of a candidate.")
    ] = (2, 16),
    without: Annotated[str | None, typer.Option(help="Suite whose prompts are no candidates.")] = None,
) -> None:
    """Sort held-out prompts into easy, medium and hard by the accuracy of plain samples."""
    from rollflow.bench.suites import difficulty
    from rollflow.bench.suites.load import load
    from rollflow.cli.tables import counted
    from rollflow.files.atomic import check_folder
    from rollflow.files.own import check_own
    from rollflow.models import MODELS
    from rollflow.rewards import REWARDS

    with refusing(2):
        if out.suffix != ".jsonl":
            raise BadSetting(f"a suite is a JSON Lines file: expected a name that ends in .jsonl, got '{out}'")
        check_own(out.parent, [difficulty.beside(out)])
        check_folder(out.parent)
        flow = MODELS.make(model)
        known = {item.prompt for item in load(without).items} if without else set()
    with refusing(1):
        suite = difficulty.grade(
            flow,
            REWARDS.find("judge")(),
            candidates=candidates,
            samples=samples,
            confirming=confirming,
            per_difficulty=per_difficulty,
            steps=steps,
            seed=seed,
            totals=totals,
            known=known,
        )
        difficulty.save_suite(suite, flow, out)
    for level, graded in suite.items():
        example = f", such as '{graded[0].prompt}'" if graded else ""
        typer.echo(f"{level}: {counted(len(graded), 'prompt')}{example}")


@app.command()
def diversity(
    context: typer.Context,
    model: Model = DEFAULT_MODEL,
    suite: Annotated[
        str | None,
        typer.Option(help="Suite of prompts: a name, NAME=COPY of a published set, or a file.  [default: by model]"),
    ] = None,
    prompts: Annotated[int, typer.Option(help="Number of prompts to take from the suite.", min=1)] = 40,
    trajectories: Annotated[
        int,
        typer.Option(
            help="Number of trajectories per prompt, all from one initial noise.", min=2, max=MOST_TRAJECTORIES
        ),
    ] = 16,
    distance: Annotated[
        str | None,
        typer.Option(help="Distance between samples: scenes (for the embedded models) or lpips.  [default: by model]"),
    ] = None,
    pipeline_arg: options.PipelineArg = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    offload: options.Offload = None,
    quantize: options.Quantize = None,
    compiled: options.Compile = None,
    few_step: options.FewStep = None,
    revision: options.Revision = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.", min=0, max=MOST_SEED)] = 0,
    out: Annotated[Path, typer.Option(help="Output folder for the table.")] = Path("."),
) -> None:
    """Measure the diversity of samples from one initial noise, for the dynamics of the preset ablation-vp."""
    from rollflow.api import Plan, load_model
    from rollflow.bench.probes.diversity import distance_of
    from rollflow.bench.probes.diversity import diversity as measure
    from rollflow.bench.run.experiment import Arm
    from rollflow.bench.run.preset_arms import DYNAMICS, vp_arms
    from rollflow.bench.run.presets import PRESETS
    from rollflow.bench.suites.load import load
    from rollflow.cli.settings import pipeline, with_dtype
    from rollflow.files.atomic import check_folder, write
    from rollflow.files.own import check_own
    from rollflow.models import Source, find_model

    with refusing(2):
        source, preset = find_model(with_dtype(model, dtype)[0]), PRESETS["ablation-vp"]
        embedded = source.suite_family == "scenes"
        items = load(suite or (preset.suite if embedded else preset.real)).first(prompts).items
        between = distance_of(distance or ("scenes" if embedded else "lpips"))
        given = pipeline(
            model,
            pipeline_arg or [],
            device=device,
            dtype=dtype,
            offload=offload,
            quantize=quantize,
            compiled=compiled,
            distilled=few_step,
            revision=revision,
        )
        texts = [item.prompt for item in items]
        if not isinstance(source, Source) and source.suite_family:
            for text in texts:
                source.check_prompt(text)
        shown = re.sub(r"[^\w.-]+", "-", model.rstrip("/").rpartition("/")[2])
        check_own(out, [f"diversity-{shown}.md"])
        check_folder(out)
        flow = load_model(given)
    lines = [
        f"# Diversity of samples from one noise, {shown}",
        "",
        f"Written by `{shlex.join(['rollflow', *context.obj])}`:",
        "mean pairwise distance (docs/bench/README.md) of trajectories that start from one noise and, for comparison,",
        "of ODE trajectories that start from one noise each; means over held-out prompts with 95 % intervals.",
        "",
        "| dynamics | mean pairwise distance |",
        "|---|---|",
    ]
    apart = Arm("Linear-ODE, a noise each", **DYNAMICS["Linear-ODE"])
    any_prompt = "colorfulness"  # a reward that accepts every prompt, since only the sampler of the plan is used
    for arm in (apart, *vp_arms(100)[1:]):
        sampler = Plan(
            texts[0], model=flow, reward=any_prompt, interpolant=arm.interpolant, kernel=arm.kernel, grid=arm.grid
        ).sampler
        noises = trajectories if arm is apart else 1
        with refusing(1):
            measured = measure(flow, texts, sampler, between, trajectories=trajectories, seed=seed, noises=noises)
        lines.append(f"| {arm.name.removeprefix('RBF, ')} | {measured.mean} |")
        typer.echo(lines[-1])
    write(out, {f"diversity-{shown}.md": ("\n".join(lines) + "\n").encode()})


@app.command()
def mixture(
    seeds: Annotated[int, typer.Option(min=1, max=100_000, help="Number of seeds per cell.")] = 200,
    budgets: Annotated[str, typer.Option(help="Budgets in NFE, separated by commas.")] = "25,50,100,200,400,800",
    trajectories: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Number of plain trajectories per dynamics.")
    ] = 10_000,
    out: Annotated[
        Path, typer.Option(help="Output folder for the plot and its tables, written after every budget.")
    ] = Path("."),
) -> None:
    """Compare all searches at equal budgets on a Gaussian mixture whose rewarded mode is hard to hit."""
    from rollflow.bench.probes import mixture as comparison
    from rollflow.bench.probes.arms import MIXTURE_ARMS, PLAIN
    from rollflow.bench.probes.outcomes import ProbeOutcome, curves
    from rollflow.bench.probes.plots import budgets as budgets_plot
    from rollflow.bench.probes.rare_mode import rare_mode
    from rollflow.files.atomic import check_folder, write
    from rollflow.files.own import check_own
    from rollflow.output.plots import figure_png

    wanted = budgets_of(budgets)
    with refusing(2):
        check_own(out, ["mixture.md", "mixture.png"])
        check_folder(out)
    setting = rare_mode()
    plain = {name: comparison.plain(setting, sampler, trajectories) for name, sampler in PLAIN.items()}
    table: dict[int, dict[str, ProbeOutcome]] = {}
    for nfe in wanted:
        table[nfe] = comparison.measure(setting, MIXTURE_ARMS, nfe, seeds)
        command = f"rollflow bench mixture --seeds {seeds} --budgets {','.join(map(str, table))}"
        text = comparison.markdown(setting, table, plain, command, seeds)
        figure = budgets_plot(curves(table), comparison.exact(setting, table))
        write(out, {"mixture.md": text.encode(), "mixture.png": figure_png(figure)})
        typer.echo(f"{nfe} NFE: wrote {out / 'mixture'}.md and .png")

"""``rollflow bench profile``: where along a trajectory choosing pays."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rollflow.cli import errors, options
from rollflow.cli.errors import refusing
from rollflow.defaults import DEFAULT_MAX_ROWS, DEFAULT_MODEL, DEFAULT_REWARD, DEFAULT_STEPS
from rollflow.errors import BadSetting, RollflowError, Stopped
from rollflow.runtime import interruption

MOST_PROMPTS, MOST_FAMILY, MOST_SEED = 10_000, 4096, 2**63 - 1


def profile(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="Flow model ('rollflow models' lists them) or diffusers pipeline.")
    ] = DEFAULT_MODEL,
    reward: Annotated[str, typer.Option(help="Reward; see 'rollflow rewards'.")] = DEFAULT_REWARD,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Suite of prompts: a name, NAME=COPY of a published set, or a file.  [default: held-out captions for "
            "the embedded models, else a published set]"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Part of the prompts: tuning (a quarter of them) or confirmation.  [default: all]"),
    ] = None,
    prompts: Annotated[int, typer.Option(help="Number of prompts.", min=1, max=MOST_PROMPTS)] = 40,
    parents: Annotated[
        int, typer.Option(help="Number of parents of siblings, at every noise level.", min=2, max=MOST_FAMILY)
    ] = 4,
    siblings: Annotated[int, typer.Option(help="Number of siblings of each parent.", min=2, max=MOST_FAMILY)] = 6,
    interpolant: Annotated[str, typer.Option(help="Interpolant of the trajectories.")] = "linear",
    kernel: Annotated[str, typer.Option(help="Kernel of the trajectories.")] = "ddim",
    steps: Annotated[
        int | None, typer.Option(help=f"Number of steps of a trajectory.  [default: {DEFAULT_STEPS}]", min=2, max=1000)
    ] = None,
    levels: Annotated[
        str | None, typer.Option(help="Noise levels in place of steps, falling from 1: '1;0.8;0.6;0.4;0.2'.")
    ] = None,
    pipeline_arg: options.PipelineArg = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    offload: options.Offload = None,
    quantize: options.Quantize = None,
    compiled: options.Compile = None,
    few_step: options.FewStep = None,
    revision: options.Revision = None,
    seed: Annotated[int, typer.Option(help="Seed of held-out captions and of all noise.", min=0, max=MOST_SEED)] = 0,
    max_rows: Annotated[
        int, typer.Option(help="Largest batch of one call of the model.", min=1, max=4096)
    ] = DEFAULT_MAX_ROWS,
    out: Annotated[Path, typer.Option(help="Output folder for the profile, its table and its plot.")] = Path("."),
    resume: Annotated[bool, typer.Option("--resume", help="Continue a profile that was interrupted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cost and load nothing.")] = False,
) -> None:
    """Measure at which noise levels choosing pays, for a model and a reward; searches take the file (profile=FILE).

    Siblings that part at each noise level are followed to their finished samples. The table has, for each level, how
    well the reward of an estimate ranks trajectories as the finished sample's does, how many of the best samples it
    finds, what choosing among siblings gains, and how much is decided.
    """
    from rollflow.api import load_model
    from rollflow.api.loading import load_reward
    from rollflow.bench.probes.plots import profile_plot
    from rollflow.bench.probes.profile import Profiling
    from rollflow.bench.probes.profile_curves import profile_curve, profile_markdown
    from rollflow.bench.run.presets import PRESETS
    from rollflow.bench.suites.load import load
    from rollflow.cli.settings import check_output, pipeline
    from rollflow.dynamics.grids import GRIDS, Levels
    from rollflow.dynamics.interpolants import INTERPOLANTS
    from rollflow.dynamics.kernels import KERNELS
    from rollflow.files.atomic import check_folder, discard, using, write
    from rollflow.files.own import check_own
    from rollflow.models import Source, find_model
    from rollflow.output.plots import figure_png
    from rollflow.rewards import REWARDS
    from rollflow.rewards.checks import check_scorable
    from rollflow.sampler import Sampler
    from rollflow.search.profile import Profile

    with refusing(2):
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
        source = find_model(given) if isinstance(given, str) else given
        judge, path = REWARDS.resolve(reward), INTERPOLANTS.make(interpolant)
        if judge.relative:
            raise BadSetting(f"'{judge.name}' looks back at what was scored, so that it has no profile")
        if steps is not None and levels is not None:
            raise BadSetting("got both --steps and --levels; give one of them")
        sampler = Sampler(path, KERNELS.make(kernel), steps=steps or DEFAULT_STEPS, finish=True)
        if levels is not None:
            grid = GRIDS.make("levels", {"levels": levels})
            assert isinstance(grid, Levels)
            sampler = Sampler(path, sampler.kernel, Levels(grid.levels, path), len(grid.levels), finish=True)
        if suite is None and source.suite_family == "scenes":
            asked = _captions(prompts, seed, split)
        else:
            chosen = load(suite or PRESETS["ablation-vp"].real)
            chosen = chosen if split is None else chosen.split(split)
            asked = tuple(item.asked for item in chosen.first(prompts).items)
        for text in asked:
            if not isinstance(source, Source):
                source.check_prompt(text)
            check_scorable(judge, text)
        profiling = Profiling(asked, sampler, parents, siblings, seed, max_rows)
        shown = re.sub(r"[^\w.-]+", "-", f"{model.rstrip('/').rpartition('/')[2]}-{reward}")[:100]
        name = f"profile-{shown}"
        part = out / f"{name}.part.npz"
        check_output(out)
        check_own(out, [f"{name}.npz", f"{name}.md", f"{name}.png", part.name])
        if part.exists() and not resume:
            raise BadSetting(f"'{part}' is the beginning of a profile; add --resume to continue it, or remove it")
        earlier = [path for path in (part, out / f"{name}.npz") if resume and path.exists()]
        begun = Profile.load(earlier[0]) if earlier else None
        if begun is not None:
            profiling.refuse_other(begun)
        done = 0 if begun is None else len(begun.prompts)
        cost = profiling.cost(source, done)
        typer.echo(
            f"{len(asked) - done} prompts: {cost.nfe} NFE, {cost.reward_calls} reward calls, {cost.decodes} decodes"
        )
        if dry_run:
            return
        check_folder(out)
        loaded = load_reward(judge)
        flow = load_model(given)
    with refusing(1):
        try:
            for known in profiling.measure(flow, loaded, begun):
                begun, done = known, len(known.prompts)
                with using(out):
                    write(out, {part.name: known.to_bytes()})
                if done % max(1, len(asked) // 10) == 0 or done == len(asked):
                    print(f"{done} of {len(asked)} prompts", file=sys.stderr)
        except (KeyboardInterrupt, Stopped):
            why = interruption.described()
            raise typer.Exit(errors.interrupted(f"{why}; {_kept(done, len(asked))}")) from None
        except RollflowError as error:
            raise RollflowError(f"{error}; {_kept(done, len(asked))}") from error
        assert begun is not None
        points = profile_curve(begun)
        words = [word for word in context.obj if word != "--resume"]  # which changes nothing of what is written
        table = profile_markdown(begun, points, shlex.join(["rollflow", *words]), f"{name}.png")
        picture = figure_png(profile_plot(points, begun.reward))
        with using(out):
            write(out, {f"{name}.npz": begun.to_bytes(), f"{name}.md": table.encode(), f"{name}.png": picture})
            discard(part)
    typer.echo(f"wrote {out / name}.npz, .md and .png")


def _captions(count: int, seed: int, split: str | None) -> tuple[str, ...]:
    """The first held-out captions, of one part if there is one."""
    from rollflow.bench.suites.difficulty import held_out_captions
    from rollflow.bench.suites.suite import SPLITS, split_of
    from rollflow.checks import one_of

    if split is not None:
        one_of("split", split, SPLITS)
    kept, drawn = tuple[str, ...](), count
    while len(kept) < count:
        captions = map(str, held_out_captions(drawn, seed, totals=(3, 12)))
        kept = tuple(caption for caption in captions if split is None or split_of(caption) == split)
        drawn *= 2
    return kept[:count]


def _kept(done: int, asked: int) -> str:
    return f"{done} of {asked} prompts are done, and the same command with --resume goes on"

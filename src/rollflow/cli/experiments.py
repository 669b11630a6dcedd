"""``rollflow bench run``, ``presets`` and ``pack``: experiments in folders."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rollflow.cli import errors, options
from rollflow.cli.errors import complain, refusing, warn
from rollflow.defaults import DEFAULT_MODEL
from rollflow.files.printable import printable
from rollflow.runtime import interruption


def run(
    context: typer.Context,
    preset: Annotated[str, typer.Option(help="Preset experiment; 'rollflow bench presets' lists them.")],
    out: Annotated[Path, typer.Option(help="Output folder; an existing experiment is resumed.")],
    model: Annotated[
        str, typer.Option(help="Flow model ('rollflow models' lists them) or diffusers pipeline.")
    ] = DEFAULT_MODEL,
    quick: Annotated[bool, typer.Option("--quick", help="Run a small version, which takes minutes.")] = False,
    suite: Annotated[
        str | None,
        typer.Option(help="Suite of prompts: a name, NAME=COPY of a published set, or a file.  [default: by preset]"),
    ] = None,
    reward: Annotated[str | None, typer.Option(help="Reward that searches optimise.  [default: by preset]")] = None,
    surrogate: Annotated[
        str | None,
        typer.Option(
            help="Reward that all searches optimise in place of the reward: own (its own surrogate), none, or any "
            "other.  [default: by preset]"
        ),
    ] = None,
    choose_by: Annotated[
        str | None,
        typer.Option(help="Second reward, which chooses among the last candidates of every search."),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="Held-out reward, unseen by searches; may be repeated.  [default: by preset]"),
    ] = None,
    nfe: Annotated[
        int | None, typer.Option(help="Budget of every search, in NFE.  [default: by preset]", min=1)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Part of the suite: tuning (a quarter of the prompts) or confirmation.  [default: by preset]"
        ),
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Category of the suite, such as hard.  [default: by preset]")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(help="Number of prompts to take from the suite.  [default: by preset]", min=1)
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds per prompt.  [default: by preset]", min=1)] = None,
    first_seed: Annotated[
        int | None, typer.Option(help="First of the seeds.  [default: by preset]", min=0, max=2**62)
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option(help="Distance for measuring diversity: scenes, lpips or none.  [default: by model]"),
    ] = None,
    pool: Annotated[
        bool,
        typer.Option("--pool", help="Let prompts that reach --until leave the rest of their NFE to the others."),
    ] = False,
    until: Annotated[
        float | None,
        typer.Option(help="Reward at which a prompt of a pool stops.  [default: the highest possible reward]"),
    ] = None,
    pipeline_arg: options.PipelineArg = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    offload: options.Offload = None,
    quantize: options.Quantize = None,
    compiled: options.Compile = None,
    few_step: options.FewStep = None,
    revision: options.Revision = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Resume an existing experiment, or refuse to.")
    ] = True,
    max_rows: Annotated[
        int, typer.Option(help="Batch size of every call of the model; smaller batches are padded.", min=1, max=4096)
    ] = 64,
    retries: Annotated[int, typer.Option(help="Number of retries of a failed job.", min=0)] = 1,
    minutes: Annotated[float | None, typer.Option(help="Start no new jobs after this many minutes.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only the arms whose names match a pattern, such as 'RBF*'; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cost without loading or running anything.")
    ] = False,
) -> None:
    """Run an experiment: every arm on every prompt with every seed.

    An arm is a search with its budget and dynamics. Several processes may run the same command at once and share the
    jobs. To resume a run, repeat its command.
    """
    from rollflow.bench.probes.diversity import check_distance
    from rollflow.bench.run.folder import refuse_other
    from rollflow.bench.run.plans import check, costs_of, diversity_cost
    from rollflow.bench.run.presets import experiment_of
    from rollflow.bench.run.runner import Runner, check_limits
    from rollflow.cli.settings import with_dtype
    from rollflow.cli.tables import counted
    from rollflow.engine import Pool
    from rollflow.errors import BadSetting, FolderError, RewardUnavailable
    from rollflow.models import find_model
    from rollflow.registry import assignment

    with refusing(2):
        check_limits(retries, minutes)
        if until is not None and not pool:
            raise BadSetting("--until says when a prompt of a pool stops; give --pool, too")
        model, dtype = with_dtype(model, dtype)
        pipeline = {
            "arguments": dict(map(assignment, pipeline_arg or [])),
            "device": device,
            "dtype": dtype,
            "offload": offload,
            "quantize": quantize,
            "compiled": compiled,
            "distilled": few_step,
            "revision": revision,
        }
        experiment = experiment_of(
            preset,
            model,
            family=find_model(model).suite_family,
            quick=quick,
            suite=suite,
            category=category,
            split=split,
            reward=reward,
            surrogate=surrogate,
            choose_by=choose_by,
            held_out=None if held_out is None else tuple(held_out),
            nfe=nfe,
            prompts=prompts,
            seeds=seeds,
            first_seed=first_seed,
            distance=distance,
            pool=Pool(until=until) if pool else None,
            max_rows=max_rows,
            pipeline={name: value for name, value in pipeline.items() if value not in (None, {})},
        )
        check(experiment)
        if distance not in (None, "none"):
            check_distance(distance)  # also if the preset measures none
        refuse_other(out, experiment.config(), resume=resume)
        arms = [arm.name for arm in experiment.arms_named(only or ())]
        costs = costs_of(experiment)
        total = sum(costs[arm] for arm in arms) + diversity_cost(experiment, arms)
        counts = (
            counted(len(arms), "arm"),
            counted(len(experiment.suite.items), "prompt"),
            counted(experiment.seeds, "seed"),
        )
        print(f"{', '.join(counts)}: {total} NFE")
        if dry_run:
            return
        command = shlex.join(["rollflow", *_without_only(context.obj)])
        runner = Runner(
            experiment,
            out,
            resume=resume,
            retries=retries,
            minutes=minutes,
            only=only or (),
            command=command,
            job_ended=_job_ended,
            measurement_ended=_measurement_ended,
            warn=warn,
        )
    same = "the same command" if resume else "the same command with --resume"
    interrupted, resumable, broken, code = False, True, False, 0
    try:
        with refusing(1):
            try:
                runner.run()
                for name, left in runner.unspent.items():
                    print(printable(f"{name}: {left} NFE of the pool are left"), file=sys.stderr)
            except KeyboardInterrupt:
                interrupted = True
            except RewardUnavailable:
                raise
            except FolderError as error:
                broken = True
                raise FolderError(f"{error}; {_recorded(runner, out, same)}") from error
            except Exception:
                resumable = False
                raise
    finally:
        done, jobs = len(runner.index.done), len(runner.trials)
        unmeasured = len(runner.measurements) - len(runner.index.diversity)
        if interrupted:
            why = interruption.described()
            code = errors.interrupted(f"{why}; {done} of {jobs} jobs are done, and {same} resumes the run")
        elif done < jobs and not broken:
            complain(f"{jobs - done} of {jobs} jobs are not done{_advice(runner, same if resumable else None)}")
        elif unmeasured and not broken:
            complain(f"{unmeasured} of {len(runner.measurements)} measurements of diversity are not done")
    if interrupted:
        raise typer.Exit(code)
    if done < jobs or unmeasured:
        raise typer.Exit(1)


def _without_only(words: Sequence[str]) -> list[str]:
    """Return a command line without ``--only``, which selects jobs of one run and does not describe the experiment."""
    kept, value = [], False
    for word in words:
        if value or word == "--only" or word.startswith("--only="):
            value = word == "--only" and not value
        else:
            kept.append(word)
    return kept


def _recorded(runner: Any, folder: Path, same: str) -> str:
    """Return what is safe of an experiment whose folder can no longer be used, and how to resume it."""
    done = f"{len(runner.index.done)} of {len(runner.trials)} jobs"
    if not folder.is_dir():
        return f"it has the records of {done}; put it back, or give its new path as --out, and {same} resumes the run"
    return (
        f"{done} are done and recorded; once this is fixed, {same} resumes the run, in which unfinished jobs continue "
        "from their last checkpoints"
    )


def _advice(runner: Any, same: str | None) -> str:
    """Return what can be done about unfinished jobs, given the command that resumes the run, if there is one."""
    given_up = len(runner.given_up)
    remaining = len(runner.trials) - len(runner.index.done) - given_up
    advice = ""
    if given_up:
        advice += f"; {given_up} failed too often and were given up: raise --retries to try again"
    if remaining and same:
        advice += f"; {remaining} can still run: {same} resumes the run"
    return advice


def _job_ended(trial: Any, error: Exception | None, done: int, jobs: int) -> None:
    if error is not None:
        line = f"failed: {trial.arm.name}, '{trial.item.prompt}', seed {trial.seed}: {error}"
        print(printable(" ".join(line.split())), file=sys.stderr)
    elif done % max(1, jobs // 100) == 0 or done == jobs:
        print(f"{done} of {jobs} jobs", file=sys.stderr)


def _measurement_ended(done: int, measurements: int) -> None:
    if done % max(1, measurements // 10) == 0 or done == measurements:
        print(f"{done} of {measurements} measurements of diversity", file=sys.stderr)


def pack(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished experiment.", metavar="FOLDER")],
    out: Annotated[Path | None, typer.Option(help="File to write, NAME.jsonl.gz.  [default: FOLDER.jsonl.gz]")] = None,
) -> None:
    """Pack a finished experiment into one compressed file that 'report', 'compare' and 'replay' can read.

    Pictures are omitted, since 'replay' can make them again. The folder is not changed.
    """
    from rollflow.bench.run.packed import SUFFIX
    from rollflow.bench.run.stored import pack as packed
    from rollflow.cli.tables import counted
    from rollflow.errors import BadSetting
    from rollflow.files.atomic import check_folder, create, using

    with refusing(2):
        target = out or folder.with_name(f"{folder.resolve().name}{SUFFIX}")
        if not target.name.endswith(SUFFIX):
            raise BadSetting(f"expected a file name that ends in {SUFFIX}, got '{target}'")
        content, index, jobs = packed(folder)
        check_folder(target.parent)
        with using(target.parent):
            if not create(target, content) and target.read_bytes() != content:
                raise BadSetting(f"'{target}' already exists with other content; remove it, or choose another --out")
    if len(index.done) < jobs:
        warn(f"'{folder}' is not finished: {len(index.done)} of {jobs} jobs are done; pack it again when it is")
    print(printable(f"wrote {target}: {counted(len(index.done), 'job')}, {len(content)} bytes"))


def presets() -> None:
    """List the preset experiments."""
    from rollflow.bench.run.presets import PRESETS
    from rollflow.cli.tables import aligned

    print(aligned([(name, preset.about) for name, preset in PRESETS.items()]))

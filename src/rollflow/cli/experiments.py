"""``rollflow bench run`` and ``rollflow replay``: experiments in folders."""

from __future__ import annotations

import shlex
import sys
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
    quick: Annotated[bool, typer.Option("--quick", help="Run a small version that takes minutes.")] = False,
    suite: Annotated[
        str | None,
        typer.Option(help="Suite of prompts: a name, NAME=COPY of a published set, or a file.  [default: by preset]"),
    ] = None,
    reward: Annotated[str | None, typer.Option(help="Reward that searches optimise.  [default: by preset]")] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="Held-out reward, which no search sees; repeatable.  [default: by preset]")
    ] = None,
    nfe: Annotated[int | None, typer.Option(help="Budget of every search.  [default: by preset]", min=1)] = None,
    prompts: Annotated[
        int | None, typer.Option(help="Number of prompts to take from the suite.  [default: by preset]", min=1)
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds per prompt.  [default: by preset]", min=1)] = None,
    distance: Annotated[
        str | None,
        typer.Option(help="Distance for measuring diversity: scenes, lpips or none.  [default: by model]"),
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
        bool, typer.Option("--resume/--no-resume", help="Resume an existing experiment, or refuse its folder.")
    ] = True,
    max_rows: Annotated[int, typer.Option(help="Number of rows in every call of the model.", min=1, max=4096)] = 64,
    retries: Annotated[int, typer.Option(help="Number of retries of a failed job.", min=0)] = 1,
    minutes: Annotated[float | None, typer.Option(help="Start no new jobs after this many minutes.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cost and load nothing.")] = False,
) -> None:
    """Run an experiment: every arm on every prompt with every seed.

    Any number of processes may run the same command at once; each job is done by one of them. A killed run is resumed
    by the same command.
    """
    from rollflow.bench.probes.diversity import check_distance
    from rollflow.bench.run.experiment import check, costs_of, diversity_cost
    from rollflow.bench.run.folder import refuse_other
    from rollflow.bench.run.presets import experiment_of
    from rollflow.bench.run.runner import Runner, check_limits
    from rollflow.errors import FolderError, RewardUnavailable
    from rollflow.models import find_model
    from rollflow.registry import assignment

    with refusing(2):
        check_limits(retries, minutes)
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
            reward=reward,
            held_out=None if held_out is None else tuple(held_out),
            nfe=nfe,
            prompts=prompts,
            seeds=seeds,
            distance=distance,
            max_rows=max_rows,
            pipeline={name: value for name, value in pipeline.items() if value not in (None, {})},
        )
        check(experiment)
        if distance not in (None, "none"):
            check_distance(distance)  # where a preset measures none, too
        refuse_other(out, experiment.config(), resume=resume)
        total = sum(costs_of(experiment).values()) + diversity_cost(experiment)
        print(
            f"{len(experiment.arms)} arms, {len(experiment.suite.items)} prompts, {experiment.seeds} seeds: {total} NFE"
        )
        if dry_run:
            return
        command = shlex.join(["rollflow", *context.obj])
        runner = Runner(
            experiment,
            out,
            resume=resume,
            retries=retries,
            minutes=minutes,
            command=command,
            job_ended=_job_ended,
            measurement_ended=_measurement_ended,
            warn=warn,
        )
    same = "the same command" if resume else "the same command with --resume"
    interrupted, goes_on, broken, code = False, True, False, 0
    try:
        with refusing(1):
            try:
                runner.run()
            except KeyboardInterrupt:
                interrupted = True
            except RewardUnavailable:
                raise
            except FolderError as error:
                broken = True
                raise FolderError(f"{error}; {_recorded(runner, out, same)}") from error
            except Exception:
                goes_on = False
                raise
    finally:
        done, jobs = len(runner.index.done), len(runner.trials)
        unmeasured = len(runner.measurements) - len(runner.index.diversity)
        if interrupted:
            why = interruption.described()
            code = errors.interrupted(f"{why}; {done} of {jobs} jobs are done, and {same} resumes the run")
        elif done < jobs and not broken:
            complain(f"{jobs - done} of {jobs} jobs are not done{_advice(runner, same if goes_on else None)}")
        elif unmeasured and not broken:
            complain(f"{unmeasured} of {len(runner.measurements)} measurements of diversity are left")
    if interrupted:
        raise typer.Exit(code)
    if done < jobs or unmeasured:
        raise typer.Exit(1)


def _recorded(runner: Any, folder: Path, same: str) -> str:
    """What is safe of an experiment whose folder cannot be used any more."""
    done = f"{len(runner.index.done)} of {len(runner.trials)} jobs"
    if not folder.is_dir():
        return f"it holds the {done} that are done; put it back, or say by --out where it is now, and {same} goes on"
    return (
        f"the {done} that are done are recorded, and nothing is lost of them; when that is put right, {same} goes on, "
        "with what was under way from its last checkpoints"
    )


def _advice(runner: Any, same: str | None) -> str:
    """What can be done about jobs that are not done: ``same`` is the command that goes on with them, if one does."""
    given_up = len(runner.given_up)
    left = len(runner.trials) - len(runner.index.done) - given_up
    told = []
    if given_up:
        told.append(f"{given_up} have failed too often and are given up; raise --retries to try them again")
    if left and same:
        told.append(f"{left} are left; {same} goes on")
    return "".join(f"; {one}" for one in told)


def _job_ended(trial: Any, error: Exception | None, done: int, jobs: int) -> None:
    if error is not None:
        told = f"failed: {trial.arm.name}, '{trial.item.prompt}', seed {trial.seed}: {error}"
        print(printable(" ".join(told.split())), file=sys.stderr)
    elif done % max(1, jobs // 100) == 0 or done == jobs:
        print(f"{done} of {jobs} jobs", file=sys.stderr)


def _measurement_ended(done: int, measurements: int) -> None:
    if done % max(1, measurements // 10) == 0 or done == measurements:
        print(f"{done} of {measurements} measurements of diversity", file=sys.stderr)


def pack(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished experiment.", metavar="FOLDER")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, NAME.jsonl.gz.  [default: FOLDER.jsonl.gz]", metavar="FILE")
    ] = None,
) -> None:
    """Pack a finished experiment into one compressed file, which 'report', 'compare' and 'replay' read as it is.

    Pictures are left out; 'replay' makes them again. The folder stays as it is.
    """
    from rollflow.bench.run.packed import SUFFIX
    from rollflow.bench.run.stored import pack as packed
    from rollflow.errors import BadSetting
    from rollflow.files.atomic import check_folder, create, using

    with refusing(2):
        target = out or folder.with_name(f"{folder.resolve().name}{SUFFIX}")
        if not target.name.endswith(SUFFIX):
            raise BadSetting(f"'{target}' cannot be written: expected a name that ends in {SUFFIX}")
        content, index = packed(folder)
        check_folder(target.parent)
        with using(target.parent):
            if not create(target, content) and target.read_bytes() != content:
                raise BadSetting(f"'{target}' exists already, with other content; choose another --out")
    print(printable(f"wrote {target}: {len(index.done)} jobs, {len(content)} bytes"))


def presets() -> None:
    """List the preset experiments."""
    from rollflow.bench.run.presets import PRESETS
    from rollflow.cli.tables import aligned

    print(aligned([(name, preset.about) for name, preset in PRESETS.items()]))


def replay(
    experiment: Annotated[
        Path,
        typer.Argument(help="Folder of 'rollflow bench run', or file of 'rollflow bench pack'.", metavar="EXPERIMENT"),
    ],
    job: Annotated[
        str,
        typer.Argument(
            help="Id of the job, or its beginning; ids are the names of the files in 'images'.", metavar="JOB"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, or .webp with every frame of a film.  [default: none]")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Let the experiment name modules, files, models and servers."),
    ] = False,
) -> None:
    """Make the picture of a job of an experiment again, and say whether it is the same to the last bit."""
    from rollflow.bench.replay import replay as again
    from rollflow.errors import BadSetting
    from rollflow.files.atomic import check_folder, using, write
    from rollflow.files.pictures import ENCODERS

    with refusing(2):
        if out is not None and out.suffix.lower() not in ENCODERS:
            raise BadSetting(f"'{out}' is neither a .png nor a .webp file; others would not keep every bit")
        if out is not None:
            check_folder(out.parent)
        made = again(experiment, job, trusted=trust)
        if out is not None:
            picture = ENCODERS[out.suffix.lower()](made.result.sample)
            with using(out.parent):
                write(out.parent, {out.name: picture})
    record = made.record
    told = f"{record.arm}, '{record.prompt}', seed {record.seed}: reward {made.result.reward:.6g}"
    print(printable(" ".join(told.split())))
    if not made.same:
        why = "; ".join([*made.provenance, *made.versions]) or "all else is the same, so that the processor is another"
        complain(f"the sample is not that of the journal, whose reward is {record.reward:.6g}: {why}")
        raise typer.Exit(1)
    print("the same to the last bit")

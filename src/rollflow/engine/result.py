"""Results of jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rollflow import prompts
from rollflow.dynamics.grids import GRIDS
from rollflow.dynamics.guidance import GUIDANCE
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import KERNELS
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.engine.checkpoint.file import fingerprint
from rollflow.engine.descriptions import portable
from rollflow.engine.job import Job
from rollflow.engine.meter import Spending
from rollflow.engine.pool import Round
from rollflow.engine.record import JobRecord, digest, plain, versions
from rollflow.engine.shown import result_html
from rollflow.engine.state import Origin, Point
from rollflow.errors import BadSetting, FolderError
from rollflow.files.atomic import trouble
from rollflow.files.pictures import is_film, picture, pictures, sample_files, still
from rollflow.files.run_folder import RESULT, RunFolder
from rollflow.prompts import Prompt
from rollflow.search import SEARCHES

IMAGE, FILM = "image.png", "film.webp"
"""Files of the sample in an output folder."""


@dataclass(frozen=True)
class Result:
    """The sample that a job returned, with its rewards and what it cost.

    A pickle or deep copy leaves model and rewards behind: its job can then be read, but not run.

    Args:
        job: The job.
        sample: (...) decoded sample, pixels (3, H, W) in [0, 1] for images.
        x0: (...) the same sample in the model's space.
        origin: Population and row that the sample came from.
        reward: Reward of the sample.
        surrogate: Score of the sample by the surrogate that the search optimised in place of the reward; None if it
            optimised the reward.
        chosen: Score of the sample by the reward of the final choice; None if there was nothing to choose.
        parts: Scores of the sample by the parts of a mixed reward, by name; empty for any other reward.
        held_out: Scores of the held-out rewards, by name.
        missing: Reasons why some of these scores are missing, by name; the score is NaN then.
        spent: Exact account, including the final decode but not held-out scores.
        noise_level: 0 for a fully denoised sample, else the linear noise level at which the estimate was made.
        interrupted: Whether the search ended early, with the best sample so far.
        cause: Error that ended it early; None if it was the user, or if it ran to its end.
        trace: Best score so far by what the search optimises (``objective``), one point per rise and one at the end.
            Populations are taken in lockstep, as if all spent at the same rate, since their actual order depends on
            what else runs.
        shares: NFE that each population has spent.
        seconds: Time in calls of model, decoder and reward; for a shared call, in proportion to the job's rows.
        diagnostics: Diagnostics of the search by name, for each population that ran to its end.
        ineligible: Number of samples that could not be chosen, by where the first value that is not finite arose
            ("network", "dynamics", "decoder", "reward") or by who rejected them ("the safety checker"); under "gradient
            of the reward" the number of times that guidance had no finite gradient to follow.
        warnings: Warnings about the result, one sentence each.
        rounds: Rounds of a job that shared a pool; empty for any other job. ``job``, ``origin``, ``shares`` and
            ``diagnostics`` are then those of the round that found the sample, and the account is that of all rounds.
    """

    job: Job
    sample: Float[Tensor, "*sample"]
    x0: Float[Tensor, "*state"]
    origin: Origin
    reward: float
    parts: dict[str, float]
    held_out: dict[str, float]
    missing: dict[str, str]
    spent: Spending
    noise_level: float
    interrupted: bool
    cause: Exception | None
    trace: tuple[Point, ...]
    shares: tuple[int, ...]
    seconds: float
    diagnostics: tuple[dict[str, Any], ...] = ()
    ineligible: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    rounds: tuple[Round, ...] = ()
    surrogate: float | None = None
    chosen: float | None = None

    def __repr__(self) -> str:
        """One line; the fields are for programs, since tensors would fill pages."""
        ended = ", interrupted" if self.interrupted else ""
        return (
            f"Result(reward={self.reward:.6g}, nfe={self.spent.nfe} of {self.budget}, search={self.job.search.name}, "
            f"shape={tuple(self.sample.shape)}{ended})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {
            **vars(self),
            "job": self.job.described,
            "sample": self.sample.detach().cpu(),
            "x0": self.x0.detach().cpu(),
            "cause": None if self.cause is None else portable(self.cause),
        }

    def _repr_html_(self) -> str:
        """Show the picture, the rewards, the account and the trace in a notebook."""
        return result_html(self.to_dict(), self.sample, self.trace)

    @property
    def image(self) -> Image.Image:
        """The sample as a PIL image, of the same size and with the pixels of the saved file.

        Of a film it is the middle frame; ``images`` has all.

        Raises:
            RollflowError: If the sample is neither a picture nor a film; ``sample`` has it as a tensor.
        """
        return picture(still(self.sample))

    @property
    def images(self) -> list[Image.Image]:
        """The frames of a film as PIL images; the only image of a picture. Raises as ``image`` does."""
        return pictures(self.sample)

    @property
    def budget(self) -> int:
        """Budget in NFE, of all rounds together."""
        return sum(one.budget for one in self.rounds) if self.rounds else self.job.nfe

    @property
    def objective(self) -> float:
        """Score of the sample by what the search optimised: the surrogate if there is one, else the reward."""
        return self.reward if self.surrogate is None else self.surrogate

    @property
    def finished(self) -> bool:
        """Whether the sample is fully denoised, not an estimate made on the way."""
        return self.noise_level == 0

    def record(self) -> JobRecord:
        """Describe the job and the result in values that JSON can represent.

        Fields that only an observer or an experiment knows are added by ``dataclasses.replace``.
        """
        job, spent, device = self.job, self.spent, self.job.task.model.device
        prompt = job.task.prompt
        return JobRecord(
            prompt=str(prompt),
            ask=dict(prompt.ask) if isinstance(prompt, Prompt) else None,
            seed=self.rounds[0].seed if self.rounds else job.seed,
            noise=job.seed,
            plan=job.plan,
            reward=self.reward,
            surrogate=self.surrogate,
            chosen=self.chosen,
            parts=plain(self.parts),
            held_out=plain(self.held_out),
            missing=dict(self.missing),
            ineligible=dict(self.ineligible),
            warnings=tuple(self.warnings),
            nfe=spent.nfe,
            network_rows=spent.network_rows,
            reward_calls=spent.reward_calls,
            decodes=spent.decodes,
            backward_passes=spent.backward_passes,
            noise_level=self.noise_level,
            origin=self.origin,
            seconds=round(self.seconds, 4),
            trace=self.trace if self.surrogate is None else (Point(spent.nfe, self.reward),),
            diagnostics=tuple(plain(one) for one in self.diagnostics),
            sha256=digest(self.sample),
            device=None if device is None else str(device),
            threads=torch.get_num_threads(),
            versions=versions(),
            rounds=tuple(self.rounds),
        )

    def to_dict(self) -> dict[str, Any]:
        """Describe the result in values that JSON can represent: ``content`` without the names of files."""
        return {name: value for name, value in self.content().items() if name not in ("image", "film")}

    def content(self) -> dict[str, Any]:
        """Return the content of ``result.json``, except for the parts that need an observer of the search.

        It consists of the record of the job with its plan, and of what readers look for first: the names of model,
        search and sampler, the budget, and whether the search ran to its end.
        """
        job, record = self.job, self.record().to_json()
        used = job.dynamics.sampler
        structured = any(reward.structured for reward in (job.task.reward, *job.task.held_out))
        content: dict[str, Any] = {
            "version": record["version"],
            "prompt": str(job.task.prompt),
            **({"ask": prompts.asked(job.task.prompt)} if structured else {}),
            "model": job.task.model.name,
            "method": _name(job.search, SEARCHES),
            "interpolant": _name(used.interpolant, INTERPOLANTS),
            "kernel": _name(used.kernel, KERNELS),
            "grid": _name(used.grid, GRIDS),
            "lookahead": _name(used.lookahead, LOOKAHEADS),
            "guidance": None if used.guidance is None else _name(used.guidance, GUIDANCE),
            "finish": used.finish,
            "steps": used.steps,
            "seed": record["seed"],
            "nfe_budget": self.budget,
            "nfe_used": self.spent.nfe,
            "network_rows": self.spent.network_rows,
            "reward_calls": self.spent.reward_calls,
            "decodes": self.spent.decodes,
            "backward_passes": self.spent.backward_passes,
            "reward_name": job.task.reward.name,
            "reward": record["reward"],
            **({} if job.task.surrogate is None else {"surrogate_name": job.task.surrogate.name}),
            **({} if job.task.choice is None else {"chosen_by": job.task.choice.reward.name}),
            **({"parts": record["parts"]} if self.parts else {}),
            "held_out": record.get("held_out", {}),
            "warnings": [*self.warnings],
            "finished": self.finished,
            "noise_level": self.noise_level,
            "interrupted": self.interrupted,
            **({"cause": str(self.cause)} if self.cause is not None else {}),
            "image": IMAGE,
            **({"film": FILM} if is_film(self.sample) else {}),
        }
        return content | {name: value for name, value in record.items() if name not in content}

    def save(self, folder: Path | str) -> None:
        """Write the sample and ``result.json`` to a folder, from which ``rollflow generate --from`` repeats the run.

        ``Plan.run`` writes more to its folder: plots, filmstrip and the NFE of each step, which need an observer of
        the search; the plain sample; and a checkpoint while the search runs.

        Args:
            folder: Output folder, created if need be; files of an earlier run are replaced, those of the user are not.

        Raises:
            BadSetting: If the folder holds files of the user with the same names.
            FolderError: If it cannot be written to, or another run is writing to it.
        """
        with RunFolder(Path(folder)) as out:
            names = [IMAGE, RESULT, *([FILM] if is_film(self.sample) else [])]
            refuse_foreign(out, names)
            content = self.content() | {"job": job_digest(fingerprint(self.job))}
            try:
                out.keep(content, sample_files(self.sample, IMAGE, FILM))
            except OSError as error:
                raise FolderError(trouble(out.path, error)) from error
            out.remove_earlier()


def job_digest(fingerprint: Mapping[str, str]) -> str:
    """Return the digest of a fingerprint, which distinguishes the results of one job from those of another."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()


def refuse_foreign(out: RunFolder, names: Sequence[str], others: Sequence[str] = ()) -> None:
    """Refuse a folder in which files of the user would be replaced.

    Args:
        out: Output folder.
        names: Names of the files that are about to be written.
        others: Names of further files that are known to be the user's.

    Raises:
        BadSetting: If a file has one of the names and rollflow did not write it.
    """
    foreign = [*out.foreign(names), *others]
    if foreign:
        raise BadSetting(
            f"'{out.path}' holds {', '.join(foreign)}, which rollflow did not write, or which was changed since "
            "(earlier releases did not mark their files); move it away, or choose another folder (--out)"
        )


def _name(thing: object, registry: Mapping[str, type]) -> str:
    """The registered name of an object with default settings, else its settings in full."""
    for name, kind in registry.items():
        with suppress(TypeError):  # of a kind that has no default settings
            if type(thing) is kind and thing == kind():
                return name
    return repr(thing) if is_dataclass(thing) else type(thing).__qualname__

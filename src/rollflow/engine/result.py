"""What came of a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rollflow.engine.described import portable
from rollflow.engine.job import Job
from rollflow.engine.meter import Spending
from rollflow.engine.record import JobRecord, digest, plain, versions
from rollflow.engine.state import Origin, Point
from rollflow.prompts import Prompt


@dataclass(frozen=True)
class Result:
    """What a job returned, and what it spent.

    Args:
        job: The job.
        sample: Decoded, (...), pixels (3, H, W) in [0, 1] for images.
        x0: The same in the model's space.
        origin: The population and the row it came from.
        reward: Of the sample.
        parts: What the parts of a mixed reward say of it, by name, scored once more; empty where it is not mixed.
        held_out: Held-out rewards by name.
        missing: Why one of these could not be had, by name; it is NaN then, since the sample is there.
        spent: Exact account, the final decode included, held-out scoring not.
        noise_level: 0 for a fully denoised sample, else the linear noise level at which the estimate was made.
        interrupted: Whether the search was stopped early, the sample being the best until then ...
        cause: ... and by what; None is the user.
        trace: Best reward so far against NFE, one point a rise and one at the end. Populations are taken in lockstep,
            as if all spent at the same rate, since which of them is really first depends on what else runs.
        shares: NFE that each population has spent.
        seconds: Spent in calls of model, decoder and reward; of a call that was shared, its rows' share.
        diagnostics: Of each population that ran to its end, the search's own figures by name.
        ineligible: How many samples could not be chosen, by where the first value that is not finite arose ("network",
            "dynamics", "decoder", "reward") or by who rejected them ("the safety checker"); under "gradient of the
            reward" how many times guidance had no finite gradient to follow.
        warnings: What the user should know of all this, a sentence each.

    Pickled, or copied deeply, it leaves model and rewards behind: its job can then be read, but not run.
    """

    job: Job
    sample: Tensor
    x0: Tensor
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

    def __getstate__(self) -> dict[str, Any]:
        return {
            **vars(self),
            "job": self.job.described,
            "sample": self.sample.detach().cpu(),
            "x0": self.x0.detach().cpu(),
            "cause": None if self.cause is None else portable(self.cause),
        }

    @property
    def finished(self) -> bool:
        """Whether the sample is fully denoised, not a clean estimate on the way."""
        return self.noise_level == 0

    def record(self) -> JobRecord:
        """Describe the job and the result in values that JSON has.

        What only an observer or an experiment knows is added by ``dataclasses.replace``.
        """
        job, spent, device = self.job, self.spent, self.job.task.model.device
        prompt = job.task.prompt
        return JobRecord(
            prompt=str(prompt),
            ask=dict(prompt.ask) if isinstance(prompt, Prompt) else None,
            seed=job.seed,
            noise=job.seed,
            plan=job.plan,
            reward=self.reward,
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
            trace=self.trace,
            diagnostics=tuple(plain(one) for one in self.diagnostics),
            sha256=digest(self.sample),
            device=None if device is None else str(device),
            threads=torch.get_num_threads(),
            versions=versions(),
        )

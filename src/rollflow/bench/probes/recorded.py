"""Recorded rewards as a model and a reward, on which searches that choose among trajectories run for nothing."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollflow.canonical import digest
from rollflow.dynamics.grids import Levels
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler
from rollflow.engine import Job, Task
from rollflow.errors import BadSetting
from rollflow.files.atomic import open_regular
from rollflow.models.base import FlowModel
from rollflow.particles.rng import Noise
from rollflow.rewards.base import RewardModel
from rollflow.sampler import Sampler
from rollflow.search.base import ScheduledSearch, Search
from rollflow.search.best_of_n import BestOfN
from rollflow.search.halving import Halving
from rollflow.search.profile import MAX_BYTES, UNREADABLE, Profile
from rollflow.search.propagator import Propagator

REPLAYABLE = BestOfN, Halving
"""Searches that begin trajectories and only ever drop some, which is all that recorded rewards can answer."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Rewards of recorded trajectories, on which a search runs as on a model.

    Args:
        rewards: (P, n, K + 1) finite rewards of n trajectories of P prompts: of the clean estimates at K evaluation
            times, and last of all of the finished samples.
        levels: K linear noise levels of the evaluation times, falling from 1.
    """

    rewards: NDArray[np.float64]
    levels: tuple[float, ...]

    @property
    def prompts(self) -> int:
        """Number P of prompts."""
        return int(self.rewards.shape[0])

    @property
    def trajectories(self) -> int:
        """Number n of trajectories of each prompt."""
        return int(self.rewards.shape[1])

    @property
    def steps(self) -> int:
        """Number K of evaluation times, which is the NFE of one trajectory."""
        return int(self.rewards.shape[2]) - 1

    @property
    def sampler(self) -> Sampler:
        """Dynamics under which states keep their names: the ODE at the recorded levels. Finishing is free."""
        return Sampler(Linear(), Euler(), Levels(self.levels), self.steps, finish=True)

    @cached_property
    def _model(self) -> RecordedModel:
        return RecordedModel(self.levels)

    @cached_property
    def _reward(self) -> RecordedReward:
        return RecordedReward(self.rewards)

    def job(self, search: Search, nfe: int, prompt: int, seed: int) -> Job:
        """Return a run of a search on one prompt.

        Its i-th trajectory is the one whose first noise has the i-th place among n draws, in order of size, so that
        seeds draw trajectories without replacement, in any order with equal probability.

        Raises:
            BadSetting: If the search does more than choose among trajectories, or asks for more than there are.
            BudgetTooSmall: If the search cannot run in ``nfe``.
        """
        check_replayable(search)
        number = prompt + self.prompts * seed  # other trajectories for every prompt
        job = Job(Task(self._model, f"{prompt}/{number}", self._reward), search, nfe, number, self.sampler)
        assert isinstance(job.search, ScheduledSearch)
        asked = job.search.bought(Propagator(job.dynamics, _noise(number), nfe)).stages[0].rows
        if asked > self.trajectories:
            raise BadSetting(
                f"{search.name} begins {asked} trajectories in {nfe} NFE, and {self.trajectories} of each prompt are "
                "recorded; choose a smaller budget, or record more"
            )
        return job

    def best_of(self, n: int) -> NDArray[np.float64]:
        """Return the expected finished reward of the best of ``n`` trajectories of each prompt, (P,).

            E = sum_k f_(k) C(k - 1, n - 1) / C(N, n)

        over the N recorded finished rewards f_(1) <= ... <= f_(N), of which n are drawn without replacement.

        Raises:
            BadSetting: Unless 1 <= n <= N.
        """
        most = self.trajectories
        if not 1 <= n <= most:
            raise BadSetting(f"expected the best of 1 to {most} recorded trajectories, got {n}")
        ways = math.comb(most, n)
        weights = np.array([math.comb(k - 1, n - 1) / ways for k in range(1, most + 1)])
        return np.asarray(np.sort(self.rewards[:, :, -1], 1) @ weights)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a profile that ``rollflow bench profile`` wrote, or a NumPy array (.npy, or the only one of a .npz).

        Raises:
            BadSetting: If the file cannot be read, or holds something else.
        """
        try:
            with open_regular(path, MAX_BYTES) as file:
                content = file.read()
            about, array = _array_of(content)
        except UNREADABLE as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BadSetting(f"'{path}' cannot be read as recorded rewards: {why}") from None
        if about:
            profile = Profile.load(path)
            return cls(profile.trajectories, (1.0, *profile.levels[1:]))
        return cls.of(array)

    @classmethod
    def of(cls, array: NDArray[Any]) -> Recording:
        """Return the recording of an array (prompts, trajectories, steps + 1), at evenly spaced noise levels.

        A reward of -inf, of a sample that must not be chosen, becomes the lowest other one of its prompt.

        Raises:
            BadSetting: If it is of another shape, or has values that are no rewards.
        """
        if array.ndim != 3 or min(array.shape) < 1 or array.shape[2] < 2 or array.dtype.kind not in "fiu":
            raise BadSetting(
                f"recorded rewards have type {array.dtype} and shape {array.shape}; expected numbers "
                "(prompts, trajectories, steps + 1), the finished reward last"
            )
        rewards: NDArray[np.float64] = array.astype(np.float64)
        finite = np.isfinite(rewards)
        if (~finite & ~np.isneginf(rewards)).any() or not finite.any((1, 2)).all():
            raise BadSetting("recorded rewards must be numbers or -inf, with a finite one for every prompt")
        lowest = np.where(finite, rewards, np.inf).min((1, 2), keepdims=True)
        steps = array.shape[2] - 1
        return cls(np.where(finite, rewards, lowest), tuple(1 - k / steps for k in range(steps)))


def _array_of(content: bytes) -> tuple[bool, NDArray[Any]]:
    """Return whether a file is a profile, and the array of any other."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return False, np.load(io.BytesIO(content), allow_pickle=False)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"it holds {size:,} bytes, more than {MAX_BYTES:,}")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        names = list(arrays.files)
        if "about" in names:
            return True, np.empty(0)
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} arrays ({', '.join(names[:5])}); give a file with one")
        return False, arrays[names[0]]


def check_replayable(search: Search) -> None:
    """Raise a BadSetting if a search does more than choose among trajectories."""
    if not isinstance(search, REPLAYABLE):
        names = " and ".join(kind.name for kind in REPLAYABLE)
        raise BadSetting(
            f"{search.name} makes trajectories that were not recorded: it branches, or moves noises; recorded rewards "
            f"can only replay searches that drop trajectories: {names}"
        )


class RecordedModel(FlowModel):
    """A model whose states name a trajectory, and whose clean estimates name a trajectory and a time.

    The first number of a state is that of its first noise, and has no velocity. The velocity of the second is such that
    its clean estimate is the number of the evaluation time, or of the finished sample at the last.

    Args:
        levels: K linear noise levels of the evaluation times.
    """

    name = "recorded"
    description = "trajectories whose rewards were recorded"
    dtype = torch.float64
    shape = (2,)

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = tuple(levels)

    def encode(self, prompt: str) -> None:
        """Return None: only the reward depends on the prompt."""

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        time = (t[:, None] - torch.tensor(self.levels, dtype=torch.float64)).abs().argmin(1)
        time = torch.where(time == len(self.levels) - 1, len(self.levels), time)  # the end, since finishing is free
        return torch.stack([torch.zeros_like(t), (x[:, 1] - time) / t], 1)


class RecordedReward(RewardModel):
    """The recorded reward of the trajectory and the time that a clean estimate names.

    Args:
        rewards: (P, n, K + 1) recorded rewards.
    """

    name = "recorded"
    description = "recorded rewards"
    batch_size = 1 << 14
    probed = False  # of samples that name no trajectory

    def __init__(self, rewards: NDArray[np.float64]) -> None:
        self.rewards = rewards

    @property
    def identity(self) -> str:
        return f"recorded {digest(repr(self.rewards.shape), self.rewards.tobytes().hex())}"

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        found = torch.empty(len(samples), dtype=torch.float64)
        of = dict[str, list[int]]()
        for i, text in enumerate(prompts):
            of.setdefault(text, []).append(i)
        for text, rows in of.items():
            prompt, number = map(int, text.split("/"))
            noises = _noises(number, self.rewards.shape[1])
            first, time = samples[rows].numpy().T
            above = (
                np.searchsorted(noises, first).clip(1, len(noises) - 1) if len(noises) > 1 else np.zeros(len(rows), int)
            )
            place = np.where(first - noises[above - 1] < noises[above] - first, above - 1, above)
            if np.abs(noises[place] - first).max() > 1e-9:
                raise BadSetting("a search asked for a trajectory that was not recorded")
            found[rows] = torch.from_numpy(self.rewards[prompt, place, time.round().astype(int)])
        return found


def _noise(number: int) -> Noise:
    return Noise(number, 0, RecordedModel.shape, RecordedModel.dtype)


@lru_cache(maxsize=1 << 12)
def _noises(number: int, trajectories: int) -> NDArray[np.float64]:
    """Return the first numbers of the first noises of all trajectories of a job, rising."""
    drawn = _noise(number).normals(0, range(trajectories), [0] * trajectories)[:, 0]
    return np.sort(drawn.numpy())

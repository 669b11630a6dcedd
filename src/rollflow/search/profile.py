"""Profiles: where along a trajectory a model and a reward make choosing pay, measured once and kept in a file."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rollflow.errors import BadSetting

FORMAT = "rollflow profile 1"
MAX_BYTES = 2**26
"""Largest profile file, in bytes."""
PACKAGED = Path(__file__).parent / "profiles"


@dataclass(frozen=True, eq=False)
class Profile:
    """Rewards of siblings' clean estimates and of the samples that they end in, for each time at which siblings part.

    For every prompt and every evaluation time number k there are n parents at time k - 1, or none at k = 0, and m
    siblings of each, whose trajectories go on to the end. ``rewards[p, k, i, j, l]`` is the reward of the clean
    estimate at time l of sibling j of parent i, and at l = K that of its finished sample; it is NaN for l < k. The
    siblings of k = 0 are n m independent trajectories, and the first n of them are the parents of all others.

    Args:
        model: Name of the model.
        reward: Name of the reward.
        sampler: Sampler of the trajectories, in words.
        seed: Seed of all noise.
        prompts: P prompts.
        levels: K linear noise levels of the evaluation times, falling.
        rewards: (P, K, n, m, K + 1) float32.
    """

    model: str
    reward: str
    sampler: str
    seed: int
    prompts: tuple[str, ...]
    levels: tuple[float, ...]
    rewards: NDArray[np.float32]

    def __post_init__(self) -> None:
        times, shape = len(self.levels), self.rewards.shape
        fits = len(shape) == 5 and shape[:2] == (len(self.prompts), times) and shape[4] == times + 1
        if not fits or min(shape) < 1 or shape[3] < 2:
            raise BadSetting(
                f"rewards of a profile of {len(self.prompts)} prompts and {times} times have shape {shape}; expected "
                f"({len(self.prompts)}, {times}, parents, siblings >= 2, {times + 1})"
            )
        for k in range(times):
            if not np.isfinite(self.rewards[:, k, :, :, k:]).all():
                raise BadSetting(f"a profile holds rewards at time {k} that are not finite; measure it again")

    @property
    def trajectories(self) -> NDArray[np.float64]:
        """(P, n m, K + 1) rewards of independent trajectories at every time, those of the finished samples last."""
        first = self.rewards[:, 0].astype(np.float64)
        return first.reshape(len(first), -1, first.shape[-1])

    def estimates(self, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rewards of siblings' estimates at time k, and of their finished samples: (P, n, m) each."""
        block = self.rewards[:, k].astype(np.float64)
        return block[..., k], block[..., -1]

    def gains(self) -> NDArray[np.float64]:
        """(P, K) sibling gains: what choosing the best of siblings at time k gains in the finished reward.

            kappa_k = mean over parents of cov(y, f | siblings) / sd(y | siblings)

        with y the reward of an estimate at time k and f that of its finished sample; 0 for parents whose siblings have
        equal y. For the best of M siblings the expected gain is about kappa_k times the expected maximum of M standard
        normal variables. Unpublished.
        """
        return np.stack([self._gain(k) for k in range(len(self.levels))], 1)

    def _gain(self, k: int) -> NDArray[np.float64]:
        y, f = self.estimates(k)
        if k == 0:  # none of them has a parent, so that all are siblings
            y, f = y.reshape(len(y), 1, -1), f.reshape(len(f), 1, -1)
        y, f = y - y.mean(-1, keepdims=True), f - f.mean(-1, keepdims=True)
        free = y.shape[-1] - 1
        spread = np.sqrt((y**2).sum(-1) / free)
        same = spread <= 1e-9
        gains = np.where(same, 0.0, (y * f).sum(-1) / free / np.where(same, 1.0, spread))
        return np.asarray(gains.mean(-1))

    def decided(self) -> NDArray[np.float64]:
        """(K - 1,) shares of the variance of the finished reward that the state at times 0 ... K - 2 has decided.

        The intraclass correlation of a one-way analysis of variance (Shrout & Fleiss 1979,
        doi.org/10.1037/0033-2909.86.2.420, case 1) of siblings that part at the next time, with the mean
        squares averaged over prompts.
        """
        shares = []
        for k in range(1, len(self.levels)):
            _, f = self.estimates(k)
            m = f.shape[-1]
            between = m * f.mean(-1).var(-1, ddof=1).mean()
            within = f.var(-1, ddof=1).mean()
            total = between + (m - 1) * within
            shares.append(max(0.0, (between - within) / total) if total > 0 else math.nan)
        return np.array(shares)

    def to_bytes(self) -> bytes:
        """Return the content of a profile file: a NumPy archive (``numpy.load``) of the fields, without pickles."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            format=np.array(FORMAT),
            model=np.array(self.model),
            reward=np.array(self.reward),
            sampler=np.array(self.sampler),
            seed=np.array(self.seed),
            prompts=np.array(self.prompts),
            levels=np.array(self.levels),
            rewards=self.rewards,
        )
        return file.getvalue()

    @classmethod
    def load(cls, path: Path | str) -> Profile:
        """Read a profile file.

        Raises:
            BadSetting: If there is no such file, or it is not a profile.
        """
        try:
            return cls._read(Path(path))
        except BadSetting as error:
            raise BadSetting(f"'{path}' is not a profile: {error}") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadSetting(
                f"'{path}' cannot be read as a profile ({error}); give a file that 'rollflow bench profile' wrote"
            ) from None

    @classmethod
    def _read(cls, path: Path) -> Profile:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > MAX_BYTES:
                raise ValueError(f"it holds {size} bytes, more than {MAX_BYTES}")
        with np.load(path, allow_pickle=False) as content:
            if str(content["format"]) != FORMAT:
                raise ValueError(f"its format is '{content['format']!s:.40}', expected '{FORMAT}'")
            return cls(
                str(content["model"]),
                str(content["reward"]),
                str(content["sampler"]),
                int(content["seed"]),
                tuple(map(str, content["prompts"])),
                tuple(map(float, content["levels"])),
                content["rewards"].astype(np.float32),
            )


def packaged(model: str, reward: str) -> Profile | None:
    """Return the profile of a model and a reward, by name, that is part of the library; None if there is none."""
    path = PACKAGED / f"{model}-{reward}.npz"
    return Profile.load(path) if path.is_file() else None

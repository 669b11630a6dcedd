"""Profiles: where along a trajectory a model and a reward make choosing pay, measured once and kept in a file."""

from __future__ import annotations

import functools
import io
import json
import math
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollflow.checks import MOST_SEED, each, instance, real, refused, text, whole
from rollflow.errors import BadSetting, RollflowWarning
from rollflow.files.atomic import open_regular
from rollflow.files.documents import read_json
from rollflow.search.purpose import Purpose

FORMAT = "rollflow profile 1"
MAX_BYTES = 2**26
"""Largest profile, in bytes of its file and of what that holds."""
PACKAGED = Path(__file__).parent / "profiles"
_NAME = re.compile(r"[\w-]{1,100}")


@dataclass(frozen=True, eq=False)
class Profile:
    """Rewards of siblings' clean estimates and of the samples that they end in, for each time at which siblings part.

    For every prompt and every evaluation time number k there are n parents at time k - 1, or none at k = 0, and m
    siblings of each, whose trajectories go on to the end. ``rewards[p, k, i, j, l]`` is the reward of the clean
    estimate at time l of sibling j of parent i, and at l = K that of its finished sample; it is NaN for l < k, and -inf
    where the sample must not be chosen, which counts as the lowest other reward of its prompt. The siblings of k = 0
    are n m independent trajectories, and the first n of them are the parents of all others.

    Args:
        model: Name of the model.
        reward: Name of the reward.
        interpolant: Interpolant of the trajectories, as text.
        kernel: Kernel of the trajectories, as text.
        seed: Seed of all noise.
        prompts: P prompts.
        levels: K linear noise levels of the evaluation times, falling.
        rewards: (P, K, n, m, K + 1) float32, with n and m at least 2.
        digest: Digest of whatever else the rewards depend on, such as weights; empty if unknown.
    """

    model: str
    reward: str
    interpolant: str
    kernel: str
    seed: int
    prompts: tuple[str, ...]
    levels: tuple[float, ...]
    rewards: NDArray[np.float32]
    digest: str = ""

    def __post_init__(self) -> None:
        for name in ("model", "reward", "interpolant", "kernel"):
            text(f"{name} of a profile", getattr(self, name))
        whole("seed of a profile", self.seed, at_least=0, at_most=MOST_SEED)
        prompts = each("prompts of a profile", self.prompts, lambda name, prompt: str(text(name, prompt)))
        object.__setattr__(self, "prompts", prompts)
        levels = each("levels of a profile", self.levels, lambda name, level: float(real(name, level, above=0)))
        object.__setattr__(self, "levels", levels)
        if not all(a > b for a, b in zip((1 + 1e-9, *levels), levels, strict=False)):
            raise refused("levels of a profile", "numbers from 1 to above 0 that fall", levels)
        if not isinstance(self.digest, str):
            raise refused("digest of a profile", "a string", self.digest)
        instance("rewards of a profile", self.rewards, np.ndarray)
        self._check_rewards()

    def _check_rewards(self) -> None:
        prompts, times, shape = len(self.prompts), len(self.levels), self.rewards.shape
        fits = len(shape) == 5 and shape[:2] == (prompts, times) and shape[4] == times + 1
        if not fits or min(shape) < 1 or min(shape[2:4]) < 2 or self.rewards.dtype != np.float32:
            raise BadSetting(
                f"rewards of a profile of {prompts} prompts and {times} levels have type {self.rewards.dtype} and "
                f"shape {shape}; expected float32 ({prompts}, {times}, parents >= 2, siblings >= 2, {times + 1})"
            )
        for k in range(times):
            known = self.rewards[:, k, :, :, k:]
            if np.isnan(known).any() or np.isposinf(known).any() or not np.isnan(self.rewards[:, k, :, :, :k]).all():
                raise BadSetting(
                    "rewards of a profile must be NaN before the siblings part, and numbers from there on; those of "
                    f"siblings that part at level {self.levels[k]:g} are not"
                )
        if not np.isfinite(self.rewards).any((1, 2, 3, 4)).all():
            raise BadSetting("a profile has a prompt of which no sample may be chosen; leave it out")

    @property
    def parents(self) -> int:
        """Number n of parents."""
        return int(self.rewards.shape[2])

    @property
    def siblings(self) -> int:
        """Number m of siblings of each parent."""
        return int(self.rewards.shape[3])

    @cached_property
    def _floored(self) -> NDArray[np.float64]:
        """The rewards with the lowest finite one of its prompt in place of every -inf."""
        values = self.rewards.astype(np.float64)
        lowest = np.where(np.isfinite(values), values, np.inf).min((1, 2, 3, 4), keepdims=True)
        return np.where(np.isneginf(values), lowest, values)

    @property
    def trajectories(self) -> NDArray[np.float64]:
        """(P, n m, K + 1) rewards of independent trajectories at every time, those of the finished samples last."""
        first = self._floored[:, 0]
        return first.reshape(len(first), -1, first.shape[-1])

    def estimates(self, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rewards of siblings' estimates at time k, and of their finished samples: (P, n, m) each."""
        block = self._floored[:, k]
        return block[..., k], block[..., -1]

    def gains(self) -> NDArray[np.float64]:
        """(P, K) sibling gains: what choosing the best of siblings at time k gains in the finished reward.

            kappa_k = mean over parents of cov(y, f | siblings) / (c_m sd(y | siblings))

        with y the reward of an estimate at time k and f that of its finished sample; 0 for parents whose siblings have
        equal y. For the best of M siblings the expected gain is about kappa_k times the expected maximum of M standard
        normal variables. c_m = E[sd] / sigma of m normal variables makes it unbiased for those, whatever m is (for six
        siblings it would be 5 % too low without). At k = 0, where nobody has a parent, all n m are siblings.
        Unpublished.
        """
        return np.stack([self._gain(k) for k in range(len(self.levels))], 1)

    def _gain(self, k: int) -> NDArray[np.float64]:
        y, f = self.estimates(k)
        if k == 0:
            y, f = y.reshape(len(y), 1, -1), f.reshape(len(f), 1, -1)
        same = np.ptp(y, -1) <= 1e-12 + 1e-6 * np.abs(y).max(-1)  # up to the rounding of float32
        y, f, free = y - y.mean(-1, keepdims=True), f - f.mean(-1, keepdims=True), y.shape[-1] - 1
        spread = np.where(same, 1.0, np.sqrt((y**2).sum(-1) / free)) * _shrinkage(free + 1)
        return np.asarray(np.where(same, 0.0, (y * f).sum(-1) / free / spread).mean(-1))

    def mean_squares(self, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(P,) mean squares of the finished rewards of siblings that part at time k >= 1: between and within parents.

        They are those of a one-way analysis of variance with the parents as groups.
        """
        _, f = self.estimates(k)
        return f.shape[-1] * f.mean(-1).var(-1, ddof=1), f.var(-1, ddof=1).mean(-1)

    def decided(self) -> NDArray[np.float64]:
        """(K - 1,) shares of the variance of the finished reward that the state at times 0 ... K - 2 has decided.

        The intraclass correlation of siblings that part at the next time (Shrout & Fleiss 1979,
        doi.org/10.1037/0033-2909.86.2.420, case 1),

            ICC = (B - W) / (B + (m - 1) W),

        with the mean squares B between and W within parents averaged over prompts. It is 0 rather than negative, and
        NaN where all finished rewards of a prompt are equal, for all prompts.
        """
        shares = []
        for k in range(1, len(self.levels)):
            between, within = (float(squares.mean()) for squares in self.mean_squares(k))
            total = between + (self.siblings - 1) * within
            shares.append(max(0.0, (between - within) / total) if total > 0 else math.nan)
        return np.array(shares)

    def to_bytes(self) -> bytes:
        """Return the content of a profile file, the same bytes for the same profile.

        It is a NumPy archive (``numpy.load``) of two arrays: ``rewards``, and ``about``, a JSON object of the other
        fields.
        """
        about = {"format": FORMAT} | {name: getattr(self, name) for name in _ABOUT}
        members = (
            ("about", np.array(json.dumps(about).encode()), zipfile.ZIP_STORED),
            ("rewards", self.rewards.astype("<f4"), zipfile.ZIP_DEFLATED),
        )
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, array, compression in members:
                member, info = io.BytesIO(), zipfile.ZipInfo(f"{name}.npy")
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
                info.create_system = 3  # the same on every system
                archive.writestr(info, member.getvalue(), compression)
        return file.getvalue()

    @classmethod
    def load(cls, path: Path | str) -> Profile:
        """Read a profile file.

        Raises:
            BadSetting: If there is no such file, or it is not a profile.
        """
        try:
            with open_regular(Path(path), MAX_BYTES) as file:
                return cls._of(file.read())
        except UNREADABLE as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BadSetting(
                f"'{path}' cannot be read as a profile: {why}; give a file that 'rollflow bench profile' wrote"
            ) from None

    @classmethod
    def _of(cls, content: bytes) -> Profile:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > MAX_BYTES:
                raise ValueError(f"it holds {size:,} bytes, more than {MAX_BYTES:,}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            about, rewards = arrays["about"], arrays["rewards"]
        if not (isinstance(about, np.ndarray) and about.dtype.kind == "S" and about.ndim == 0):
            raise ValueError("it does not say what it is of")
        fields = read_json(about.item().decode())
        if not isinstance(fields, Mapping) or fields.get("format") != FORMAT:
            got = fields.get("format") if isinstance(fields, Mapping) else fields
            raise ValueError(f"its format is {got!r:.60}, and this release reads '{FORMAT}'")
        missing = [name for name in _ABOUT if name not in fields]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        values: dict[str, Any] = {name: fields[name] for name in _ABOUT}
        return cls(**values, rewards=rewards)


_ABOUT = ("model", "reward", "interpolant", "kernel", "seed", "levels", "digest", "prompts")
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,  # an encrypted archive, or one of an unknown compression
    MemoryError,  # an array that claims to be huge
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def _shrinkage(n: int) -> float:
    """Expected standard deviation of n standard normal variables, with n - 1 in its denominator."""
    return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


@functools.cache
def packaged(model: str, reward: str) -> Profile | None:
    """Return the profile of a model and a reward, by name, that is part of the library; None if there is none."""
    if not (_NAME.fullmatch(model) and _NAME.fullmatch(reward)):
        return None
    path = PACKAGED / f"{model}-{reward}.npz"
    return Profile.load(path) if path.is_file() else None


def packaged_for(purpose: Purpose) -> Profile | None:
    """Return the profile in the library of the first of the purpose's rewards that has one; None if none has."""
    found = (packaged(purpose.model_name, reward) for reward in purpose.rewards)
    return next((profile for profile in found if profile is not None), None)


def warn_of_other(profile: Profile, purpose: Purpose) -> None:
    """Warn the user if a profile is not of a purpose's model and one of its rewards."""
    if profile.model != purpose.model_name or profile.reward not in purpose.rewards:
        told = (
            f"the profile is of '{profile.reward}' on {profile.model}, not of '{purpose.rewards[0]}' on "
            f"{purpose.model_name}"
        )
        warnings.warn(told, RollflowWarning, stacklevel=3)

"""Calls of rewards: on copies, within their batch size and the memory, checked to return one number per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rollflow.checks import whole
from rollflow.errors import BadReward, blamed
from rollflow.rewards.base import RewardModel
from rollflow.rewards.checks import check_attributes
from rollflow.runtime.callees import called


def load(reward: RewardModel) -> None:
    """Load a reward.

    Raises:
        BadReward: If it raises anything but a RollflowError.
        BadSetting: If one of its attributes has the wrong type or is out of range.
    """
    with blamed(f"reward '{reward.name}' could not be loaded", BadReward):
        reward.load()
    for part in dict.fromkeys((*reward.parts, reward)):
        check_attributes(part)  # those of a remote reward are known only now


def scored(reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> Tensor:
    """Score samples without gradients, in batches of the reward's own size; returns (B,) float64 on the CPU.

    Raises:
        BadReward: If the reward raises an exception or does not return one number per sample.
    """
    with torch.no_grad():
        return rewards_of(reward, samples, prompts)


@dataclass
class MemoryLimit:
    """The largest number of rows that fit into memory in one call, learned whenever it runs out.

    Args:
        rows: Largest number of rows; None if memory has never run out.
    """

    rows: int | None = None

    def most(self, rows: int) -> int:
        """Largest number of rows, out of ``rows``, to try in one call."""
        return rows if self.rows is None else min(self.rows, rows)

    def halve(self, tried: int) -> None:
        """Remember that a call with ``tried`` rows ran out of memory."""
        self.rows = tried // 2


def rewards_of(
    reward: RewardModel, samples: Tensor, prompts: Sequence[str], limit: MemoryLimit | None = None
) -> Tensor:
    """Score samples like ``scored``, with an autograd graph where gradients are enabled.

    The reward receives copies, so that it cannot modify the samples. If memory runs out, the batch is scored in
    halves; samples that already have their score are not scored again.

    Args:
        reward: The reward.
        samples: Decoded samples (B, ...).
        prompts: Prompt of each sample.
        limit: Limit on the samples per call; updated when memory runs out.
    """
    limit = MemoryLimit() if limit is None else limit
    answers, done = list[Tensor](), 0
    while done < len(samples):
        size = whole(f"batch_size of reward '{reward.name}'", reward.batch_size, at_least=1)
        most = min(limit.most(size), len(samples) - done)
        rows = slice(done, done + most)
        answer = _answer(reward, samples[rows], prompts[rows])
        if answer is None:  # handled here, where no frame of the error's holds memory any more
            limit.halve(most)
            free_memory()
        else:
            answers.append(answer)
            done += most
    return torch.cat(answers) if answers else torch.zeros(0, dtype=torch.float64)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one of its causes, reports that memory ran out."""
    chain: list[BaseException] = []
    while error not in chain:
        chain.append(error)
        error = error.__cause__ or error
    return any(
        isinstance(one, torch.OutOfMemoryError | MemoryError)
        or (isinstance(one, RuntimeError) and any(words in str(one).lower() for words in _OUT_OF_MEMORY))
        for one in chain
    )


_OUT_OF_MEMORY = "out of memory", "can't allocate memory", "status_alloc_failed"


def free_memory() -> None:
    """Release the cached memory of accelerators, so that blocks of other sizes can be allocated."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _answer(reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> Tensor | None:
    """Score one batch; None if memory ran out and fewer samples may fit."""
    with called(f"reward '{reward.name}' failed", BadReward):
        try:
            answer = reward.score(samples.clone(), list(prompts))
        except Exception as error:
            if len(samples) == 1 or not is_out_of_memory(error):
                raise
            return None
    return numbers_of(reward, answer, len(samples))


def numbers_of(reward: RewardModel, answer: Any, samples: int) -> Tensor:
    """Convert what a reward returned to (B,) numbers; (B, 1), and () for one sample, are accepted too.

    Raises:
        BadReward: If it is not one number per sample.
    """
    expected = f"expected one number per sample, shape ({samples},)"
    try:
        numbers = _as_tensor(answer)
    except Exception as error:
        raise BadReward(f"reward '{reward.name}' gave {_shown(answer)} for {samples} samples; {expected}") from error
    if numbers.is_complex():
        raise BadReward(f"reward '{reward.name}' gave complex numbers for {samples} samples; {expected}")
    if numbers.shape not in ((samples,), (samples, 1)) and (samples, numbers.shape) != (1, ()):
        shape = tuple(numbers.shape)
        raise BadReward(f"reward '{reward.name}' gave shape {shape} for {samples} samples; {expected}")
    numbers = numbers.reshape(samples).double().clone()  # a reward may reuse its own memory
    return numbers if torch.is_grad_enabled() else numbers.detach()


def _as_tensor(answer: Any) -> Tensor:
    """Convert to a tensor in the host's memory; raises an exception if the answer is not numeric."""
    if isinstance(answer, Tensor):
        return (answer if answer.layout == torch.strided else answer.to_dense()).cpu()
    if isinstance(answer, str | bytes | bytearray):
        raise TypeError("a string is not a number")
    if not hasattr(answer, "dtype"):
        return torch.as_tensor(answer, dtype=torch.float64)
    array = np.ma.filled(np.ma.asanyarray(answer, np.float64), np.nan) if np.ma.isMA(answer) else np.asarray(answer)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{array.dtype} is not numeric")
    return torch.from_numpy(np.array(array, np.float64))  # in native byte order and contiguous


def _shown(answer: Any) -> str:
    try:
        text = " ".join(repr(answer).split())
    except Exception:  # a broken __repr__ must not hide what is wrong
        text = ""
    return f"{type(answer).__name__} {text if len(text) <= 80 else f'{text[:77]}...'}"


class HeldOutScores(NamedTuple):
    """Scores of the returned sample by rewards that the search never saw.

    Args:
        scores: Score by reward name; NaN if it is missing.
        missing: Reason by reward name, for each missing score.
    """

    scores: dict[str, float]
    missing: dict[str, str]


def judged_by(rewards: Sequence[RewardModel], sample: Tensor, prompt: str) -> HeldOutScores:
    """Score a sample (1, ...) by each of several rewards; a reward that fails is recorded as missing."""
    held_out = HeldOutScores({}, {})
    for reward in rewards:
        try:
            score = held_out.scores[reward.name] = float(scored(reward, sample, [prompt]))
            if not math.isfinite(score):
                held_out.scores[reward.name], held_out.missing[reward.name] = math.nan, f"it gave {score}"
        except Exception as error:
            why = error.__cause__ if isinstance(error, BadReward) and error.__cause__ is not None else error
            held_out.scores[reward.name] = math.nan
            held_out.missing[reward.name] = f"{type(why).__name__}: {why}"
    return held_out


def outside(reward: RewardModel, score: float) -> float:
    """Distance of a finite score from its reward's declared range; 0 inside it and within rounding error of it."""
    if reward.bounds is None or not math.isfinite(score):
        return 0.0
    low, high = reward.bounds
    slack = 1e-3 * max([1.0, *(abs(bound) for bound in (low, high) if math.isfinite(bound))])
    beyond = max(low - score, score - high)
    return beyond if beyond > slack else 0.0

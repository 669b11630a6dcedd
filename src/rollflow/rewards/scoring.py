"""How rewards are called: on copies, within their batch size and the memory, and held to one number a sample."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
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
        BadSetting: If what it says of itself is of the wrong type or out of range.
    """
    with blamed(f"reward '{reward.name}' could not be loaded", BadReward):
        reward.load()
    for part in dict.fromkeys((*reward.parts, reward)):
        check_attributes(part)  # of a reward from elsewhere known only now


def scored(reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> Tensor:
    """Rewards (B,) in float64 on the CPU, in batches of the reward's own size.

    Raises:
        BadReward: If the reward raises an exception or does not give one number a sample.
    """
    with torch.no_grad():
        return rewards_of(reward, samples, prompts)


def rewards_of(
    reward: RewardModel, samples: Tensor, prompts: Sequence[str], limits: MutableMapping[int, int] | None = None
) -> Tensor:
    """The same, with a graph where gradients are enabled.

    The reward is given copies, so that whatever it writes to, nobody else sees. A batch for which memory runs out is
    scored in halves; samples that have their score are not scored again.

    Args:
        reward: Whose ``score`` is called.
        samples: (B, ...) decoded.
        prompts: One a sample.
        limits: The most samples that fitted into memory, by the ``id`` of the reward; kept up to date.
    """
    limits = {} if limits is None else limits
    answers, done = list[Tensor](), 0
    while done < len(samples):
        size = whole(f"batch_size of reward '{reward.name}'", reward.batch_size, at_least=1)
        most = min(size, limits.get(id(reward), size), len(samples) - done)
        rows = slice(done, done + most)
        answer = _answer(reward, samples[rows], prompts[rows])
        if answer is None:  # handled here, where no frame of the error's holds memory any more
            limits[id(reward)] = most // 2
            free_memory()
        else:
            answers.append(answer)
            done += most
    return torch.cat(answers) if answers else torch.zeros(0, dtype=torch.float64)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or what it was raised from, says that memory ran out."""
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
    """Hand cached memory of accelerators back, so that it can be had in pieces of other sizes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _answer(reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> Tensor | None:
    """Rewards of one batch; None if memory ran out and fewer samples may fit."""
    with called(f"reward '{reward.name}' failed", BadReward):
        try:
            answer = reward.score(samples.clone(), list(prompts))
        except Exception as error:
            if len(samples) == 1 or not is_out_of_memory(error):
                raise
            return None
    return _numbers(reward, answer, len(samples))


def _numbers(reward: RewardModel, answer: Any, samples: int) -> Tensor:
    """What a reward gave as (B,) numbers; (B, 1), and () for one sample, are taken for that."""
    expected = f"expected one number a sample, shape ({samples},)"
    try:
        numbers = _as_tensor(answer)
    except Exception as error:
        raise BadReward(f"reward '{reward.name}' gave {_shown(answer)} for {samples} samples; {expected}") from error
    if numbers.is_complex():
        raise BadReward(f"reward '{reward.name}' gave complex numbers for {samples} samples; {expected}")
    if numbers.shape not in ((samples,), (samples, 1)) and (samples, numbers.shape) != (1, ()):
        shape = tuple(numbers.shape)
        raise BadReward(f"reward '{reward.name}' gave shape {shape} for {samples} samples; {expected}")
    numbers = numbers.reshape(samples).double().clone()  # a reward may use its own memory again
    return numbers if torch.is_grad_enabled() else numbers.detach()


def _as_tensor(answer: Any) -> Tensor:
    """Numbers in the host's memory; raises an exception if they are none."""
    if isinstance(answer, Tensor):
        return (answer if answer.layout == torch.strided else answer.to_dense()).cpu()
    if isinstance(answer, str | bytes | bytearray):
        raise TypeError("a text is no number")
    if not hasattr(answer, "dtype"):
        return torch.as_tensor(answer, dtype=torch.float64)
    array = np.ma.filled(np.ma.asanyarray(answer, np.float64), np.nan) if np.ma.isMA(answer) else np.asarray(answer)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{array.dtype} is no number")
    return torch.from_numpy(np.array(array, np.float64))  # whatever its order of bytes and strides


def _shown(answer: Any) -> str:
    try:
        text = " ".join(repr(answer).split())
    except Exception:  # a broken __repr__ must not hide what is wrong
        text = ""
    return f"{type(answer).__name__} {text if len(text) <= 80 else f'{text[:77]}...'}"


class HeldOutScores(NamedTuple):
    """What rewards say of one sample that nothing is decided by, by name; NaN where one could not be had, and why."""

    scores: dict[str, float]
    missing: dict[str, str]


def judged_by(rewards: Sequence[RewardModel], sample: Tensor, prompt: str) -> HeldOutScores:
    """What each says of a sample (1, ...), whatever happens to it."""
    told = HeldOutScores({}, {})
    for reward in rewards:
        try:
            score = told.scores[reward.name] = float(scored(reward, sample, [prompt]))
            if not math.isfinite(score):
                told.scores[reward.name], told.missing[reward.name] = math.nan, f"it gave {score}"
        except Exception as error:
            why = error.__cause__ if isinstance(error, BadReward) and error.__cause__ is not None else error
            told.scores[reward.name] = math.nan
            told.missing[reward.name] = f"{type(why).__name__}: {why}"
    return told


def outside(reward: RewardModel, score: float) -> float:
    """How far a finite score lies outside the range that its reward declares; 0 inside, and within rounding of it."""
    if reward.bounds is None or not math.isfinite(score):
        return 0.0
    low, high = reward.bounds
    slack = 1e-3 * max([1.0, *(abs(bound) for bound in (low, high) if math.isfinite(bound))])
    beyond = max(low - score, score - high)
    return beyond if beyond > slack else 0.0

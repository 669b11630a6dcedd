"""Further requirements on rewards of pictures: a file scores as the sample that it was written from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from rollflow.cli.score import read, scores
from rollflow.errors import BadReward
from rollflow.files.pictures import ENCODERS, as_bytes
from rollflow.rewards import RewardModel
from rollflow.rewards.scoring import scored
from rollflow.testing import RewardSuite


class PictureRewardSuite(RewardSuite):
    """The suite of rewards, extended; its samples must be pictures of a size that the reward accepts.

    Attributes:
        rounding: Largest change of a score by rounding to the eight bits of a file; 0 if the reward rounds itself.
    """

    rounding: ClassVar[float] = 0.0

    def assert_same(self, reward: RewardModel, sample: Tensor, prompt: str, path: Path) -> None:
        path.write_bytes(ENCODERS[path.suffix](sample))
        kept = read(path)
        rounded = as_bytes(sample).float() / 255
        assert torch.equal(kept, rounded)
        [of_file] = scores(reward, [kept], prompt)
        of_sample, of_rounded = (float(scored(reward, one[None], [prompt])) for one in (sample, rounded))
        assert of_file == of_rounded
        assert abs(of_file - of_sample) <= self.rounding

    @pytest.mark.parametrize("name", ["picture.png", "picture.webp"])
    def test_a_picture_scores_as_its_sample(
        self, name: str, reward: RewardModel, samples: Tensor, prompts: Sequence[str], tmp_path: Path
    ) -> None:
        for sample, prompt in zip(samples, prompts, strict=True):
            self.assert_same(reward, sample, prompt, tmp_path / name)

    def test_a_film_scores_as_its_sample(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str], tmp_path: Path
    ) -> None:
        """Even if the file merges equal frames, as it does here with three and two."""
        film = samples[[0, 0, 0, 1, 1]]
        self.assert_same(reward, film, prompts[0], tmp_path / "film.webp")
        of_frames = [float(scored(reward, frame[None], prompts[:1])) for frame in film]
        assert scored(reward, film[None], prompts[:1]).tolist() == pytest.approx(
            [math.fsum(of_frames) / 5], abs=1e-4, rel=1e-4
        )

    @pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1), (7, 5), (1, 101)], ids=str)
    def test_pictures_of_any_size_are_scored_or_refused(
        self, size: tuple[int, int], reward: RewardModel, prompts: Sequence[str]
    ) -> None:
        picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2))
        why = reward.unfit((3, *size))
        if why is None:
            score = float(scored(reward, picture, prompts[:1]))
            low, high = reward.bounds or (-math.inf, math.inf)
            assert math.isfinite(score)
            assert low - self.tolerance <= score <= high + self.tolerance
        else:
            assert f"{size[1]} x {size[0]}" in why
            with pytest.raises(BadReward, match=r"cannot score these samples: .* \d+ x \d+; "):
                reward.score(picture, prompts[:1])

    @pytest.mark.parametrize("shape", [(8, 8), (1, 1, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8), (1, 1, 2, 3, 8, 8)], ids=str)
    def test_what_is_no_picture_is_refused(
        self, shape: tuple[int, ...], reward: RewardModel, prompts: Sequence[str]
    ) -> None:
        with pytest.raises(BadReward, match=r"expected pictures \(3, H, W\)"):
            reward.score(torch.rand(shape), prompts[:1])

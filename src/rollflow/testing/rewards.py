"""The contract of rewards: one number per sample that depends on nothing else, and gradients if declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from rollflow.registry import settings_of
from rollflow.rewards import REWARDS, RewardModel
from rollflow.testing.values import assert_one_line, docstring, undisturbed


class RewardSuite:
    """Tests of a reward; a subclass provides ``reward``, ``samples`` (B, ...) as decoded, and a prompt for each::

        class TestBrightness(RewardSuite):
            @pytest.fixture
            def reward(self):
                return Brightness()

            @pytest.fixture
            def samples(self):
                return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))

            @pytest.fixture
            def prompts(self):
                return ["warm", "cold", "cold", "warm", "cold"]

    Provide at least two samples with different rewards.

    Attributes:
        tolerance: Largest relative and absolute difference of a sample's reward between batches.
    """

    tolerance: ClassVar[float] = 1e-4

    @pytest.fixture
    def reward(self) -> RewardModel:
        """Return the reward under test; every test calls this, so load a slow reward only once, outside of it."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'reward'")

    @pytest.fixture
    def samples(self) -> Tensor:
        """Return decoded samples (B, ...)."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'samples'")

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        """Return the prompt of each sample."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'prompts'")

    def _assert_close(self, ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(ours, theirs, rtol=self.tolerance, atol=self.tolerance)

    def test_it_says_what_it_is(self, reward: RewardModel) -> None:
        """Name and description have one line each, and its held-out rewards exist.

        A class that can be created from its name alone has the same attributes as its objects, since they are read
        before there is an object.
        """
        docstring(type(reward))
        assert_one_line(reward.name, "name")
        assert_one_line(reward.description, "description")
        alone = all(setting.default is not setting.empty for setting in settings_of(type(reward)).values())
        for name in ("name", "description", "differentiable", "held_out") if alone else ():
            of_class = getattr(type(reward), name, None)
            assert of_class == getattr(reward, name), f"{name} is {of_class!r} for the class, but not for the object"
        assert reward.name not in reward.held_out, "a reward cannot be held out from itself"
        for judge in reward.held_out:
            REWARDS.find(judge)

    def test_one_finite_number_a_sample(self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> None:
        """Rewards are finite, of shape (B,) also for a single sample, and not all the same."""
        with torch.no_grad():
            rewards, one = reward.score(samples, prompts), reward.score(samples[:1], prompts[:1])
        assert (rewards.shape, one.shape) == ((len(samples),), (1,))
        assert rewards.isfinite().all()
        assert len(samples) > 1
        assert rewards.max() > rewards.min(), "all samples have the same reward; give some that differ"

    def test_scores_are_within_what_is_declared(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]
    ) -> None:
        """``unfit`` accepts the samples, and their scores lie within ``bounds``."""
        assert reward.unfit(tuple(samples.shape[1:])) is None
        with torch.no_grad():
            rewards = reward.score(samples, prompts)
        if reward.bounds is not None:
            low, high = reward.bounds
            assert low < high
            assert low - self.tolerance <= rewards.min() <= rewards.max() <= high + self.tolerance

    def test_samples_do_not_depend_on_each_other(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]
    ) -> None:
        """Each sample is scored against its own prompt, with the same score alone and in any order."""
        with torch.no_grad():
            rewards = reward.score(samples, prompts)
            self._assert_close(reward.score(samples.flip(0), prompts[::-1]).flip(0), rewards)
            for i in range(len(samples)):
                self._assert_close(reward.score(samples[i : i + 1], prompts[i : i + 1])[0], rewards[i])

    def test_nothing_is_drawn_kept_or_written_to(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]
    ) -> None:
        """The same samples have the same rewards, to the last bit, also after other samples were scored."""
        with torch.no_grad(), undisturbed(samples):
            rewards = reward.score(samples, prompts)
            reward.score(samples[1:], prompts[1:])
            assert torch.equal(reward.score(samples, prompts), rewards)

    def test_it_takes_its_batch_size_at_once(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]
    ) -> None:
        """It scores ``batch_size`` samples in one call, the most that it will be given."""
        size = reward.batch_size
        assert isinstance(size, int)
        assert size >= 1
        rows = [i % len(samples) for i in range(size)]
        with torch.no_grad():
            few = torch.cat([reward.score(samples[i : i + 1], prompts[i : i + 1]) for i in range(len(samples))])
            self._assert_close(reward.score(samples[rows], [prompts[i] for i in rows]), few[rows])

    def test_gradients_reach_the_samples_if_it_says_so(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]
    ) -> None:
        """``differentiable`` is true if and only if gradients reach the samples; they are finite and not all zero."""
        leaf = samples.clone().requires_grad_()
        rewards = reward.score(leaf, prompts)
        gradient = torch.autograd.grad(rewards.sum(), leaf, allow_unused=True)[0] if rewards.requires_grad else None
        if not reward.differentiable:
            assert gradient is None, "gradients reach the samples, but differentiable is False"
            return
        assert gradient is not None, "no gradient reaches the samples, but differentiable is True"
        assert gradient.isfinite().all()
        assert gradient.any(), "the gradient is 0 everywhere"

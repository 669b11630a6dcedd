"""What every reward promises: one number a sample that depends on nothing else, and gradients if it says so."""

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

    Samples should be two or more, of which the reward does not think the same.

    Attributes:
        tolerance: How far the reward of a sample may depend on its batch, relative and absolute.
    """

    tolerance: ClassVar[float] = 1e-4

    @pytest.fixture
    def reward(self) -> RewardModel:
        """What is tested; asked for by every test, so that what is slow to load is best kept outside."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'reward'")

    @pytest.fixture
    def samples(self) -> Tensor:
        """Decoded samples (B, ...)."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'samples'")

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        """What each sample was asked to be."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'prompts'")

    def _assert_close(self, ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(ours, theirs, rtol=self.tolerance, atol=self.tolerance)

    def test_it_says_what_it_is(self, reward: RewardModel) -> None:
        """Name and description in one line each; its judges can be found.

        A class that can be made from its name alone says as much as its objects, since it is asked before there is one.
        """
        docstring(type(reward))
        assert_one_line(reward.name, "name")
        assert_one_line(reward.description, "description")
        alone = all(setting.default is not setting.empty for setting in settings_of(type(reward)).values())
        for name in ("name", "description", "differentiable", "held_out") if alone else ():
            told = getattr(type(reward), name, None)
            assert told == getattr(reward, name), f"the class says {name} = {told!r}, the object another"
        assert reward.name not in reward.held_out, "a reward cannot be held out from itself"
        for judge in reward.held_out:
            REWARDS.find(judge)

    def test_one_finite_number_a_sample(self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> None:
        """Of shape (B,), also for a single sample; and they are not all the same."""
        with torch.no_grad():
            rewards, one = reward.score(samples, prompts), reward.score(samples[:1], prompts[:1])
        assert (rewards.shape, one.shape) == ((len(samples),), (1,))
        assert rewards.isfinite().all()
        assert len(samples) > 1
        assert rewards.max() > rewards.min(), "all samples have the same reward; give some that differ"

    def test_scores_are_within_what_is_declared(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]
    ) -> None:
        """``unfit`` has nothing against the samples, and their scores lie within ``bounds``."""
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
        """Each is judged by its own prompt, as it would be alone and in any order."""
        with torch.no_grad():
            rewards = reward.score(samples, prompts)
            self._assert_close(reward.score(samples.flip(0), prompts[::-1]).flip(0), rewards)
            for i in range(len(samples)):
                self._assert_close(reward.score(samples[i : i + 1], prompts[i : i + 1])[0], rewards[i])

    def test_nothing_is_drawn_kept_or_written_to(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]
    ) -> None:
        """The same samples have the same rewards, to the last bit, whatever was scored in between."""
        with torch.no_grad(), undisturbed(samples):
            rewards = reward.score(samples, prompts)
            reward.score(samples[1:], prompts[1:])
            assert torch.equal(reward.score(samples, prompts), rewards)

    def test_it_takes_its_batch_size_at_once(
        self, reward: RewardModel, samples: Tensor, prompts: Sequence[str]
    ) -> None:
        """As many samples as it says it can be given, which is the most that it will be."""
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
        """``differentiable`` is true where they do, finite and not all zero, and only there."""
        leaf = samples.clone().requires_grad_()
        rewards = reward.score(leaf, prompts)
        gradient = torch.autograd.grad(rewards.sum(), leaf, allow_unused=True)[0] if rewards.requires_grad else None
        if not reward.differentiable:
            assert gradient is None, "gradients reach the samples, but differentiable is False"
            return
        assert gradient is not None, "no gradient reaches the samples, but differentiable is True"
        assert gradient.isfinite().all()
        assert gradient.any(), "the gradient is 0 everywhere"

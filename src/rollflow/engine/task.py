"""The task of a job."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rollflow.checks import each, instance
from rollflow.engine.descriptions import ModelDescription, RewardDescription
from rollflow.engine.final_choice import FinalChoice
from rollflow.errors import BadSetting
from rollflow.models.base import FlowModel, check_attributes
from rollflow.models.given import as_model
from rollflow.rewards.base import RewardModel
from rollflow.rewards.checks import check_names, check_reward


@dataclass(frozen=True)
class Task:
    """A model, a prompt, and the rewards that judge samples.

    Args:
        model: Flow model; a pair of a velocity function and a shape becomes a ``FunctionModel``, a
            loaded pipeline of diffusers a ``DiffusersModel``.
        prompt: Text of the prompt.
        reward: Reward that the sample is judged by, and that the search optimises unless there is a surrogate.
        held_out: Rewards that the search never sees, and that also score the returned sample.
        surrogate: Reward that the search optimises in place of ``reward``, such as ``reward.own_surrogate``; None if it
            optimises ``reward`` itself.
        choice: Final choice among the last candidates of the search; None returns the one that the search likes best.

    Raises:
        BadSetting: If an argument has the wrong type, there is a surrogate for a relative reward, which cannot score a
            single sample, or a final choice between samples of a relative reward, which cannot be compared.
    """

    model: FlowModel
    prompt: str
    reward: RewardModel
    held_out: tuple[RewardModel, ...] = ()
    surrogate: RewardModel | None = None
    choice: FinalChoice | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", instance("model", as_model(self.model), FlowModel))
        check_attributes(self.model)
        instance("prompt", self.prompt, str, what="a string")
        check_reward("reward", self.reward)
        held_out = each("held_out", self.held_out, check_reward, "a tuple of rewards")
        check_names("held-out reward", [reward for reward in held_out if not reward.remote])
        object.__setattr__(self, "held_out", held_out)
        if self.surrogate is not None:
            check_reward("surrogate", self.surrogate)
            if self.reward.relative:
                raise BadSetting(
                    f"reward '{self.reward.name}' compares samples with earlier ones, so that it cannot score the "
                    "result of a search by a surrogate"
                )

        if self.choice is not None:
            instance("choice", self.choice, FinalChoice)
            if self.objective.relative:
                raise BadSetting(
                    f"reward '{self.objective.name}' compares the samples of one population with each other, so that "
                    "there is no shortlist for a final choice; choose another reward"
                )

    @property
    def objective(self) -> RewardModel:
        """The reward that the search sees."""
        return self.reward if self.surrogate is None else self.surrogate

    @property
    def described(self) -> Task:
        """The task with descriptions in place of model and rewards, which take no memory and cannot be run."""
        rewards = [RewardDescription(reward) for reward in (self.reward, *self.held_out)]
        surrogate = None if self.surrogate is None else RewardDescription(self.surrogate)
        choice = None if self.choice is None else replace(self.choice, reward=RewardDescription(self.choice.reward))
        return Task(ModelDescription(self.model), self.prompt, rewards[0], tuple(rewards[1:]), surrogate, choice)

    @property
    def overlaps(self) -> bool:
        """Whether rewards can be computed while the model runs, in another process or on another device."""
        return self.objective.overlaps(self.model.device)

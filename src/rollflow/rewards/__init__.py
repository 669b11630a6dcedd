"""Rewards."""

import importlib.util
import sys

from rollflow.checks import refused
from rollflow.errors import EXTRAS, BadSetting, NotDifferentiable, RollflowError
from rollflow.registry import Registry
from rollflow.rewards.base import Card, PictureReward, RewardModel, check_attributes
from rollflow.rewards.clip.aesthetic import Aesthetic, AestheticV1
from rollflow.rewards.clip.clipscore import CLIPScore
from rollflow.rewards.clip.hpsv2 import HPSv2, HPSv21
from rollflow.rewards.clip.image_reward import ImageReward
from rollflow.rewards.clip.pickscore import PickScore
from rollflow.rewards.clip.style import Style
from rollflow.rewards.counting.counting import Counting, CountingAccuracy
from rollflow.rewards.judges.human import Human
from rollflow.rewards.judges.vlm_judge import VLMJudge
from rollflow.rewards.mixing import Lexicographic, Minimum, Mixture, RankAverage, WeightedSum
from rollflow.rewards.pixels.colorfulness import Colorfulness
from rollflow.rewards.pixels.jpeg import JpegCompressibility, JpegIncompressibility
from rollflow.rewards.remote.client import RemoteReward
from rollflow.rewards.scenes.scenes import CaptionJudgeReward, CaptionReward, CountReward, JudgeReward
from rollflow.rewards.vqa.instructblip import InstructBlipVQAScore
from rollflow.rewards.vqa.qwen_vl import QwenVQAScore
from rollflow.rewards.vqa.vqascore import VQAScore

_OWN: tuple[type[RewardModel], ...] = (
    CountReward,
    CaptionReward,
    JudgeReward,
    CaptionJudgeReward,
    VQAScore,
    InstructBlipVQAScore,
    QwenVQAScore,
    Counting,
    CountingAccuracy,
    Aesthetic,
    AestheticV1,
    ImageReward,
    PickScore,
    HPSv2,
    HPSv21,
    CLIPScore,
    Style,
    Colorfulness,
    JpegCompressibility,
    JpegIncompressibility,
    VLMJudge,
    Human,
    RemoteReward,
    WeightedSum,
    Minimum,
    Lexicographic,
    RankAverage,
)

REWARDS: Registry[RewardModel] = Registry(
    "reward",
    RewardModel,
    {reward.name: reward for reward in _OWN},
    "rollflow.rewards",
    check_attributes,
)
"""Every reward that a name on the command line makes; its weights are there after ``load`` at the latest."""


def check_reward(name: str, value: object) -> RewardModel:
    """The value if it is a reward, with the name by which accounts tell it from others; else raise a BadSetting."""
    if not isinstance(value, RewardModel):
        raise refused(name, "a RewardModel", value)
    if not isinstance(getattr(value, "name", None), str):
        raise BadSetting(f'{name}: the class {type(value).__name__} has no name; give it one: name = "..."')
    check_attributes(value)
    return value


def check_scorable(reward: RewardModel | type[RewardModel], prompt: str) -> None:
    """Check, without loading anything, that a reward and its parts read a prompt and have the packages they need.

    Raises:
        BadSetting: If one cannot read the prompt, or lacks a setting.
        RollflowError: If a package is missing.
    """
    if isinstance(reward, Mixture):
        for part in reward.parts:
            check_scorable(part, prompt)
    elif isinstance(reward, RewardModel):
        reward.check(prompt)
    else:
        reward.check_prompt(prompt)
    for package in reward.requires:
        if package in sys.modules:
            there = sys.modules[package] is not None
        else:
            there = importlib.util.find_spec(package) is not None
        if not there:
            extra = EXTRAS.get(package)
            by = f"'rollflow[{extra}]'" if extra else package
            raise RollflowError(f"reward '{reward.name}' needs the package {package}; install it with pip install {by}")


def check_differentiable(reward: RewardModel | type[RewardModel]) -> None:
    """Raises NotDifferentiable, which names the rewards that are, if this one is not."""
    if not reward.differentiable:
        names = ", ".join(name for name, known in REWARDS.items() if known.differentiable)
        raise NotDifferentiable(f"guidance needs a differentiable reward, which '{reward.name}' is not; known: {names}")


__all__ = ["REWARDS", "Card", "PictureReward", "RewardModel", "check_differentiable", "check_reward", "check_scorable"]

"""Rewards, and the table of those that can be chosen by name."""

from rollflow.registry import Registry
from rollflow.rewards.base import Card, PictureReward, RewardModel
from rollflow.rewards.checks import check_attributes
from rollflow.rewards.clip.aesthetic import Aesthetic, AestheticV1
from rollflow.rewards.clip.clipscore import CLIPScore
from rollflow.rewards.clip.hpsv2 import HPSv2, HPSv21
from rollflow.rewards.clip.image_reward import ImageReward
from rollflow.rewards.clip.pickscore import PickScore
from rollflow.rewards.clip.style import Style
from rollflow.rewards.counting.counting import Counting, CountingAccuracy
from rollflow.rewards.counting.smooth_counting import SmoothCounting
from rollflow.rewards.function import FunctionReward, RewardFunction, as_reward
from rollflow.rewards.judges.human import Human
from rollflow.rewards.judges.vlm_judge import VLMJudge
from rollflow.rewards.mixing import Lexicographic, Minimum, Pessimistic, RankAverage, WeightedSum
from rollflow.rewards.pixels.colorfulness import Colorfulness
from rollflow.rewards.pixels.jpeg import JpegCompressibility, JpegIncompressibility
from rollflow.rewards.remote.client import RemoteReward
from rollflow.rewards.scenes.scenes import CaptionJudgeReward, CaptionReward, CountReward, JudgeReward
from rollflow.rewards.scenes.smooth_count import SmoothCountReward
from rollflow.rewards.vqa.instructblip import InstructBlipVQAScore
from rollflow.rewards.vqa.qwen_vl import QwenVQAScore
from rollflow.rewards.vqa.vqascore import VQAScore
from rollflow.rewards.wrappers.augmented import Augmented
from rollflow.rewards.wrappers.soft_tifa import SoftTIFA

_OWN: tuple[type[RewardModel], ...] = (
    CountReward,
    SmoothCountReward,
    CaptionReward,
    JudgeReward,
    CaptionJudgeReward,
    VQAScore,
    InstructBlipVQAScore,
    QwenVQAScore,
    Counting,
    SmoothCounting,
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
    Pessimistic,
    Lexicographic,
    RankAverage,
    Augmented,
    SoftTIFA,
)

REWARDS: Registry[RewardModel] = Registry(
    "reward",
    RewardModel,
    {reward.name: reward for reward in _OWN},
    "rollflow.rewards",
    check_attributes,
    FunctionReward,
)
"""Every built-in reward, by its name on the command line; constructing one loads no weights before ``load``."""

__all__ = ["REWARDS", "Card", "FunctionReward", "PictureReward", "RewardFunction", "RewardModel", "as_reward"]

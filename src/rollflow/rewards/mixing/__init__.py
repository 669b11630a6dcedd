"""Rewards that are made of others."""

from rollflow.rewards.mixing.combinations import Lexicographic, Minimum, Pessimistic, RankAverage, WeightedSum
from rollflow.rewards.mixing.mixture import Mixture
from rollflow.rewards.mixing.normalization import NORMALIZATIONS, Constants, Normalization, Raw, Running

__all__ = [
    "NORMALIZATIONS",
    "Constants",
    "Lexicographic",
    "Minimum",
    "Mixture",
    "Normalization",
    "Pessimistic",
    "RankAverage",
    "Raw",
    "Running",
    "WeightedSum",
]

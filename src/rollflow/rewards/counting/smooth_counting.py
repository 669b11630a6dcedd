"""The log-probability of the counts that a prompt asks for: what searches optimise in place of ``counting``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rollflow.rewards.counting.base import CountsObjects
from rollflow.rewards.counting.boxes import Boxes
from rollflow.rewards.poisson_binomial import log_count_probability

STEEPNESS = 2.0
"""Factor of the log-odds by which a box is above its thresholds."""
FAINTEST = 0.05
"""Smallest confidence of a box that is considered, since SAM must segment each of them."""
_EPS = 1e-6  # scores are moved this far from 0 and 1, whose log-odds are infinite


class SmoothCounting(CountsObjects):
    """The log-probability that a picture has the counts that the prompt asks for; the surrogate of ``counting``.

        reward = sum over requested things c of log P(n_c = asked_c)

    n_c has a Poisson-binomial law: every box is an object with its confidence, independently of the others. With the
    thresholds of ``counting``, the confidence of a box of which the best word scores q and all words s is

        sigmoid(2 min(logit q - logit floor, logit s - logit(relative * best s of the class)))

    so that a box that ``counting`` counts is more likely an object than not, and any other less likely. Boxes of a
    confidence below 0.05 are left out; where fewer are left than asked for, each that is missing has confidence 0.05.
    The formula, the factor 2 and 0.05 are ours. The settings are those of ``CountsObjects``.

    Raises:
        NothingAsked: When scoring, if a prompt asks for no counts.
    """

    name = "counting-smooth"
    bounds = (-math.inf, 0.0)
    description = "log-probability that the requested counts are right, by GroundingDINO and SAM"
    card = CountsObjects.card._replace(range="minus infinity to 0")
    _owner: CountsObjects | None = None

    @classmethod
    def sharing(cls, other: CountsObjects) -> SmoothCounting:
        """Create it with the settings and the networks of another reward that counts."""
        made = cls(other.checkpoint, other.segmenter, str(other.device), other.batch_size, other.side)
        made.filter, made._owner = other.filter, other
        return made

    def _networks(self) -> Any:
        return super()._networks() if self._owner is None else self._owner.networks

    @torch.no_grad()
    def compared(self, pixels: Tensor, names: Sequence[str], wanted: Tensor) -> Tensor:
        scores = torch.zeros(len(pixels), dtype=torch.float64)
        for row, (picture, boxes) in enumerate(self.proposed(pixels, names)):
            logits = self.log_odds(boxes)
            considered = self.filter.sized(boxes) & (logits >= _FAINTEST_LOG_ODDS)
            boxes, logits = boxes.where(considered), logits[considered]
            distinct = self.distinct(picture, boxes)
            for kind, count in enumerate(wanted[row].tolist()):
                of_kind = logits[distinct & (boxes.kinds == kind)].cpu()
                missing = of_kind.new_full((max(0, count - len(of_kind)),), _FAINTEST_LOG_ODDS)
                scores[row] += log_count_probability(torch.cat([of_kind, missing])[None], torch.tensor([count]))[0]
        return scores

    def log_odds(self, boxes: Boxes) -> Tensor:
        """Log-odds (n,), in float64, that each box is an object."""
        peaks, scores = boxes.peaks.double(), boxes.scores.double()
        best = scores.new_zeros(1 + int(boxes.kinds.max()) if len(scores) else 0)
        best = best.scatter_reduce(0, boxes.kinds, scores, "amax")[boxes.kinds]
        by_word = peaks.logit(_EPS) - _logit(self.filter.floor)
        in_class = scores.logit(_EPS) - (self.filter.relative * best).logit(_EPS)
        return STEEPNESS * torch.minimum(by_word, in_class)


def _logit(p: float) -> float:
    return float(torch.tensor(p, dtype=torch.float64).logit(_EPS))


_FAINTEST_LOG_ODDS = _logit(FAINTEST)

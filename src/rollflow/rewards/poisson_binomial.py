"""The law of the number of independent events, such as detections that may each be real or not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_count_probability(logits: Tensor, counts: Tensor) -> Tensor:
    """Log-probability (B,), in float64, that exactly ``counts`` of n independent events happen.

    The Poisson-binomial law, built up event by event in logarithms, so that nothing underflows:

        log P_i(k) = log(exp(log P_{i-1}(k) + log(1 - p_i)) + exp(log P_{i-1}(k - 1) + log p_i))

    Exact, in O(n max(counts)) operations (Barlow & Heidtmann 1984, IEEE Transactions on Reliability 33, there without
    logarithms), and differentiable. It is -inf for more than n.

    Args:
        logits: Log-odds (B, n) of each event, n >= 0.
        counts: Numbers of events (B,), >= 0.
    """
    logits = logits.double()
    most = int(counts.max()) if len(counts) else 0
    happens, fails = F.logsigmoid(logits), F.logsigmoid(-logits)
    law = logits.new_zeros(len(logits), 1)  # of the first i events: only what is possible, so that all is finite
    for log_p, log_q in zip(happens.unbind(1), fails.unbind(1), strict=True):
        without, with_ = law + log_q[:, None], law + log_p[:, None]
        between = torch.logaddexp(without[:, 1:], with_[:, :-1])
        law = torch.cat([without[:, :1], between, with_[:, -1:]], 1)[:, : most + 1]
    law = F.pad(law, (0, most + 1 - law.shape[1]), value=-torch.inf)
    return law.gather(1, counts[:, None].to(law.device))[:, 0]

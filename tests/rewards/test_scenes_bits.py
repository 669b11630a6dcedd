"""What was made faster gives the bits that the plain form gives; whole jobs are compared in test_replay_committed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rollflow.models.scenes import ScenesTurbo, parse
from rollflow.rewards.scenes.scenes import CaptionReward, caption_facts, count_probability, relation_probability

PROMPTS = [
    "three cats to the left of two cars",
    "five stars on night background",
    "one dog above two fish",
    "one apple",
]


def padded_law(probability: Tensor, counts: Tensor) -> Tensor:
    """The Poisson-binomial law of all counts from 0 on, padded event by event."""
    rows, n = probability.shape
    law = torch.zeros(rows, n + 1, dtype=torch.float64)
    law[:, 0] = 1
    for p in torch.split(probability.double(), 1, dim=1):
        law = law * (1 - p) + F.pad(law[:, :-1], (1, 0)) * p
    return law.gather(1, counts[:, None])[:, 0]


def test_the_law_of_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (1, 7, 24):
        probability = torch.rand(300, n, generator=generator, dtype=torch.float64) ** 3
        probability[::7, 0], probability[::5, -1] = 1, 0
        counts = torch.randint(0, n + 1, (300,), generator=generator)
        for rows in (slice(None), slice(2), slice(7, 8)):
            found = count_probability(probability[rows], counts[rows])
            assert torch.equal(found, padded_law(probability[rows], counts[rows]))


def test_facts_do_not_depend_on_the_other_pictures() -> None:
    pixels = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    peaks, captions = CaptionReward().peaks(pixels), [parse(prompt) for prompt in PROMPTS]
    together = caption_facts(peaks, captions)
    for row, caption in enumerate(captions):
        [alone] = caption_facts(type(peaks)(*(part[row : row + 1] for part in peaks)), [caption])
        assert torch.equal(together[row], alone)
        if caption.relation != "and":
            assert torch.equal(alone[-1], relation_probability(peaks, peaks.probability, row, caption))


def test_activations_that_overwrite_their_input_change_neither_values_nor_gradients() -> None:
    generator = torch.Generator().manual_seed(2)
    pixels, latents = torch.rand(2, 3, 64, 64, generator=generator), torch.randn(2, 16, 8, 8, generator=generator)
    model, detector = ScenesTurbo(), CaptionReward().detector
    t, tokens = torch.tensor([0.3, 0.8]), torch.tensor([model.encode(prompt) for prompt in PROMPTS[:2]])
    calls: list[tuple[nn.Module, Callable[[Any, Tensor], Tensor]]] = [
        (detector, lambda net, x: net.heat(x)),
        (model.autoencoder, lambda net, x: net.decode(x)),
        (model.network, lambda net, x: net(x, t, tokens)),
    ]
    for network, call in calls:
        separate = copy.deepcopy(network)
        overwriting = [one for one in separate.modules() if isinstance(one, nn.ReLU | nn.SiLU) and one.inplace]
        assert overwriting
        for one in overwriting:
            one.inplace = False
        answers = []
        for net in (network, separate):
            x = (pixels if network is detector else latents).clone().requires_grad_()
            values = call(net, x)
            answers.append((values.detach(), torch.autograd.grad(values.square().sum(), x)[0]))
        assert torch.equal(answers[0][0], answers[1][0])
        assert torch.equal(answers[0][1], answers[1][1])

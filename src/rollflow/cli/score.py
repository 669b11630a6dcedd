"""``rollflow score``: pictures and films from files, scored by any reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollflow.cli.errors import refusing
from rollflow.errors import BadReward, BadSetting, RollflowError, blamed

if TYPE_CHECKING:
    from torch import Tensor

    from rollflow.rewards import RewardModel


def read(path: Path) -> Tensor:
    """Read a file as a decoded sample: (3, H, W) in [0, 1], or (F, 3, H, W) if it is animated.

    Transparency is ignored, which shows the colours beneath; a photograph is rotated as its camera recorded. A frame
    that is shown longer than the shortest is repeated in proportion, since files merge equal frames.

    Raises:
        RollflowError: If the file cannot be read as a picture.
    """
    from rollflow.files.media import read_frames
    from rollflow.files.pictures import from_pictures

    frames = read_frames(path)
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        raise RollflowError(f"cannot read '{path}': expected frames of one size, got {sizes}")
    sample = from_pictures(frames).contiguous()  # like samples of models; networks round others differently
    return sample if len(frames) > 1 else sample[0]


def scores(reward: RewardModel, samples: Sequence[Tensor], prompt: str) -> list[float]:
    """Score samples; those of the same size are scored together, and a relative reward compares all of them."""
    import torch

    from rollflow.rewards.scoring import scored

    parts = torch.zeros(len(samples), len(reward.parts), dtype=torch.float64)
    for shape in dict.fromkeys(sample.shape for sample in samples):
        rows = [row for row, sample in enumerate(samples) if sample.shape == shape]
        stacked = torch.stack([samples[row] for row in rows])
        parts[rows] = torch.stack([scored(part, stacked, [prompt] * len(rows)) for part in reward.parts], 1)
    rewards: list[float] = reward.combine(parts, parts).tolist()
    return rewards


def score(
    name: Annotated[
        str, typer.Argument(help="Reward (see 'rollflow rewards'), e.g. 'vlm-judge(model=...)'.", metavar="NAME")
    ],
    files: Annotated[
        list[Path], typer.Argument(help="Pictures or animated films (PNG, JPEG, WebP) of any size.", metavar="FILES")
    ],
    prompt: Annotated[str, typer.Option(help="Prompt for which the files were made.")],
    ask: Annotated[
        list[str] | None,
        typer.Option(
            help="Count that the prompt asks for: airplanes=6, nudity=0; may be repeated.  "
            "[default: read from the prompt]"
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device of the reward, e.g. cuda:0.  [default: its own]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Score FILES with the reward NAME."""
    import math

    from rollflow.cli.tables import aligned
    from rollflow.prompts import Prompt, read_ask
    from rollflow.rewards import REWARDS
    from rollflow.rewards.checks import check_scorable

    with refusing(2):
        asked = Prompt(prompt, read_ask(ask)) if ask else prompt
        reward = REWARDS.make(name, {"device": device} if device else None)
        with blamed(f"reward '{reward.name}' failed"):
            check_scorable(reward, asked)
        samples = [read(file) for file in files]
        for file, sample in zip(files, samples, strict=True):
            with blamed(f"reward '{reward.name}' failed"):
                why = reward.unfit(tuple(sample.shape))
            if why is not None:
                raise BadSetting(f"cannot score '{file}': {why}")
        with blamed(f"reward '{reward.name}' cannot be loaded"):
            reward.load()
    with refusing(1):
        with blamed(f"reward '{reward.name}' failed", BadReward):
            numbers = scores(reward, samples, asked)
        for file, number in zip(files, numbers, strict=True):
            if not math.isfinite(number):
                raise BadReward(f"reward '{reward.name}' gave {number} for '{file}'; rewards must be finite")
    if as_json:
        rows = [{"file": str(file), "score": number} for file, number in zip(files, numbers, strict=True)]
        print(json.dumps({"reward": reward.identity, "prompt": prompt, "scores": rows}, indent=2))
    else:
        print(aligned([(str(file), f"{number:.6g}") for file, number in zip(files, numbers, strict=True)]))

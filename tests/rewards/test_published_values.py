"""The values that authors publish, where their weights are in the hub's cache and their pictures at hand.

``ROLLFLOW_PUBLISHED_PICTURES`` names a folder of two checkouts, ImageReward (github.com/THUDM/ImageReward) and
clipscore (github.com/jmhessel/clipscore), and of a folder aesthetic-predictor with the photograph of a cat that
asthetics_predictor.ipynb of github.com/LAION-AI/aesthetic-predictor downloads.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hub_cache import cached, weights_cached
from PIL import Image

from rollflow.files.pictures import from_pictures
from rollflow.rewards.base import PictureReward
from rollflow.rewards.clip.aesthetic import AestheticV1
from rollflow.rewards.clip.clipscore import CLIPScore
from rollflow.rewards.clip.image_reward import BERT, ImageReward

pytestmark = pytest.mark.slow
PICTURES = os.environ.get("ROLLFLOW_PUBLISHED_PICTURES")
CAT = "lovely-cat-as-domestic-animal-view-pictures-182393057.jpg"


def needs(folder: str, *files: tuple[str, str], weights: str | None = None) -> Path:
    """The folder of pictures; skips the test if it, a file of a repository or one's weights are not here."""
    for repository, name in files:
        if cached(repository, name) is None:
            pytest.skip(f"{name} of {repository} is not in the hub's cache")
    if weights is not None and not weights_cached(weights):
        pytest.skip(f"the weights of {weights} are not in the hub's cache")
    if PICTURES is None or not Path(PICTURES, folder).is_dir():
        pytest.skip(f"ROLLFLOW_PUBLISHED_PICTURES names no folder with {folder}")
    return Path(PICTURES, folder)


def score(reward: PictureReward, path: Path, prompt: str) -> float:
    return float(reward.score(from_pictures([Image.open(path)]), [prompt]))


def test_image_reward() -> None:
    """The example of its README."""
    files = [(ImageReward.published, "ImageReward.pt"), (ImageReward.published, "med_config.json"), (BERT, "vocab.txt")]
    folder = needs("ImageReward/assets/images", *files)
    prompt = "a painting of an ocean with clouds and birds, day time, low depth field effect"
    reward = ImageReward()
    scores = [score(reward, folder / f"{i}.webp", prompt) for i in (1, 2, 3, 4)]
    assert scores == pytest.approx(
        [0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492], abs=0.01
    )


@pytest.mark.parametrize(("captions", "mean"), [("good_captions", 0.8585), ("bad_captions", 0.7153)])
def test_clipscore(captions: str, mean: float) -> None:
    """The example of its README; of the bad captions it gives what a GPU says."""
    files = [(CLIPScore.published, name) for name in ("config.json", "vocab.json")]
    folder = needs("clipscore/example", *files, weights=CLIPScore.published)
    reward = CLIPScore()
    told = json.loads((folder / f"{captions}.json").read_text())
    scores = [score(reward, folder / "images" / f"{name}.jpg", caption) for name, caption in told.items()]
    assert sum(scores) / len(scores) == pytest.approx(mean, abs=1e-3)


def test_aesthetic_v1() -> None:
    """The example of its notebook, computed on a CPU."""
    folder = needs("aesthetic-predictor", (AestheticV1.published, "config.json"), weights=AestheticV1.published)
    head = Path(torch.hub.get_dir(), "rollflow", f"aesthetic-v1-{AestheticV1.published_head.sha256[:8]}.pth")
    if not head.is_file() or not (folder / CAT).is_file():
        pytest.skip(f"{CAT} or {head} is not here")
    assert (folder / CAT).stat().st_size == 105055
    assert score(AestheticV1(), folder / CAT, "") == pytest.approx(4.0330, abs=0.01)

"""The aesthetic predictors of LAION."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rollflow.rewards.base import Card
from rollflow.rewards.clip.clip import PictureTower
from rollflow.rewards.pretrained.mlp import Stack


class Predictor(NamedTuple):
    """CLIP, and the head on its embedding."""

    model: Any
    head: nn.Module


class HostedFile(NamedTuple):
    """A file in its authors' repository.

    Args:
        address: URL of the file at a fixed commit.
        sha256: SHA-256 of the file.
    """

    address: str
    sha256: str


class _Aesthetic(PictureTower):
    """One or more linear maps on the embedding of CLIP's ViT-L/14; the prompt is ignored.

    Args:
        checkpoint: Hub repository (``owner/name``) or folder of the CLIP; None means the published one.
        head: File with the weights of the head; None means the published one, from its authors' repository.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.
    """

    published = "openai/clip-vit-large-patch14"
    given_by = "checkpoint=... and head=FILE"
    published_head: ClassVar[HostedFile]
    held_out = ("image-reward",)

    def __init__(
        self,
        checkpoint: str | None = None,
        head: str | None = None,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        super().__init__(checkpoint, device, batch_size)
        self.head = head

    @property
    def _settings(self) -> tuple[str, ...]:
        return () if self.head is None else (f"head={self.head}",)

    @abstractmethod
    def _empty_head(self, width: int) -> nn.Module:
        """Create the module that the file has weights for, for embeddings (B, width)."""

    def _networks(self) -> Predictor:
        model = self._clip()
        head = self._empty_head(model.config.projection_dim)
        self.loaded(lambda path: head.load_state_dict(self.tensors(path)), self._head_file())
        self.bounds = _range_on_the_sphere(head, model.config.projection_dim)
        return Predictor(model, self.ready(head))

    def _head_file(self) -> Path:
        if self.head is not None:
            return Path(self.head)
        address, sha256 = self.published_head
        path = Path(torch.hub.get_dir(), "rollflow", f"{self.name}-{sha256[:8]}.pth")
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.loaded(torch.hub.download_url_to_file, address, str(path), sha256, progress=False)
        return path

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        model, head = self.networks
        scores: Tensor = head(self.embedded(model, pixels))[:, 0]
        return scores


class Aesthetic(_Aesthetic):
    """How much people like a picture, out of 10, regardless of the prompt: LAION's aesthetic predictor V2.

        r(x) = h(f(x) / |f(x)|)

    where f is the embedding of CLIP's ViT-L/14 and h consists of five linear maps without activations, so that r is
    affine in the embedding. Schuhmann 2022, laion.ai/blog/laion-aesthetics;
    github.com/christophschuhmann/improved-aesthetic-predictor, simple_inference.py, sac+logos+ava1-l14-linearMSE.pth,
    trained on SAC, LAION-Logos and AVA. It is the aesthetic reward of arXiv 2503.19385. Deviation: CLIP in float32; the
    authors use float16 on a GPU.

    Cost: one ViT-L/14 pass per picture.
    """

    name = "aesthetic"
    description = "how much people like the picture, out of 10, regardless of the prompt (LAION's predictor V2)"
    published_head = HostedFile(
        "https://raw.githubusercontent.com/christophschuhmann/improved-aesthetic-predictor/"
        "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    )
    card = Card(
        range="about 1 to 10, good photographs above 6",
        download="1.7 GB",
        memory="1.7 GB",
        licence="MIT (CLIP), Apache-2.0 (head)",
        reference="Schuhmann 2022, laion.ai/blog/laion-aesthetics",
    )

    def _empty_head(self, width: int) -> nn.Module:
        return Stack(width)


class AestheticV1(_Aesthetic):
    """LAION's aesthetic predictor V1: one linear map.

        r(x) = <w, f(x) / |f(x)|> + b

    where f is the embedding of CLIP's ViT-L/14. Schuhmann 2022, laion.ai/blog/laion-aesthetics;
    github.com/LAION-AI/aesthetic-predictor, asthetics_predictor.ipynb, sa_0_4_vit_l_14_linear.pth, trained on SAC.

    Cost: one ViT-L/14 pass per picture.
    """

    name = "aesthetic-v1"
    description = "how much people like the picture, out of 10, regardless of the prompt (LAION's predictor V1)"
    published_head = HostedFile(
        "https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/"
        "6d122adad522ab246644d9dc1c6d7a3810ee255f/sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    )
    card = Card(
        range="about 1 to 10",
        download="1.7 GB",
        memory="1.7 GB",
        licence="MIT",
        reference="Schuhmann 2022, laion.ai/blog/laion-aesthetics",
    )

    def _empty_head(self, width: int) -> nn.Module:
        return nn.Linear(width, 1)


@torch.no_grad()
def _range_on_the_sphere(head: nn.Module, width: int) -> tuple[float, float]:
    """Lowest and highest value b -/+ |w| of an affine map <w, e> + b over embeddings e of length one."""
    middle: Tensor = head(torch.zeros(1, width))
    length = float((head(torch.eye(width)) - middle).norm())
    return float(middle) - length, float(middle) + length

"""PRX."""

from __future__ import annotations

import warnings

from diffusers import PRXPipeline, PRXTransformer2DModel

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, euler, opened, seeded, t5, tokenizer


def image() -> Tiny:
    seeded()
    transformer = PRXTransformer2DModel(
        in_channels=4, context_in_dim=WIDTH, hidden_size=32, mlp_ratio=1.0, num_heads=2, depth=1, axes_dim=[8, 8]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a base class that the pipeline itself still has
        pipeline = PRXPipeline(
            transformer=opened(transformer).eval(),
            scheduler=euler(shift=3.0),
            text_encoder=t5(),
            tokenizer=tokenizer(length=16),
            vae=autoencoder(4),
        )
    guided = {"negative_prompt": "fog", "guidance_scale": 4.0}
    return Tiny(pipeline, {"height": 16, "width": 16, "use_resolution_binning": False, **guided})


FAMILIES: dict[str, Family] = {"PRXPipeline": image}

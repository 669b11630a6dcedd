"""OmniGen, one network that reads its prompt itself and draws."""

from __future__ import annotations

from unittest.mock import MagicMock, patch

from diffusers import OmniGenPipeline, OmniGenTransformer2DModel
from diffusers.pipelines.omnigen import pipeline_omnigen, processor_omnigen

from families.family import Family, Tiny
from families.parts import VOCABULARY, autoencoder, euler, seeded, tokenizer


def image() -> Tiny:
    seeded()
    transformer = OmniGenTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        num_layers=1,
        pad_token_id=0,
        vocab_size=len(VOCABULARY),
        rope_scaling={"long_factor": [1.0] * 8, "short_factor": [1.0] * 8},
        pos_embed_max_size=8,
        time_step_dim=16,
    ).eval()
    vae = autoencoder(  # eight times down, as the pipeline takes for granted
        4,
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    reader = processor_omnigen.OmniGenMultiModalProcessor
    with (  # torchvision is asked for, though only given pictures need it
        patch.object(processor_omnigen, "transforms", MagicMock(), create=True),
        patch.object(pipeline_omnigen, "OmniGenMultiModalProcessor", reader, create=True),
    ):
        pipeline = OmniGenPipeline(
            transformer=transformer,
            scheduler=euler(invert_sigmas=True, num_train_timesteps=1),
            vae=vae,
            tokenizer=tokenizer(),
        )
    return Tiny(pipeline, {"height": 32, "width": 32, "guidance_scale": 2.5})


FAMILIES: dict[str, Family] = {"OmniGenPipeline": image}

"""Hunyuan-DiT."""

from __future__ import annotations

from diffusers import HunyuanDiT2DModel, HunyuanDiTPipeline
from transformers import BertConfig, BertModel

from families.family import Family, Tiny
from families.parts import VOCABULARY, WIDTH, autoencoder, ddim, in_eval_mode, seeded, t5, tokenizer


def text_to_image() -> Tiny:
    seeded()
    transformer = HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        patch_size=2,
        sample_size=4,
        hidden_size=32,
        num_layers=4,  # the fewest of which one skips another
        mlp_ratio=1.0,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
    ).eval()
    seeded(2)
    bert = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=WIDTH,
    )
    pipeline = HunyuanDiTPipeline(
        vae=autoencoder(
            4,  # eight times down, as the pipeline takes for granted
            block_out_channels=(4,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            shift_factor=None,
        ),
        text_encoder=in_eval_mode(BertModel(bert)),
        tokenizer=tokenizer(),
        transformer=transformer,
        scheduler=ddim(prediction_type="v_prediction", beta_end=0.03),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(),
    )
    arguments = {
        "height": 32,
        "width": 32,
        "use_resolution_binning": False,
        "negative_prompt": ["fog"],  # a list, as prompts are
        "guidance_scale": 3.0,
    }
    return Tiny(pipeline, arguments)


FAMILIES: dict[str, Family] = {"HunyuanDiTPipeline": text_to_image}

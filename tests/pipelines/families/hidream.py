"""HiDream-I1."""

from __future__ import annotations

from diffusers import HiDreamImagePipeline, HiDreamImageTransformer2DModel
from transformers import LlamaConfig, LlamaForCausalLM

from families.family import Family, Tiny
from families.parts import LANGUAGE_MODEL, WIDTH, autoencoder, clip, euler, in_eval_mode, seeded, t5, tokenizer


def image() -> Tiny:
    seeded()
    transformer = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=2 * WIDTH,
        axes_dims_rope=(4, 4, 8),
        max_resolution=(8, 8),
        llama_layers=(0, 1),
    ).eval()
    for block in (*transformer.double_stream_blocks, *transformer.single_stream_blocks):
        block.block.ff_i.train()  # else its experts take no part in gradients
    seeded(2)
    config = LlamaConfig(**LANGUAGE_MODEL)
    config._attn_implementation = "eager"
    llama = in_eval_mode(LlamaForCausalLM(config))
    pipeline = HiDreamImagePipeline(
        scheduler=euler(shift=3.0),
        vae=autoencoder(4),
        text_encoder=clip(projected=True),
        tokenizer=tokenizer(),
        text_encoder_2=clip(projected=True),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=tokenizer(),
        text_encoder_4=llama,
        tokenizer_4=tokenizer(),
        transformer=transformer,
    )
    pipeline.default_sample_size = 8  # of all pictures, whatever size is asked for
    return Tiny(pipeline, {"max_sequence_length": 16, "negative_prompt": "fog", "guidance_scale": 5.0})


FAMILIES: dict[str, Family] = {"HiDreamImagePipeline": image}

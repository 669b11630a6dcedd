"""CogVideoX."""

from __future__ import annotations

from diffusers import AutoencoderKLCogVideoX, CogVideoXPipeline, CogVideoXTransformer3DModel

from families.family import Family, Tiny
from families.parts import WIDTH, ddim, seeded, t5, tokenizer


def _autoencoder() -> AutoencoderKLCogVideoX:
    """Twice down in space and in time."""
    seeded(3)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 2,
        up_block_types=("CogVideoXUpBlock3D",) * 2,
        block_out_channels=(4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=1,
        temporal_compression_ratio=2,
    ).eval()


def text_to_video() -> Tiny:
    seeded()
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=WIDTH,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        temporal_compression_ratio=2,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    ).eval()
    scheduler = ddim(
        num_train_timesteps=999,  # so many that three steps are of one length
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    pipeline = CogVideoXPipeline(
        tokenizer=tokenizer(), text_encoder=t5(), vae=_autoencoder(), transformer=transformer, scheduler=scheduler
    )
    arguments = {
        "height": 16,
        "width": 16,
        "num_frames": 5,
        "max_sequence_length": 16,
        "negative_prompt": "fog",
        "guidance_scale": 3.0,
    }
    return Tiny(pipeline, arguments)


FAMILIES: dict[str, Family] = {"CogVideoXPipeline": text_to_video}

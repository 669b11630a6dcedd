"""Sana Sprint, distilled to a few steps of a consistency model."""

from __future__ import annotations

from diffusers import SanaSprintPipeline, SCMScheduler

from families import sana
from families.family import Family, Tiny


def sprint() -> Tiny:
    transformer = sana.transformer(guidance_embeds=True, qk_norm="rms_norm_across_heads")
    pipeline = SanaSprintPipeline(
        **{**sana.components(), "transformer": transformer, "scheduler": SCMScheduler(sigma_data=0.5)}
    )
    given = {**sana.SIZE, "guidance_scale": 4.5, "intermediate_timesteps": None}
    return Tiny(pipeline, given)


FAMILIES: dict[str, Family] = {"SanaSprintPipeline": sprint}

"""Tiny, randomly initialised pipelines of diffusers, built from its public classes without a download."""

from __future__ import annotations

from importlib import import_module

from families.family import Family, Tiny

MODULES = (
    *("flux", "flux2", "chroma", "stable_diffusion_3", "aura_flow", "sana", "sana_sprint", "lumina", "cogview4"),
    *("qwen_image", "z_image", "hidream", "kandinsky5_image", "hunyuan_image", "ovis", "longcat", "bria", "prx"),
    *("ernie", "krea", "nucleus", "omnigen", "glm_image", "wan", "ltx", "hunyuan_video", "mochi", "kandinsky5_video"),
    *("sana_video", "stable_diffusion", "pixart", "kolors", "hunyuan_dit", "cogvideox"),
)

FAMILIES: dict[str, Family] = {}
"""What builds each, by the name of its class and, where there are several of it, what sets them apart."""

for _module in MODULES:
    FAMILIES.update(import_module(f"families.{_module}").FAMILIES)

__all__ = ["FAMILIES", "Family", "Tiny"]

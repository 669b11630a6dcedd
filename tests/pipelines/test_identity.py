"""Whatever changes what a pipeline computes changes its identity, also once it is loaded; nothing else does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE

pytest.importorskip("diffusers")

import numpy as np
import torch
from checks import Brightness, loaded
from diffusers import DDIMScheduler, FirstBlockCacheConfig, FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from families import FAMILIES, Tiny, flux, stable_diffusion, stable_diffusion_3
from families.parts import WIDTH, picture
from torch import nn

from rollflow import DiffusersModel
from rollflow.models.diffusers.calls import PipelineCalls


def freeu(pipeline: Any) -> None:
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)


def freeu_otherwise(pipeline: Any) -> None:
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.5)


def weights(pipeline: Any) -> None:
    pipeline.unet.conv_in.weight.data += 0.01


def tiled(pipeline: Any) -> None:
    pipeline.vae.enable_tiling()


def sliced(pipeline: Any) -> None:
    pipeline.vae.enable_slicing()


def scaled(pipeline: Any) -> None:
    pipeline.vae.register_to_config(scaling_factor=0.5)


def half(pipeline: Any) -> None:
    pipeline.unet.to(torch.bfloat16)


def hooked(pipeline: Any) -> None:
    pipeline.unet.mid_block.register_forward_hook(lambda module, args, output: output * 0.5)


def patched(pipeline: Any) -> None:
    pipeline.unet.forward = lambda *args, **kwargs: None


def dropping_out(pipeline: Any) -> None:
    pipeline.unet.train()


class Odd(nn.Module):
    """An attention processor of the user's."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength


def processed(strength: float) -> Callable[[Any], None]:
    def change(pipeline: Any) -> None:
        pipeline.unet.set_attn_processor(Odd(strength))

    return change


def ip_adapter(scale: float) -> Callable[[Any], None]:
    def change(pipeline: Any) -> None:
        unet, processors = pipeline.unet, {}
        for name, own in unet.attn_processors.items():
            cross = name.endswith("attn2.processor")
            torch.manual_seed(1)
            processors[name] = IPAdapterAttnProcessor2_0(32, WIDTH, num_tokens=(4,), scale=1.0) if cross else own
        unet.set_attn_processor(processors)
        pipeline.set_ip_adapter_scale(scale)

    return change


def token(value: float) -> Callable[[Any], None]:
    """As a textual inversion adds one."""

    def change(pipeline: Any) -> None:
        pipeline.tokenizer.add_tokens(["<mine>"])
        row = pipeline.tokenizer.convert_tokens_to_ids("<mine>")
        pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer))
        pipeline.text_encoder.get_input_embeddings().weight.data[row] = value

    return change


LIVE: dict[str, Callable[[Any], None]] = {
    change.__name__: change
    for change in (
        freeu,
        freeu_otherwise,
        weights,
        tiled,
        sliced,
        scaled,
        half,
        hooked,
        patched,
        dropping_out,
    )
}
LIVE |= {f"IP-Adapter {scale}": ip_adapter(scale) for scale in (1.0, 0.6)}
LIVE |= {f"processors {strength}": processed(strength) for strength in (1.0, 2.0)}
LIVE |= {f"token {value}": token(value) for value in (0.5, 0.25)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_what_is_changed_in_a_loaded_pipeline_is_told_at_once_and_from_each_other() -> None:
    told = {}
    for name, change in LIVE.items():
        tiny = stable_diffusion.epsilon()
        calls = PipelineCalls(tiny.pipeline, tiny.arguments)
        told["as it is"] = "".join(calls.identities())
        change(tiny.pipeline)
        told[name] = "".join(calls.identities())
    assert len(set(told.values())) == len(LIVE) + 1
    assert not any(" at 0x" in one for one in told.values())


def test_what_is_switched_on_and_off_again_is_as_before() -> None:
    tiny = stable_diffusion.epsilon()
    model = loaded(tiny)
    before = model.identity
    freeu(tiny.pipeline)
    tiny.pipeline.disable_freeu()
    tiled(tiny.pipeline)
    tiny.pipeline.vae.disable_tiling()
    assert model.identity == before


@pytest.mark.slow
def test_schedulers() -> None:
    """Each is read when the pipeline is loaded, and is what it was then."""
    tiny, told = flux.distilled(), []
    shifted = FlowMatchEulerDiscreteScheduler(shift=3.0)
    shifted.set_shift(12.0)
    for scheduler in (
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchEulerDiscreteScheduler(shift=12.0),
        FlowMatchEulerDiscreteScheduler(shift=3.0, invert_sigmas=False, stochastic_sampling=True),
        shifted,
    ):
        tiny.pipeline.scheduler = scheduler
        model = loaded(tiny)
        told.append(model.identity)
        tiny.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
        assert model.identity == told[-1]
    tiny = stable_diffusion.epsilon()
    for beta in (0.012, 0.013):
        tiny.pipeline.scheduler = DDIMScheduler(beta_start=0.00085, beta_end=beta, beta_schedule="scaled_linear")
        told.append(loaded(tiny).identity)
    assert len(set(told)) == len(told)
    assert "scheduler=DDIMScheduler " in told[-1]


def test_caches() -> None:
    told = []
    for threshold in (None, 0.1, 0.2):
        tiny = flux.distilled()
        if threshold is not None:
            tiny.pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
        model = loaded(tiny)
        told.append(model.identity)
        x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            model.velocity(x, torch.tensor([0.5]).double(), [model.encode("a cat")])
        assert model.identity == told[-1]
    assert len(set(told)) == 3


def test_layers_of_perturbed_attention() -> None:
    told = []
    for layers in ("blocks.0", "blocks.1"):
        tiny = FAMILIES["StableDiffusion3PAGPipeline"]()
        tiny.pipeline.set_pag_applied_layers(layers)
        told.append(PipelineCalls(tiny.pipeline, tiny.arguments).identities())
    assert told[0] != told[1]


def a_callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    return tensors


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("prompt_2", lambda kind: ("fog", "rain")[kind]),
        ("negative_prompt_embeds", lambda kind: torch.full((1, 16, WIDTH), float(kind))),
        ("ip_adapter_image", lambda kind: [picture(), picture().rotate(90)][kind]),
        ("ip_adapter_image", lambda kind: np.full((4, 4, 3), kind)),
        ("joint_attention_kwargs", lambda kind: {"scale": (0.5, 1.0)[kind]}),
        ("joint_attention_kwargs", lambda kind: {"hook": [a_callback, loaded][kind]}),
        ("joint_attention_kwargs", lambda kind: {"hook": lambda x: x * kind}),
    ],
)
@pytest.mark.slow
def test_arguments(name: str, make: Callable[[int], Any]) -> None:
    """Those of this pipeline's call that a search does not read are set here without a call."""
    model, told = loaded(flux.distilled()), []
    for kind in (0, 0, 1):
        model.arguments = {name: make(kind)}
        told.append(model.identity)
    assert told[0] == told[1] != told[2]
    assert " at 0x" not in told[0]


@pytest.mark.slow
def test_a_safety_checker_is_part_of_it() -> None:
    told = []
    for flag in (None, False, True):
        tiny = stable_diffusion.epsilon()
        if flag is not None:
            tiny.pipeline.run_safety_checker = lambda image, device, dtype, flag=flag: (image, [flag] * len(image))
        told.append(loaded(tiny).identity)
    assert len(set(told)) == 3


class Layer(nn.Module):
    """What rollflow reads of a layer of peft, by the names that it has there."""

    def __init__(self, own: nn.Linear) -> None:
        super().__init__()
        self.base_layer = own
        self.scaling, self._active_adapter, self.merged_adapters = {"one": 1.0, "two": 1.0}, ["one"], list[str]()
        self._disable_adapters = False
        self.lora_A = nn.ModuleDict({name: nn.Linear(own.in_features, 2, bias=False) for name in self.scaling})
        self.lora_B = nn.ModuleDict({name: nn.Linear(2, own.out_features, bias=False) for name in self.scaling})
        for name, part in [*self.lora_A.items(), *self.lora_B.items()]:
            nn.init.constant_(part.get_parameter("weight"), 0.1 if name == "one" else 0.2)

    @property
    def active_adapters(self) -> list[str]:
        return self._active_adapter

    @property
    def disable_adapters(self) -> bool:
        return self._disable_adapters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.base_layer(x)
        if not self._disable_adapters:
            for name in self._active_adapter:
                made = made + self.scaling[name] * self.lora_B[name](self.lora_A[name](x))
        return made


def adapted() -> tuple[Tiny, list[Layer]]:
    tiny, layers = flux.distilled(), list[Layer]()
    for block in tiny.pipeline.transformer.transformer_blocks:
        block.attn.to_q = Layer(block.attn.to_q)
        layers.append(block.attn.to_q)
    return tiny, layers


def test_adapters_by_name_strength_and_state() -> None:
    tiny, layers = adapted()
    model, told = loaded(tiny), dict[str, str]()
    told["none"] = loaded(flux.distilled()).identity
    told["one"] = model.identity
    assert "adapters=transformer: one=1.0" in told["one"]
    for layer in layers:
        layer.scaling["one"] = 0.3
    told["weaker"] = model.identity
    assert "one=0.3" in told["weaker"]
    for layer in layers:
        layer.scaling["one"] *= 0.7
        layer.scaling["one"] /= 0.7
    assert model.identity == told["weaker"]
    layers[0].scaling["one"] = 0.4
    told["in one layer"] = model.identity
    for layer in layers:
        layer.scaling["one"], layer._disable_adapters = 0.3, True
    told["off"] = model.identity
    assert "one=0.3 off" in told["off"]
    for layer in layers:
        layer._disable_adapters, layer._active_adapter = False, ["two"]
    told["another"] = model.identity
    for layer in layers:
        layer._active_adapter = ["one", "two"]
    told["both"] = model.identity
    for layer in layers:
        layer.merged_adapters = ["one"]
    told["fused"] = model.identity
    assert "fused one" in told["fused"]
    for layer in layers:
        layer.lora_A["one"].get_parameter("weight").data += 0.01
    told["trained"] = model.identity
    assert len(set(told.values())) == len(told)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
@pytest.mark.filterwarnings("ignore")
def test_adapters_of_peft() -> None:
    from peft import LoraConfig

    tiny = flux.distilled()
    pipeline, model = tiny.pipeline, loaded(tiny)
    told = [model.identity]
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q"])
    for name in ("one", "two"):
        pipeline.transformer.add_adapter(config, adapter_name=name)
    for change in (
        lambda: pipeline.set_adapters(["one"], [1.0]),
        lambda: pipeline.set_adapters(["one"], [0.3]),
        lambda: pipeline.set_adapters(["two"], [0.3]),
        lambda: pipeline.set_adapters(["one", "two"], [0.3, 0.3]),
        pipeline.disable_lora,
        lambda: (pipeline.enable_lora(), pipeline.fuse_lora()),
    ):
        change()
        told.append(model.identity)
    assert len(set(told)) == len(told)
    assert "fused one+two" in told[-1]


def test_a_pipeline_that_was_used_is_the_same() -> None:
    tiny = stable_diffusion_3.whole()
    before = loaded(tiny).identity
    tiny.pipeline("a cat", num_inference_steps=2, output_type="latent", **tiny.arguments)
    assert loaded(tiny).identity == before


@pytest.mark.slow
@pytest.mark.subprocess
def test_another_process_tells_the_same() -> None:
    told = "import families.flux as f, checks; print(checks.loaded(f.distilled()).identity)"
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": paths}
    command = [sys.executable, "-W", "ignore", "-c", told]
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert other.stdout.splitlines()[-1] == loaded(flux.distilled()).identity


@pytest.mark.slow
def test_a_run_changes_nothing() -> None:
    """Of whatever is looked at: all that this pipeline's networks keep of a call is told apart from their settings."""
    for name in ("StableDiffusionXLPipeline", "WanPipeline"):
        model: DiffusersModel = loaded(FAMILIES[name]())
        before = model.identity
        leaf = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        v = model.velocity(leaf, torch.tensor([0.6, 0.6]).double(), [model.encode("a cat")] * 2)
        torch.autograd.backward(Brightness().score(model.decode(v), ["a cat"] * 2).sum())
        model.grid(3)
        assert model.identity == before

"""Every pipeline of diffusers that there is a tiny one of, against every check."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

pytest.importorskip("diffusers")

from checks import CHECKS, loaded
from families import FAMILIES, Tiny, cosmos2, hunyuan_image

from rollflow import DiffusersModel, RollflowError

pytestmark = [  # what the networks themselves warn of
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
]


@functools.lru_cache(maxsize=1)
def made(name: str) -> tuple[Tiny, DiffusersModel]:
    tiny = FAMILIES[name]()
    return tiny, loaded(tiny)


CORE = {"FluxPipeline, true guidance", "StableDiffusion3Pipeline", "WanPipeline", "StableDiffusionXLPipeline"}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "name", [name if name in CORE else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_pipeline(name: str, check: Callable[[Tiny, DiffusersModel], None]) -> None:
    check(*made(name))


def test_a_mean_flow_is_refused() -> None:
    with pytest.raises(RollflowError, match="mean flow"):
        loaded(hunyuan_image.mean_flow())


def test_a_pipeline_that_has_been_used_loads_as_well() -> None:
    tiny = FAMILIES["StableDiffusion3Pipeline"]()
    before = loaded(tiny)
    tiny.pipeline("a cat", num_inference_steps=2, output_type="latent", **tiny.arguments)
    after = loaded(tiny)
    assert (before.convention.rate, before.shape) == (after.convention.rate, after.shape)
    assert before.own_times(3).equal(after.own_times(3))


def test_states_that_grow_with_their_noise_are_refused() -> None:
    with pytest.raises(RollflowError, match="noise levels up to"):
        loaded(cosmos2.FAMILIES["Cosmos2TextToImagePipeline"]())


@pytest.mark.parametrize(("name", "argument"), [("Lumina2Pipeline", "cfg_trunc_ratio")])
def test_guidance_by_the_number_of_the_step_is_refused(name: str, argument: str) -> None:
    tiny = FAMILIES[name]()
    with pytest.raises(RollflowError, match="number of the step"):
        loaded(tiny._replace(arguments={**tiny.arguments, argument: 0.5}))

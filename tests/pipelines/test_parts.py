"""The parts of the adapter in closed form: a diffusion model's interpolant, times of rows, memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch
from accelerate import cpu_offload
from checks import Brightness, loaded
from diffusers import DDIMScheduler
from families import FAMILIES
from families.parts import seeded
from PIL import Image
from torch import Tensor, nn

from rollflow import BestOfN, Engine, Job, RollflowError, Task
from rollflow.canonical import weights_digest
from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.engine.checkpoint.file import fingerprint
from rollflow.models.diffusers.arguments import is_few_step
from rollflow.models.diffusers.probe import RowTimes
from rollflow.models.diffusers.schedule import Discrete, discrete
from rollflow.sampler import Sampler

FLUX = "FluxPipeline, true guidance"


def test_a_diffusion_models_interpolant() -> None:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    path, steps = discrete(scheduler), torch.arange(1000)
    t = (steps + 1) / 1000
    torch.testing.assert_close(path.alpha(t) ** 2, scheduler.alphas_cumprod.double())
    torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones(1000).double())
    assert (float(path.alpha(0.0)), float(path.sigma(0.0))) == (1.0, 0.0)
    torch.testing.assert_close(path.time_at_log_snr(path.log_snr(t)), t.double(), atol=1e-9, rtol=0)
    inside, h = t.double() - 0.4e-3, 1e-6  # within a step, where the rate is constant
    for value, slope in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        torch.testing.assert_close(
            slope(inside), (value(inside + h) - value(inside - h)) / (2 * h), rtol=1e-5, atol=1e-7
        )


def test_a_schedule_that_falls_is_refused() -> None:
    with pytest.raises(RollflowError, match="must increase from step to step"):
        Discrete((0.2, 0.1))


def test_times_of_rows_are_repeated_as_often_as_the_network_has_rows() -> None:
    times = torch.tensor([[3.0, 5.0]]).as_subclass(RowTimes)
    [t] = times
    assert (t / 2).expand(4).tolist() == [1.5, 2.5, 1.5, 2.5]
    assert t.expand(2, 3).tolist() == [[3.0] * 3, [5.0] * 3]
    with pytest.raises(RuntimeError, match="2 times cannot be repeated for 3 rows"):
        t.expand(3)


def test_where_memory_runs_out_calls_are_halved_and_the_size_that_fits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(FAMILIES[FLUX]())
    whole, sizes = model.calls.output, []

    def small(rows: list[Any], state: Tensor, timesteps: Tensor) -> Tensor:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return whole(rows, state, timesteps)

    x = torch.randn(5, *model.shape, generator=torch.Generator().manual_seed(3))
    t, conditions = torch.linspace(0.9, 0.2, 5, dtype=torch.float64), [model.encode("a cat")] * 5
    with torch.no_grad():
        expected = model.velocity(x, t, conditions)
        monkeypatch.setattr(model.calls, "output", small)
        torch.testing.assert_close(model.velocity(x, t, conditions), expected, rtol=1e-4, atol=1e-5)
        assert sizes == [5, 2, 2, 1]
        model.velocity(x, t, conditions)
    assert sizes[4:] == [2, 2, 1]


@pytest.mark.parametrize("interpolant", [Linear(), VP()], ids=str)
def test_a_held_part_is_kept_whatever_the_kernel_draws(interpolant: Interpolant) -> None:
    model = loaded(FAMILIES["FluxInpaintPipeline"]())
    assert model._held is not None
    assert model.origin is not None
    mask, clean = model._held
    assert set(mask.flatten().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(clean[mask == 0], model.origin[mask == 0])
    job = Job(Task(model, "a cat", Brightness()), BestOfN(), 20, sampler=Sampler(interpolant, steps=6, finish=True))
    [result] = Engine().run([job])
    torch.testing.assert_close(result.x0[mask == 0], clean[mask == 0], rtol=0, atol=1e-5)
    assert (result.x0 - clean)[mask == 1].abs().mean() > 0.1


def test_a_strength_out_of_range_is_refused() -> None:
    tiny = FAMILIES["FluxImg2ImgPipeline"]()
    with pytest.raises(RollflowError, match="strength must lie above 0 and be at most 1, not 0"):
        loaded(tiny._replace(arguments={**tiny.arguments, "strength": 0}))


def test_pictures_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = FAMILIES["FluxKontextPipeline"]()
    calls, encode = list[int](), tiny.pipeline.vae.encode

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return encode(*args, **kwargs)

    monkeypatch.setattr(tiny.pipeline.vae, "encode", counted)
    model = loaded(tiny)
    x, t = torch.randn(3, *model.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0.9, 0.5, 0.2])
    with torch.no_grad():
        model.velocity(x, t.double(), [model.encode("a cat")] * 3)
    assert len(calls) == 1


def test_latents_that_states_replace_are_prepared_anew_only_for_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = FAMILIES[FLUX]()
    own, batches = type(tiny.pipeline).prepare_latents, []

    def prepare(self: Any, batch: int, *args: Any) -> Any:
        batches.append(batch)
        return own(self, batch, *args)

    monkeypatch.setattr(type(tiny.pipeline), "prepare_latents", prepare)
    model = loaded(tiny)
    call, generators = model.calls._call, []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        generators.append(kwargs["generator"])
        return call(*args, **kwargs)

    monkeypatch.setattr(model.calls, "_call", recorded)
    x, t = torch.randn(3, *model.shape, generator=torch.Generator().manual_seed(0)), torch.full((3,), 0.5).double()
    conditions = [model.encode("a cat"), *[model.encode("a dog")] * 2]
    batches.clear()
    generators.clear()
    with torch.no_grad():
        last, middle = (model.velocity(x[i : i + 1], t[:1], conditions[i : i + 1]) for i in (2, 1))
    assert batches == [1]
    drew, did_not = (generator.get_state() for generator in generators)
    assert did_not.equal(drew)
    assert not drew.equal(torch.Generator().manual_seed(0).get_state())
    with torch.no_grad():
        model.velocity(x, t, conditions)
        model.velocity(x + 1, t, conditions)
        again = model.velocity(x[2:], t[2:], conditions[2:])
    assert batches == [1, 3, 1]
    assert again.equal(last)
    assert not middle.equal(last)


def test_text_encoders_may_leave_the_device_once_prompts_are_encoded() -> None:
    tiny = FAMILIES[FLUX]()
    model = loaded(tiny)
    x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
    t, condition = torch.tensor([0.6]).double(), [model.encode("a cat")]
    with torch.no_grad():
        before = model.velocity(x, t, condition)
        for encoder in (tiny.pipeline.text_encoder, tiny.pipeline.text_encoder_2):
            encoder.to("meta")
        assert model.velocity(x, t, condition).equal(before)
        assert model.decode(x).isfinite().all()


def test_gradients_are_checkpointed_and_the_pipeline_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = FAMILIES[FLUX]()
    model, network, seen = loaded(tiny), tiny.pipeline.transformer, []
    x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
    t, condition = torch.tensor([0.6]).double(), [model.encode("a cat")]
    network.register_forward_pre_hook(lambda module, args: seen.append(module.is_gradient_checkpointing))

    def gradient() -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(model.velocity(leaf, t, condition).square().sum(), leaf)[0]

    checkpointed = gradient()
    with torch.no_grad():
        model.velocity(x, t, condition)
    monkeypatch.setattr(model.calls, "checkpointed", nullcontext)
    torch.testing.assert_close(checkpointed, gradient())
    assert seen == [True] * 2 + [False] * 4  # true guidance calls the network twice
    assert not network.is_gradient_checkpointing


def test_a_configuration_that_says_so_is_believed_before_a_name() -> None:
    assert not is_few_step("owner/klein-base", DDIMScheduler, {"is_distilled": False})
    assert is_few_step("owner/model", DDIMScheduler, {"is_distilled": True})
    assert is_few_step("owner/model-turbo", DDIMScheduler, {})


@pytest.mark.slow
def test_a_checkpoint_is_of_a_pipeline_with_its_arguments() -> None:
    tiny, pictured = FAMILIES[FLUX](), FAMILIES["FluxKontextPipeline"]()
    another = Image.new("RGB", (16, 16), "red")
    for one, name, value in ((tiny, "true_cfg_scale", 5.0), (pictured, "image", another)):
        made = [one, one, one._replace(arguments={**one.arguments, name: value})]
        prints = [fingerprint(Job(Task(loaded(some), "a cat", Brightness()), BestOfN(), 20)) for some in made]
        assert prints[0] == prints[1] != prints[2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.slow
def test_weights_are_told_from_others_wherever_they_are() -> None:
    """Trained a little, the pipeline is another; offloaded or compiled it is the same."""

    def digest(change: Callable[[Any], None] = lambda pipeline: None) -> str:
        seeded()
        pipeline = FAMILIES[FLUX]().pipeline
        change(pipeline)
        return weights_digest({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})

    def trained(pipeline: Any) -> None:
        with torch.no_grad():
            pipeline.text_encoder.get_input_embeddings().weight.mul_(1.01)

    def compiled(pipeline: Any) -> None:
        pipeline.transformer = torch.compile(pipeline.transformer)

    def offloaded(pipeline: Any) -> None:
        for part in (pipeline.transformer, pipeline.vae):
            cpu_offload(part, torch.device("cpu"))
        assert all(weight.is_meta for weight in pipeline.transformer.parameters())

    def parked(pipeline: Any) -> None:
        pipeline.transformer.to("meta")

    assert digest() == digest(compiled) == digest(offloaded) != digest(trained)
    assert digest(parked) != digest()
    seeded()
    assert f"weights={digest()}" in loaded(FAMILIES[FLUX]()).identity

"""Pipelines whose scheduler asks twice for a velocity in each step: their own times are those that they step to."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

import torch
from checks import PROMPTS, Brightness, assert_near, loaded, run_by_itself
from diffusers import (
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
)
from families import stable_diffusion_3

from rollflow.dynamics.kernels import Euler, Heun
from rollflow.engine import Engine, Job, Task
from rollflow.models.diffusers.schedule import convention
from rollflow.particles.rng import Noise
from rollflow.sampler import Sampler
from rollflow.search import BestOfN

pytestmark = [  # of diffusers itself
    pytest.mark.filterwarnings("ignore:Accessing config attribute:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),
]

DIFFUSION = [HeunDiscreteScheduler, KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler]


@pytest.mark.parametrize("kind", DIFFUSION, ids=lambda kind: kind.__name__)
@pytest.mark.slow
def test_times_of_a_diffusion_model(kind: type) -> None:
    """Evenly spaced over 1000 timesteps, i / 1000 being the time of timestep i - 1; KDPM2 goes by others between."""
    scheduler = kind()
    scheduler.set_timesteps(50)
    found = convention(scheduler)
    scheduler.set_timesteps(4)
    assert len(scheduler.timesteps) == 7  # two velocities a step but the last
    times = found.times_of(scheduler)
    torch.testing.assert_close(times, torch.tensor([1.0, 0.667, 0.334, 0.001, 0.0]).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_times_of_a_flow(shift: float) -> None:
    """t' = shift t / (1 + (shift - 1) t) of the noise levels that it spaces evenly."""
    scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(50)
    found = convention(scheduler)
    assert found.rate == 1.0
    scheduler.set_timesteps(4)
    lowest = shift * 0.001 / (1 + (shift - 1) * 0.001)
    even = torch.linspace(1, lowest, 4, dtype=torch.float64)
    expected = torch.cat([shift * even / (1 + (shift - 1) * even), torch.zeros(1)])
    torch.testing.assert_close(found.times_of(scheduler), expected.double(), rtol=0, atol=1e-6)


def test_a_pipeline_with_heun_samples_as_itself() -> None:
    """Heun's method on the pipeline's own times, 2 NFE a step and 1 in the last, is its own sampling; Euler is not."""
    tiny, steps = stable_diffusion_3.without_t5(), 3
    tiny.pipeline.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    model = loaded(tiny)
    noise, samples = Noise(0, 0, model.shape, model.dtype).normal(0, 0, 0)[None], []
    for kernel, nfe in ((Heun(), 2 * steps - 1), (Euler(), steps)):
        job = Job(
            Task(model, PROMPTS[0], Brightness()), BestOfN(), nfe, 0, Sampler(model.interpolant, kernel, steps=steps)
        )
        [result] = Engine().run([job])
        assert (result.spent.nfe, result.finished) == (nfe, True)
        samples.append(result.x0[None])
    theirs, picture = run_by_itself(tiny, noise, steps, None, None)
    assert_near(samples[0], theirs, 1e-5, "latents")
    assert_near(model.decode(samples[0]), picture, 1e-5, "pictures")
    assert float((samples[1] - theirs).abs().max()) > 0.01 * float(theirs.std())


def test_a_picture_noised_to_a_part_of_two_stages() -> None:
    """It starts at the time that the pipeline itself starts at, which counts two timesteps for each step left out."""
    tiny, steps = stable_diffusion_3.from_picture(), 3
    tiny.pipeline.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    model = loaded(tiny)
    noise, t = Noise(0, 0, model.shape, model.dtype).normal(0, 0, 0)[None], torch.tensor(model.start(steps))
    sampler = Sampler(model.interpolant, Heun(), steps=steps)
    [result] = Engine().run([Job(Task(model, PROMPTS[0], Brightness()), BestOfN(), 2 * steps - 1, 0, sampler)])
    assert model.origin is not None
    start = model.interpolant.alpha(t).float() * model.origin + model.interpolant.sigma(t).float() * noise
    theirs, _ = run_by_itself(tiny, start, steps, None, None)
    assert_near(result.x0[None], theirs, 1e-5, "latents")

"""What must hold of every pipeline that rollflow drives; each check raises an AssertionError that says what did not."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from families import Tiny
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.interpolants import Cosine, Linear
from rollflow.dynamics.kernels import DDIM, Constant, Euler, EulerMaruyama, Kernel
from rollflow.engine import Engine, Job, Task
from rollflow.models.diffusers import DiffusersModel
from rollflow.particles.rng import Noise
from rollflow.rewards import RewardModel
from rollflow.sampler import Sampler
from rollflow.search import BestOfN, RolloverBudget

PROMPTS = ("a cat", "ox")  # of different lengths
STEPS = 3


class Brightness(RewardModel):
    """Mean of all pixels, and as different at every place as prompts are."""

    name = "brightness"
    differentiable = True

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples.double().flatten(1).mean(1)


def loaded(tiny: Tiny) -> DiffusersModel:
    return DiffusersModel(tiny.pipeline, tiny.arguments)


def sampled(model: DiffusersModel, prompt: str, kernel: Kernel, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """(noise, end) latents of one plain trajectory in the model's own schedule."""
    sampler = Sampler(model.interpolant, kernel, steps=steps)
    job = Job(Task(model, prompt, Brightness()), BestOfN(), steps, 0, sampler)
    [result] = Engine().run([job])
    assert result.spent.nfe == steps, f"{result.spent.nfe} NFE for {steps} steps"
    assert result.finished, "the pipeline's own schedule is said to leave the sample unfinished"
    return Noise(0, 0, model.shape, model.dtype).normals(0, [0], [0]), result.x0[None]


def samples_as_the_pipeline(tiny: Tiny, model: DiffusersModel) -> None:
    """The ODE through the engine is the pipeline's own output, to the last bit, latents and pictures.

    Not to the last bit is that of a diffusion model, and that which is led to a held part instead of put there. A
    consistency model is compared at its first step, since it goes on at random.
    """
    flow, holds = isinstance(model.interpolant, Linear), model._held is not None
    steps = 1 if isinstance(model.interpolant, Cosine) else STEPS
    noise, end = sampled(model, PROMPTS[0], Euler() if flow else DDIM(eta=0.0), steps)
    start, t = noise, torch.tensor(model.start(steps))
    if model.origin is not None:
        start = model.interpolant.alpha(t).float() * model.origin + model.interpolant.sigma(t).float() * noise
    theirs, picture = run_by_itself(tiny, start, steps, noise if holds else None, model.calls._layout.at)
    if model._held is not None:  # which they put there after the last step
        mask, clean = model._held
        theirs = mask * theirs + (1 - mask) * clean
    assert_near(end, theirs, 1e-4 if holds or not flow else 0.0, "latents")
    if picture.shape[-3] == 4:  # shown on white
        picture = 1 - picture[:, 3:] * (1 - picture[:, :3])
    assert_near(model.decode(theirs.float()), picture, 1e-6, "pictures")


def run_by_itself(
    tiny: Tiny, start: Tensor, steps: int, noise: Tensor | None, at: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The last state and the pictures of the pipeline, sampling by its own scheduler from given latents.

    Args:
        noise: Of its held part, which it gets beside them.
        at: Where the state lies in the latents that it prepares, if it is not all of them.
    """
    pipeline = copy.copy(tiny.pipeline)
    pipeline.scheduler = copy.deepcopy(pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    states, step = list[Tensor](), pipeline.scheduler.step
    prepare: Any = getattr(pipeline, "prepare_latents", None)

    @functools.wraps(step)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        made = step(*args, **kwargs)
        states.append(made[0])
        return made

    def prepared(*args: Any, **kwargs: Any) -> Any:
        made = prepare(*args, **kwargs)
        latents, *others = made if isinstance(made, tuple) else (made,)
        flat = latents.flatten(1).clone()
        flat[:, slice(None) if at is None else at] = start.flatten(1)
        latents = latents.clone().copy_(flat.view(latents.shape))
        others[:1] = others[:1] if noise is None else [noise]
        return (latents, *others) if isinstance(made, tuple) else latents

    pipeline.scheduler.step = stepped
    whole = round(steps / tiny.arguments.get("strength", 1.0))
    given = {**tiny.arguments, "num_inference_steps": whole, "return_dict": False, "output_type": "pt"}
    if prepare is None:
        given["latents"] = start.clone()
    else:  # whose latents are what the pipeline samples, as its argument need not be
        pipeline.prepare_latents = prepared
    picture = pipeline(prompt=[PROMPTS[0]], generator=torch.Generator().manual_seed(0), **given)[0]
    return states[-1] / pipeline.scheduler.config.get("sigma_data", 1.0), picture


def stochastic_steps_without_diffusion(tiny: Tiny, model: DiffusersModel) -> None:
    """The SDE of diffusion 0 is the ODE."""
    ode, sde = (sampled(model, PROMPTS[0], kernel)[1] for kernel in (Euler(), EulerMaruyama(Constant(0.0))))
    assert_near(ode, sde, 1e-6, "end points")


@torch.no_grad()
def rows_do_not_mix(tiny: Tiny, model: DiffusersModel) -> None:
    """Rows of two prompts and two times in one call are those of one by one."""
    encoded = [model.encode(prompt) for prompt in PROMPTS]
    x = torch.randn(4, *model.shape, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.9, 0.4, 0.4, 0.7], dtype=torch.float64)
    rows = [encoded[0], encoded[0], encoded[1], encoded[1]]
    together = model.velocity(x, t, rows)
    alone = torch.cat([model.velocity(x[i : i + 1], t[i : i + 1], rows[i : i + 1]) for i in range(4)])
    assert_near(together, alone, 1e-4, "velocities")
    for other, what in ((t.flip(0), "the time"), (t, "the prompt")):
        changed = model.velocity(x, other, rows if what == "the time" else rows[::-1])
        assert float((changed - alone).abs().max()) > 1e-3 * float(alone.std()), f"{what} does not reach the network"


def searches(tiny: Tiny, model: DiffusersModel) -> None:
    """RBF of two prompts in one engine spends exactly its budget, and each finds what it would alone."""
    sampler, nfe = Sampler(Linear(), steps=STEPS, finish=True), 12
    jobs = [
        Job(Task(model, prompt, Brightness()), RolloverBudget(initial=2, chains=1), nfe, 0, sampler)
        for prompt in PROMPTS
    ]
    results = Engine(max_rows=4).run(jobs)
    for job, result in zip(jobs, results, strict=True):
        assert result.spent.nfe == nfe, f"{result.spent.nfe} NFE spent of {nfe}"
        [alone] = Engine(max_rows=4).run([job])
        assert_near(result.x0, alone.x0, 1e-3, "samples")
        assert result.sample.isfinite().all()
        assert 0 <= float(result.sample.min()) <= float(result.sample.max()) <= 1


def gradients(tiny: Tiny, model: DiffusersModel) -> None:
    """The derivative of a decoded clean estimate's brightness along its gradient is its finite difference."""
    condition = [model.encode(PROMPTS[0])]
    x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([0.7], dtype=torch.float64)

    def reward(state: Tensor) -> Tensor:
        clean = denoised_from_velocity(model.interpolant, model.velocity(state, t, condition), state, t)
        return Brightness().score(model.decode(clean), [PROMPTS[0]]).sum()

    leaf = x.clone().requires_grad_()
    [gradient] = torch.autograd.grad(reward(leaf), leaf)
    direction = gradient / gradient.square().mean().sqrt()
    along, step = float((gradient.double() * direction).sum()), 1e-3
    with torch.no_grad():
        difference = float(reward(x + step * direction) - reward(x - step * direction)) / (2 * step)
    assert abs(along - difference) <= 0.03 * abs(difference), f"gradient {along:.3e}, difference {difference:.3e}"


CHECKS = (
    samples_as_the_pipeline,
    stochastic_steps_without_diffusion,
    rows_do_not_mix,
    searches,
    gradients,
)
"""All of them, each of a tiny pipeline and the model of it."""


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    """Equal up to ``tolerance`` times the spread of ``theirs``."""
    assert ours.shape == theirs.shape, f"{what} of shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}"
    ours, theirs = ours.detach(), theirs.detach()
    gap, spread = float((ours - theirs).abs().max()), float(theirs.std())
    assert gap <= tolerance * spread, f"{what} are {gap:.2e} apart, of a spread of {spread:.2e}"

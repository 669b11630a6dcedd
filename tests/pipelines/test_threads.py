"""Threads take turns with a pipeline and with all that share a network with it; forks of its process are refused."""

from __future__ import annotations

import asyncio
import copy
import functools
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.waiting import PATIENCE, wait_until

pytest.importorskip("diffusers")

import torch
from checks import Brightness, loaded
from families import FAMILIES, stable_diffusion, stable_diffusion_3
from torch import Tensor

import rollflow
from rollflow import DiffusersModel, RollflowError
from rollflow.models.diffusers.calls import PipelineCalls
from rollflow.rewards import REWARDS

PROMPTS = ("a cat", "two dogs on a red sofa")


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return loaded(stable_diffusion_3.whole())


def found(model: Any, seed: int) -> Tensor:
    prompt = PROMPTS[seed % 2]
    return rollflow.generate(prompt, model=model, reward=Brightness(), method="svdd", nfe=12, steps=3, seed=seed).x0


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=PATIENCE) for future in [pool.submit(call) for call in calls]]


@pytest.mark.slow
def test_threads_that_search_on_one_pipeline_get_what_they_would_alone(model: DiffusersModel) -> None:
    alone = [found(model, seed) for seed in range(4)]
    together = in_threads([functools.partial(found, model, seed) for seed in range(4)])
    assert all(a.equal(b) for a, b in zip(together, alone, strict=True))


def test_asyncio(model: DiffusersModel) -> None:
    async def both() -> list[Tensor]:
        return await asyncio.gather(*(asyncio.to_thread(found, model, seed) for seed in range(2)))

    assert all(one.equal(found(model, seed)) for seed, one in enumerate(asyncio.run(both())))


def overlaps(monkeypatch: pytest.MonkeyPatch, calls: list[Callable[[], Any]]) -> bool:
    """Whether any two calls of pipelines ran at the same time."""
    run, inside, seen = PipelineCalls._run, threading.Semaphore(1), []

    def watched(*args: Any, **kwargs: Any) -> Any:
        free = inside.acquire(blocking=False)
        seen.append(free)
        try:
            time.sleep(0.01)
            return run(*args, **kwargs)
        finally:
            if free:
                inside.release()

    monkeypatch.setattr(PipelineCalls, "_run", watched)
    in_threads(calls)
    assert len(seen) >= len(calls)
    return not all(seen)


def test_models_whose_pipelines_share_networks_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = stable_diffusion.epsilon()
    again = tiny._replace(pipeline=type(tiny.pipeline)(**tiny.pipeline.components, requires_safety_checker=False))
    parts = {**stable_diffusion._components(), "text_encoder": tiny.pipeline.text_encoder}
    of_text = tiny._replace(pipeline=type(tiny.pipeline)(**parts))
    models = [loaded(one) for one in (tiny, again, of_text)]
    x = torch.randn(1, *models[0].shape, generator=torch.Generator().manual_seed(0))

    def calls(model: DiffusersModel) -> list[Callable[[], Any]]:
        return [lambda: model.decode(x), lambda: model.encode("a cat"), lambda: model.grid(3)]

    assert not overlaps(monkeypatch, [*calls(models[0]), *calls(models[1]), *calls(models[2])])


def test_pipelines_that_share_nothing_do_not_wait_for_each_other() -> None:
    one, other = (loaded(stable_diffusion.epsilon()) for _ in range(2))
    x = torch.randn(1, *one.shape, generator=torch.Generator().manual_seed(0))
    with one.exclusive():
        [made] = in_threads([lambda: other.decode(x)])
    assert made.equal(other.decode(x))


def test_a_call_within_a_call_does_not_wait_for_itself(model: DiffusersModel) -> None:
    with model.exclusive(), model.exclusive():
        assert len(model.grid(3)) == 4


@pytest.mark.parametrize("name", ["StableDiffusion3PAGPipeline"])
def test_a_call_that_fails_leaves_the_networks_as_they_were(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = FAMILIES[name]()
    model, network = loaded(tiny), tiny.pipeline.transformer
    x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
    t, condition = torch.tensor([0.6]).double(), [model.encode("a cat")]
    own = dict(network.attn_processors)
    with torch.no_grad():
        before = model.velocity(x, t, condition)
        with monkeypatch.context() as patch:
            patch.setattr(network.norm_out, "forward", lambda *args: (_ for _ in ()).throw(torch.OutOfMemoryError()))
            with pytest.raises(torch.OutOfMemoryError):
                model.velocity(x, t, condition)
        assert network.attn_processors == own
        assert model.velocity(x, t, condition).equal(before)


def in_a_fork(call: Callable[[], Any]) -> str:
    """What a call raised in a fork of this process; "" if nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            call()
            raised = ""
        except BaseException as error:
            raised = f"{type(error).__name__}: {error}"
        os.write(write, raised.encode())
        os._exit(0)
    os.close(write)
    ended = False

    def reaped() -> bool:
        nonlocal ended
        ended = os.waitpid(child, os.WNOHANG)[0] == child
        return ended

    try:
        wait_until(reaped, "a fork, which hangs")
    finally:
        if not ended:
            os.kill(child, 9)
            os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.subprocess
def test_a_fork_is_refused_even_while_a_thread_is_at_work(model: DiffusersModel) -> None:
    scenes, reward = rollflow.load_model("scenes-turbo"), REWARDS.make("count")
    x = torch.zeros(1, *model.shape)
    held, done = threading.Event(), threading.Event()

    def work() -> None:
        with model.exclusive():
            held.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=work)
    thread.start()
    assert held.wait(PATIENCE)
    try:
        for call in (
            lambda: model.decode(x),
            lambda: model.identity,
            lambda: scenes.decode(torch.zeros(1, *scenes.shape)),
            lambda: reward.score(torch.zeros(1, 3, 64, 64), ["three cats"]),
        ):
            said = in_a_fork(call)
            assert said.startswith("RollflowError: ")
            assert "was loaded before this process was forked" in said
            assert "'spawn'" in said
    finally:
        done.set()
        thread.join()


@fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.subprocess
def test_loading_in_a_fork_needs_one_thread_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more it would wait for threads that are not there."""
    rollflow.load_model("scenes-turbo")
    threads = torch.get_num_threads()

    def alone() -> None:
        torch.set_num_threads(1)
        rollflow.load_model("scenes-turbo").encode("three cats")

    torch.set_num_threads(2)
    try:
        assert "set_num_threads(1)" in in_a_fork(lambda: rollflow.load_model("scenes-turbo"))
        assert in_a_fork(alone) == ""
    finally:
        torch.set_num_threads(threads)


def test_the_embedded_model_can_be_sent_to_another_process() -> None:
    model = rollflow.load_model("scenes-turbo")
    sent, x = pickle.loads(pickle.dumps(model)), torch.zeros(1, *model.shape)
    assert sent.decode(x).equal(model.decode(x))


def test_a_pipeline_cannot_and_says_so(model: DiffusersModel) -> None:
    for send in (pickle.dumps, copy.deepcopy):
        with pytest.raises(RollflowError, match="load it in each"):
            send(model)


def test_a_reward_is_sent_without_its_networks() -> None:
    reward = REWARDS.make("clipscore(checkpoint=here)")
    vars(reward)["networks"] = lambda: None
    again = pickle.loads(pickle.dumps(reward))
    assert again.identity == reward.identity
    assert "networks" not in vars(again)

"""A hosted reward in a run: servers that are slow, busy, killed, restarted, gone, and of something else."""

from __future__ import annotations

import math
import random
import socket
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import numpy as np
import pytest
import torch
from support.hosting import Host, Spy, Wavy, hosted, spawn
from support.waiting import PATIENCE, wait_until
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Job, Observer, Task
from rollflow.errors import BadReward, RewardUnavailable, RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.prompts import Prompt
from rollflow.rewards import RewardModel
from rollflow.rewards.remote import wire
from rollflow.rewards.remote.client import RemoteReward
from rollflow.rewards.remote.server.app import info_of
from rollflow.rewards.remote.server.limits import Limits
from rollflow.sampler import Sampler
from rollflow.search import SVDD
from rollflow.testing import RewardSuite
from rollflow.testing.jobs import assert_same

PICTURES = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a cat", Prompt("two dogs", {"dog": 2}), "", "x", Prompt("nothing", {})]
EXACT = Wavy().score(PICTURES, PROMPTS)
INFO = info_of(Wavy(), Limits()).model_dump_json()


@pytest.fixture(scope="module")
def wavy() -> Iterator[Host]:
    with hosted(Wavy()) as host:
        yield host


class TestRemote(RewardSuite):
    tolerance = 0

    @pytest.fixture
    def reward(self, wavy: Host) -> RemoteReward:
        return RemoteReward(wavy.url)

    @pytest.fixture
    def samples(self) -> Tensor:
        return PICTURES

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return PROMPTS


def test_once_loaded_it_is_what_is_hosted(wavy: Host) -> None:
    reward = RemoteReward(f"{wavy.url}/")
    reward.load()
    assert (reward.name, reward.description, reward.identity) == (Wavy.name, Wavy.description, "wavy")
    assert (reward.batch_size, reward.structured, reward.differentiable) == (4, False, False)
    assert reward.bounds == (-1.0, math.inf)
    assert (reward.remote, RemoteReward.name, RemoteReward.held_out) == (True, "remote", ())


def test_what_checks_the_hosted_reward_and_what_it_reads_are_its_own() -> None:
    class Counted(Wavy):
        """Checked by others."""

        held_out = ("aesthetic", "clipscore")
        structured = interactive = True

    with hosted(Counted()) as host:
        reward = RemoteReward(host.url)
        reward.load()
    assert (reward.held_out, reward.structured, reward.interactive) == (("aesthetic", "clipscore"), True, False)


@pytest.mark.parametrize(
    ("samples", "sizes"),
    [(PICTURES, [1] * 5), (PICTURES[:, None].half(), [2, 3]), (PICTURES[:, 0, 0].double(), [2, 3])],
    ids=["bytes", "rows of films", "rows of points"],
)
def test_limits_of_the_server_split_what_is_asked(samples: Tensor, sizes: list[int]) -> None:
    spy = Spy()
    with hosted(spy, limits=Limits(rows=3, megabytes=0.0005)) as host:
        scores = RemoteReward(host.url).score(samples, PROMPTS)
    assert scores.tolist() == Wavy().score(samples, PROMPTS).tolist()
    assert scores.dtype == torch.float64
    assert [call for calls in spy.calls for call in calls] == PROMPTS
    assert [len(calls) for calls in spy.calls] == sizes


def test_a_sample_too_large_for_the_server_says_so() -> None:
    with hosted(Wavy(), limits=Limits(megabytes=0.0003)) as host, pytest.raises(BadReward, match=r"413.*300 bytes"):
        RemoteReward(host.url).score(PICTURES, PROMPTS)


def test_a_server_that_comes_back_with_smaller_limits_is_sent_less() -> None:
    spy = Spy()
    host = Host(spy)
    try:
        reward = RemoteReward(host.url, patience=PATIENCE)
        assert torch.equal(reward.score(PICTURES, PROMPTS), EXACT)
        host.stop()
        host.limits = Limits(rows=2, megabytes=0.0008)
        host.start()
        for _ in range(2):
            assert torch.equal(reward.score(PICTURES, PROMPTS), EXACT)
    finally:
        host.stop()
    assert [len(prompts) for prompts in spy.calls] == [4, 1, *[2, 1, 2] * 2]


def test_less_is_sent_where_something_on_the_way_takes_less() -> None:
    halves = [wire.Scores(reward="wavy", scores=half).model_dump_json() for half in ([1.0, 2.0], [3.0, 4.0, 5.0])]
    with Script(INFO, 413, INFO, *halves) as script:
        assert RemoteReward(script.url).score(PICTURES, PROMPTS).tolist() == [1, 2, 3, 4, 5]
    assert script.asked == ["/info", "/score", "/info", "/score", "/score"]


def test_another_reward_with_smaller_limits_is_told() -> None:
    other = INFO.replace('"identity":"wavy"', '"identity":"other"')
    with (
        Script(INFO, 413, other) as script,
        pytest.raises(RollflowError, match="now hosts 'other', but the run began with"),
    ):
        RemoteReward(script.url).score(PICTURES, PROMPTS)


def jobs(model: ToyModel, reward: RewardModel) -> list[Job]:
    sampler = Sampler(Linear(), steps=4)
    search = SVDD()
    nfe = search.smallest_nfe(sampler.bind(model)) + 12
    return [
        Job(Task(model, prompt, reward), search, nfe, seed, sampler) for prompt in ("left", "wide") for seed in range(2)
    ]


@pytest.mark.subprocess
def test_a_run_whose_server_is_killed_in_the_middle_ends_as_one_in_process(line: ToyModel, tmp_path: Path) -> None:
    name = f"hosting:Mortal(marker={tmp_path / 'died'})"
    process, port = spawn(name)
    lives = [process]

    def supervise() -> None:
        process.wait()
        lives.append(spawn(name, port)[0])

    supervisor = Thread(target=supervise)
    supervisor.start()
    try:
        theirs = Engine().run(jobs(line, RemoteReward(f"http://127.0.0.1:{port}", patience=PATIENCE)))
        supervisor.join()
        assert [life.poll() for life in lives] == [-9, None]
    finally:
        for life in lives:
            life.kill()
            life.wait()
            assert life.stdout is not None
            life.stdout.close()
    for ours, of_theirs in zip(Engine().run(jobs(line, Wavy())), theirs, strict=True):
        assert_same(ours, of_theirs)


class StopAfter(Observer):
    """Stops a host at the third scoring."""

    def __init__(self, host: Host) -> None:
        self.host, self.left = host, 3

    def scored(self, *what: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.host.stop()


def test_a_run_whose_server_stays_away_ends_with_its_best_after_the_patience(line: ToyModel) -> None:
    host = Host(Wavy())
    [job] = jobs(line, RemoteReward(host.url, patience=0.5))[:1]
    began = time.monotonic()
    [result] = Engine(observers=[StopAfter(host)]).run([job])
    assert 0.25 < time.monotonic() - began < PATIENCE / 2
    assert result.interrupted
    assert isinstance(result.cause, RewardUnavailable)
    assert host.url in str(result.cause)
    with pytest.raises(RewardUnavailable, match=r"cannot be reached.*after try 1"):  # nobody waits twice
        job.task.reward.score(PICTURES, PROMPTS)
    host.start()
    try:
        assert torch.equal(job.task.reward.score(PICTURES, PROMPTS), EXACT)
    finally:
        host.stop()


@pytest.mark.slow
def test_a_server_that_is_slower_than_the_time_out_scores_once() -> None:
    spy = Spy()
    spy.gate.clear()
    with hosted(spy) as host:
        reward = RemoteReward(host.url, timeout=1.0, patience=PATIENCE)
        reward.load()
        Timer(2.5, spy.gate.set).start()
        assert torch.equal(reward.score(PICTURES[:2], PROMPTS[:2]), EXACT[:2])
    assert spy.calls == [PROMPTS[:2]]


SCORES = wire.Scores(reward="wavy", scores=EXACT.tolist()).model_dump_json()


class Script:
    """A server that gives one answer after the other: a text, a status, or none for so many seconds."""

    def __init__(self, *answers: str | int | float) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                script.asked.append(self.path)
                answer = script.answers.pop(0)
                if isinstance(answer, float):
                    time.sleep(answer)
                    return
                status, text = (200, answer) if isinstance(answer, str) else (answer, '{"error": "no way"}')
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Script:
        self.thread = Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def states() -> object:
    """Of every global generator."""
    return random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())


def test_what_may_pass_is_tried_again_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    before = states()
    with Script(INFO, 503, 0.0, 504, 502, "fine", SCORES) as script:
        began = time.monotonic()
        assert torch.equal(RemoteReward(script.url, patience=PATIENCE).score(PICTURES, PROMPTS), EXACT)
    assert (0.1 + 0.2 + 0.4 + 0.8) / 2 < time.monotonic() - began < PATIENCE / 2
    assert script.asked == ["/info", "/score", "/score", "/score", "/health", "/health", "/score"]
    assert states() == before
    [told] = [record.getMessage() for record in caplog.records if record.name == "rollflow.rewards.remote.connection"]
    assert told == f"the reward server at {script.url} answered 503; waiting up to {PATIENCE:.0f} s for it"


@pytest.mark.parametrize("status", [408, 429])
def test_being_asked_to_wait_is_no_refusal(status: int) -> None:
    with Script(INFO, status, SCORES) as script:
        assert torch.equal(RemoteReward(script.url).score(PICTURES, PROMPTS), EXACT)


@pytest.mark.slow
def test_a_server_that_is_silent_is_given_up() -> None:
    with Script(INFO, *[PATIENCE] * 9) as script:
        reward = RemoteReward(script.url, timeout=0.7, patience=1.5)
        reward.load()
        began = time.monotonic()
        with pytest.raises(RewardUnavailable, match=r"did not answer within 0\.7 s; gave up after try \d"):
            reward.score(PICTURES, PROMPTS)
        assert 0.7 < time.monotonic() - began < PATIENCE / 2


OTHER = wire.Scores(reward="other", scores=EXACT.tolist()).model_dump_json()
FEW = wire.Scores(reward="wavy", scores=[1.0]).model_dump_json()


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (400, BadReward, "answered 400: no way"),
        (422, BadReward, "answered 422: no way"),
        (500, BadReward, "answered 500: no way"),
        (302, BadReward, "answered 302: no way"),
        (401, RollflowError, "set ROLLFLOW_TOKEN"),
        ("<html>", RollflowError, "is not a reward server"),
        (OTHER, RollflowError, "now hosts 'other', but the run began with 'wavy'"),
        (FEW, BadReward, "1 scores for 5 samples"),
    ],
    ids=["400", "422", "500", "302", "401", "html", "other", "few"],
)
def test_what_will_not_pass_is_told_at_once(answer: str | int, kind: type[Exception], told: str) -> None:
    with Script(INFO, answer) as script, pytest.raises(kind, match=told):
        RemoteReward(script.url).score(PICTURES, PROMPTS)
    assert script.asked == ["/info", "/score"]


def test_loading_does_not_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    reward = RemoteReward(url)
    for _ in range(2):
        with pytest.raises(RewardUnavailable, match="cannot be reached"):
            reward.load()
    for answer in (503, "<html>", 404):
        with Script(answer) as script, pytest.raises(RollflowError, match=script.url):
            RemoteReward(script.url).load()
        assert script.asked == ["/info"]


def test_the_token_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with hosted(Wavy(), token="s3cret") as host:
        for token in ("", "wrong"):
            monkeypatch.setenv("ROLLFLOW_TOKEN", token)
            with pytest.raises(RollflowError, match="requires its token; set ROLLFLOW_TOKEN"):
                RemoteReward(host.url).load()
        monkeypatch.setenv("ROLLFLOW_TOKEN", "s3cret")
        assert torch.equal(RemoteReward(host.url).score(PICTURES, PROMPTS), EXACT)
    monkeypatch.setenv("ROLLFLOW_TOKEN", "two words")
    with pytest.raises(RollflowError, match="printable ASCII"):
        RemoteReward("http://127.0.0.1:1").load()


def test_rewards_that_are_not_finite_come_as_they_are() -> None:
    text = wire.Scores(reward="wavy", scores=[np.nan, np.inf, -np.inf, -0.0, 5e-324]).model_dump_json()
    with Script(INFO, text) as script:
        scores = RemoteReward(script.url).score(PICTURES, PROMPTS).tolist()
    assert str(scores) == "[nan, inf, -inf, -0.0, 5e-324]"


def test_a_hosted_reward_that_is_unavailable_itself_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    spy = Spy()
    spy.trouble = RewardUnavailable("its own server is away")

    def available() -> None:
        wait_until(lambda: len(spy.calls) >= 2)
        spy.trouble = None

    with hosted(spy) as host:
        reward = RemoteReward(host.url, patience=PATIENCE)
        Thread(target=available).start()
        assert reward.score(PICTURES[:1], ["trouble"]).tolist() == Wavy().score(PICTURES[:1], ["trouble"]).tolist()
    assert len(spy.calls) > 1


@pytest.mark.parametrize(
    "settings",
    [{"url": "127.0.0.1:8000"}, {"url": "ftp://x"}, {"url": "http://a:b@c"}, {"timeout": 0.0}, {"patience": -1.0}],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(RollflowError, match=r"expected a URL|must be a finite number"):
        RemoteReward(**settings)


@pytest.mark.parametrize("url", ["http://localhost", "https://gpu.example.org:8000/rewards/a", "http://[::1]:8000"])
def test_urls_that_can_be(url: str) -> None:
    RemoteReward(url)

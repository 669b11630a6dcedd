"""What a server that is not what it should be can do to its client, and threads and sockets that clients share."""

from __future__ import annotations

import gc
import gzip
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import torch
from support.hosting import Host, Spy, Wavy, hosted
from support.waiting import wait_until
from test_remote import EXACT, INFO, PICTURES, PROMPTS, SCORES
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Job, Task
from rollflow.errors import BadReward, RewardUnavailable, RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards import RewardModel
from rollflow.rewards.judges.vlm_judge import VLMJudge
from rollflow.rewards.mixing import WeightedSum
from rollflow.rewards.remote import connection
from rollflow.rewards.remote.client import RemoteReward
from rollflow.rewards.remote.deadlines import client, within
from rollflow.rewards.remote.wire import Info, Scores
from rollflow.sampler import Sampler
from rollflow.search import SVDD

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """The URL of a server that tells what it hosts, and answers all else as it is told to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with suppress(BrokenPipeError, ConnectionResetError):
                if self.path == "/info":
                    send(self, INFO.encode())
                else:
                    answer(self)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_answers_are_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_ANSWER", 10**5)
    monkeypatch.setattr(connection.answered, "__defaults__", (10**5,))

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"1," * 10**5)

    with server(endless) as url, pytest.raises(BadReward, match="at most 100000 bytes"):
        RemoteReward(url).score(PICTURES, PROMPTS)


def test_answers_are_not_unpacked() -> None:
    packed = gzip.compress(SCORES.encode())
    with (
        server(lambda handler: send(handler, packed, Content_Encoding="gzip")) as url,
        pytest.raises(RollflowError, match="is not a reward server"),
    ):
        RemoteReward(url).score(PICTURES, PROMPTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nA: ", b"a"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
    ids=["body", "header", "not yet"],
)
def test_a_whole_answer_has_to_come_in_time(first: bytes, then: bytes) -> None:
    """However often a letter of it comes: of the body, of a header, or of answers that are none yet."""

    def dripping(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(first)
        for _ in range(2000):
            handler.wfile.write(then)
            time.sleep(0.05)

    with server(dripping) as url:
        reward = RemoteReward(url, timeout=0.9, patience=0)
        reward.load()
        began = time.monotonic()
        with pytest.raises(RewardUnavailable, match=r"did not answer within 0\.9 s"):
            reward.score(PICTURES, PROMPTS)
        assert time.monotonic() - began < 50
        judge = VLMJudge(f"{url}/v1", "m", cache=None, retries=0, timeout=0.1)
        with pytest.raises(RewardUnavailable, match=r"gave no valid answer \(tries: 1\); the last: ReadTimeout"):
            judge.score(PICTURES[:1], ["a cat"])
        assert time.monotonic() - began < 80


def test_a_request_has_to_be_taken_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, client() as http:
        began = time.monotonic()
        with pytest.raises(httpx.WriteTimeout), within(0.3):
            http.post(f"http://127.0.0.1:{deaf.getsockname()[1]}/score", content=bytes(5 * 10**7))
        assert time.monotonic() - began < 60


def test_deadlines_are_of_a_thread_and_of_a_block(host: Host) -> None:
    with client(base_url=host.url) as http:
        with within(60), pytest.raises(httpx.TimeoutException), within(-1):
            http.get("/health")
        with within(-1):
            answers: list[int] = []
            thread = threading.Thread(target=lambda: answers.append(http.get("/health").status_code))
            thread.start()
            thread.join()
        assert answers == [200]
        assert http.get("/health").status_code == 200


@pytest.fixture
def host() -> Iterator[Host]:
    with hosted(Wavy()) as host:
        yield host


def test_the_token_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLFLOW_TOKEN", "s3cret")
    got: list[str] = []

    def told(handler: BaseHTTPRequestHandler) -> None:
        got.append(str(handler.headers["Authorization"]))
        send(handler, SCORES.encode())

    with server(told) as remote:
        redirect = b'{"error": "moved"}'
        for status in (301, 302, 303, 307, 308):
            with (
                server(lambda handler, to=status: send(handler, redirect, to, Location=f"{remote}/score")) as url,  # type: ignore[misc]
                pytest.raises(BadReward, match=f"answered {status}: moved"),
            ):
                RemoteReward(url).score(PICTURES, PROMPTS)
    assert got == []


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ("[null, 1, 2.5, -3, 0]", [math.nan, 1, 2.5, -3, 0]),
        ('["NaN", "Infinity", "-Infinity", 1e300, 0]', [math.nan, math.inf, -math.inf, 1e300, 0]),
    ],
)
def test_scores_are_numbers_or_missing(scores: str, expected: list[float]) -> None:
    with server(lambda handler: send(handler, b'{"reward": "wavy", "scores": %s}' % scores.encode())) as url:
        told = RemoteReward(url).score(PICTURES, PROMPTS)
    assert torch.equal(told.nan_to_num(7), torch.tensor(expected, dtype=torch.float64).nan_to_num(7))


@pytest.mark.parametrize(
    "scores",
    ["[true, 1, 1, 1, 1]", '["1", 1, 1, 1, 1]', "[[1], 1, 1, 1, 1]", "{}", "null", "[" * 5000, '"12345"', "[1e999x]"],
)
def test_scores_that_are_none(scores: str) -> None:
    with (
        server(lambda handler: send(handler, b'{"reward": "wavy", "scores": %s}' % scores.encode())) as url,
        pytest.raises(RollflowError, match="is not a reward server"),
    ):
        RemoteReward(url).score(PICTURES, PROMPTS)


def test_what_is_sent_is_what_comes_back() -> None:
    assert Scores(reward="r", scores=[1, math.inf]).model_dump_json() == '{"reward":"r","scores":[1.0,"Infinity"]}'


def test_answers_of_a_judge_are_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollflow.rewards.judges.chat.MAX_COMPLETION", 1000)
    with server(lambda handler: send(handler, b" " * 5000)) as url:
        judge = VLMJudge(f"{url}/v1", "m", cache=None, retries=0)
        with pytest.raises(BadReward, match="at most 1000 bytes"):
            judge.score(PICTURES[:1], ["a cat"])


@pytest.mark.slow
def test_objects_for_one_server_share_its_sockets() -> None:
    with hosted(Wavy()) as host:
        rewards = [RemoteReward(host.url) for _ in range(20)]
        for reward in rewards:
            assert torch.equal(reward.score(PICTURES[:1], PROMPTS[:1]), EXACT[:1])
        assert len({id(reward._connection._sockets) for reward in rewards}) == 1
        assert len(host.server.server_state.connections) == 1
        client = rewards[0]._connection._sockets.client
        del rewards, reward
        gc.collect()
        assert client.is_closed


class Places(Wavy):
    """Remembers the threads in which it is called."""

    remote = True
    threads: set[int]

    def __init__(self, place: str, threads: list[set[int]]) -> None:
        self.at, self.threads = place, set()
        threads.append(self.threads)

    @property
    def place(self) -> str:
        return self.at

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.threads.add(threading.get_ident())
        return super().score(samples, prompts)


def jobs(model: ToyModel, rewards: Sequence[RewardModel]) -> list[Job]:
    sampler, search = Sampler(Linear(), steps=3), SVDD()
    nfe = search.smallest_nfe(sampler.bind(model))
    return [Job(Task(model, "left", reward), search, nfe, seed, sampler) for seed, reward in enumerate(rewards)]


def test_rewards_of_one_server_are_computed_in_one_thread(line: ToyModel) -> None:
    threads: list[set[int]] = []
    alone = Engine().run(jobs(line, [Wavy() for _ in range(6)]))
    results = Engine().run(jobs(line, [Places("ab"[i % 2], threads) for i in range(6)]))
    assert [result.reward for result in results] == [result.reward for result in alone]
    assert all(len(of_one) == 1 for of_one in threads)
    assert threads[0] == threads[2] == threads[4] != threads[1]
    assert threads[1] == threads[3] == threads[5]
    assert threading.get_ident() not in threads[0] | threads[1]


def test_rewards_with_one_url_have_one_place() -> None:
    ours, same, other = RemoteReward("http://a:1"), RemoteReward("http://a:1/"), RemoteReward("http://a:2")
    assert ours.place == same.place != other.place
    local = Wavy()
    assert local.place is None
    local.device = torch.device("cuda")
    again = Wavy()
    again.device = torch.device("cuda:0")
    assert local.place == again.place
    again.name = "other"  # type: ignore[misc]
    assert WeightedSum((ours, Wavy())).place == ours.place
    assert WeightedSum((local, again)).place == local.place
    assert WeightedSum((ours, local)).place == WeightedSum((local, same)).place
    judges = [VLMJudge("http://a/v1", model) for model in ("m", "m", "n")]
    assert judges[0].place == judges[1].place != judges[2].place


@pytest.mark.slow
def test_threads_end_with_their_engine(line: ToyModel) -> None:
    before = threading.active_count()
    for _ in range(100):
        Engine().run(jobs(line, [Places("a", []), Places("b", [])]))
    wait_until(lambda: threading.active_count() <= before)


def test_threads_end_with_an_engine_that_fails_or_is_left(line: ToyModel) -> None:
    before = threading.active_count()
    spy = Spy()
    spy.remote = True
    engine = Engine()
    for _ in range(10):
        stream: Any = engine.stream(jobs(line, [Places("a", []), Places("b", [])]))
        next(stream)
        stream.close()
        spy.trouble = ValueError("no")
        failing = [Job(Task(line, "left", spy), SVDD(), 100, 0, Sampler(Linear(), steps=3))]
        spy.score = None  # type: ignore[assignment,method-assign]
        with pytest.raises(RollflowError):
            engine.run(failing)
    wait_until(lambda: threading.active_count() <= before)


@pytest.mark.parametrize("field", ["name", "identity", "description"])
def test_what_a_server_says_of_itself_is_no_book(field: str) -> None:
    told = json.loads(INFO) | {field: "a" * 200_000}
    with pytest.raises(RollflowError, match="is not a reward server"):
        RemoteReward()._parsed(Info, httpx.Response(200, content=json.dumps(told)))


def test_why_a_server_refuses_is_told_in_a_line() -> None:
    with server(lambda handler: send(handler, json.dumps({"error": "a" * 10**6}).encode(), 422)) as url:
        with pytest.raises(BadReward, match="answered 422: aaa") as caught:
            RemoteReward(url).score(PICTURES, PROMPTS)
        assert len(str(caught.value)) < 700

"""The server: scores as in-process, and requests of every unwelcome kind."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.hosting import Host, Spy, Wavy, hosted
from support.waiting import PATIENCE, wait_until
from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.files.pictures import from_pictures
from rollflow.prompts import Prompt
from rollflow.rewards.remote.server.app import app_of
from rollflow.rewards.remote.server.batcher import Batcher
from rollflow.rewards.remote.server.bodies import read
from rollflow.rewards.remote.server.host import _Punctual
from rollflow.rewards.remote.server.limits import Limits, Refusal
from rollflow.rewards.remote.wire import KEY, PICTURES, TENSORS, SampleBatch, Scores, encode
from rollflow.rewards.scoring import scored

SMALL = Limits(megabytes=0.05, rows=6, pixels=500, requests=3, seconds=PATIENCE, characters=50)
TOKEN = "kept-between-us"


@pytest.fixture(scope="module")
def wavy() -> Iterator[Host]:
    with hosted(Wavy(), limits=SMALL) as host:
        yield host


@pytest.fixture(scope="module")
def guarded() -> Iterator[Host]:
    with hosted(Wavy(), TOKEN, SMALL) as host:
        yield host


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        yield client


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def body_of(samples: Tensor, prompts: Sequence[str] | None = None) -> bytes:
    return encode(SampleBatch(samples, prompts if prompts is not None else ["a cat"] * len(samples)))


def post(client: httpx.Client, host: Host, body: Any, media: str = TENSORS, **headers: str) -> httpx.Response:
    return client.post(f"{host.url}/score", content=body, headers={"Content-Type": media} | headers)


def png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def pictures(*images: str, prompts: Sequence[Any] | None = None) -> bytes:
    return json.dumps({"images": images, "prompts": prompts or ["a cat"] * len(images)}).encode()


def refused(answer: httpx.Response, status: int, *words: str) -> str:
    """The one line of a refusal."""
    assert answer.status_code == status, answer.text
    [(key, line)] = answer.json().items()
    assert key == "error"
    assert len(line.splitlines()) == 1
    for word in words:
        assert word in line
    return str(line)


@pytest.mark.parametrize(
    "samples",
    [
        numbers(5, 3, 8, 8),
        numbers(3, 2, 3, 4, 4),
        numbers(6, 2).double(),
        numbers(2, 3, 4, 4).half(),
        numbers(2, 3, 4, 4).bfloat16(),
        (numbers(2, 3, 4, 4) * 255).to(torch.uint8),
        (numbers(4, 3) * 1e15).long(),
        numbers(3, 4, 4, 3).permute(0, 3, 1, 2),
        numbers(1, 3, 4, 4).expand(3, 3, 4, 4),
        numbers(4),
    ],
    ids=lambda samples: f"{samples.dtype}{tuple(samples.shape)}".replace("torch.", ""),
)
def test_scores_are_those_in_process_to_the_last_bit(samples: Tensor, wavy: Host, client: httpx.Client) -> None:
    prompts = ["a cat", Prompt("two dögs \N{DOG FACE}", {"dog": 2}), "", "x" * 50, "a\nb", Prompt("none", {})]
    prompts = prompts[: len(samples)]
    expected = scored(Wavy(), samples, prompts)
    answer = Scores.model_validate_json(post(client, wavy, body_of(samples, prompts)).content)
    assert answer.scores == expected.tolist()
    assert answer.reward == "wavy"


def test_pictures_are_scored_as_their_bytes(wavy: Host, client: httpx.Client) -> None:
    made = [
        Image.effect_noise((7, 5), 90).convert("RGB"),
        Image.effect_noise((7, 5), 50),
        Image.new("RGBA", (7, 5), "red"),
    ]
    made.append(made[0].convert("P"))
    prompts = ["a cat", {"text": "two cats", "ask": {"cat": 2}}, "c", "d"]
    answer = post(client, wavy, pictures(*map(png, made), prompts=prompts), f"{PICTURES}; charset=utf-8")
    expected = scored(Wavy(), from_pictures(made), ["a cat", Prompt("two cats", {"cat": 2}), "c", "d"])
    assert answer.json() == {"reward": "wavy", "scores": expected.tolist()}


@given(st.lists(st.floats(), max_size=20))
def test_every_float_survives(floats: list[float]) -> None:
    text = Scores(reward="r", scores=floats).model_dump_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = Scores.model_validate_json(text).scores
    assert [struct.pack("d", x) for x in back if x == x] == [struct.pack("d", x) for x in floats if x == x]
    assert [x == x for x in back] == [x == x for x in floats]


@given(
    st.lists(
        st.text()
        | st.builds(
            Prompt,
            st.text(min_size=1).filter(str.strip),
            st.dictionaries(st.text(min_size=1).filter(str.strip), st.integers(0, 2**31 - 1)),
        ),
        min_size=1,
        max_size=6,
    )
)
@pytest.mark.slow
def test_prompts_arrive_with_what_they_ask_for(prompts: list[str]) -> None:
    arrived = read(TENSORS, body_of(torch.ones(len(prompts), 1), prompts), Limits()).prompts
    assert list(arrived) == prompts
    assert [getattr(p, "ask", None) for p in arrived] == [getattr(p, "ask", None) for p in prompts]


GOOD = body_of(numbers(2, 3, 4, 4))
GOOD_PICTURES = pictures(png(Image.new("RGB", (4, 4))))
PIECES = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([GOOD, GOOD_PICTURES, GOOD[:8], GOOD[8:150], b'{"images": [', b'"prompts": [', b"]", b"}", b"["]),
    max_size=6,
).map(b"".join)
DAMAGED = st.builds(
    lambda body, at, new, cut: body[: at % len(body)] + new + body[at % len(body) + cut :],
    st.sampled_from([GOOD, GOOD_PICTURES]),
    st.integers(0, 10**6),
    st.binary(max_size=9),
    st.integers(0, 9),
)


@settings(max_examples=400)
@given(st.sampled_from([TENSORS, PICTURES]), PIECES | DAMAGED)
@pytest.mark.slow
def test_whatever_is_read_is_a_batch_or_refused(media: str, body: bytes) -> None:
    with suppress(Refusal):
        samples, prompts = read(media, body, SMALL)
        assert 0 < len(samples) == len(prompts) <= SMALL.rows


@settings(max_examples=100)
@given(media=st.sampled_from([TENSORS, PICTURES]), body=PIECES | DAMAGED)
def test_no_body_is_an_error_of_the_server(media: str, body: bytes, wavy: Host, client: httpx.Client) -> None:
    answer = post(client, wavy, body, media)
    assert answer.status_code == 200 or refused(answer, answer.status_code)
    assert answer.status_code in (200, 413, 422)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "safetensors"),
        (GOOD[:-1], "safetensors"),
        (b"\xff" * 8, "safetensors"),
        (body_of(torch.zeros(2, 3).bool()), "real numbers"),
        (body_of(torch.zeros(2, 3, dtype=torch.complex64)), "real numbers"),
        (body_of(torch.zeros(2, 0)), "(2, 0)"),
        (body_of(torch.zeros(0, 2)), "(0, 2)"),
        (body_of(torch.tensor(1.0), []), "shape ()"),
        (body_of(torch.zeros(2, 3), ["one"]), "got 1 prompts for 2 samples"),
        (GOOD.replace(b"samples", b"simples"), "samples"),
        (GOOD.replace(b"prompts", b"pramets"), "prompts"),
    ],
    ids=range(11),
)
def test_tensors_that_are_not_what_they_should_be(body: bytes, word: str, wavy: Host, client: httpx.Client) -> None:
    refused(post(client, wavy, body), 422, word)


def deep() -> str:
    """A PNG of 16 bits a channel."""
    return png(Image.new("I;16", (2, 2)))


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"[" * 40_000, "recursion"),
        (b'{"images": [], "prompts": []}', "none"),
        (b'{"images": ["!"], "prompts": ["a"]}', "image 0"),
        (b'{"images": ["R0lGODlhAQABAAAAACw="], "prompts": ["a"]}', "image 0"),
        (b'{"images": 3, "prompts": ["a"]}', "at images"),
        (b'{"images": [], "prompts": ["\\ud800"]}', "JSON"),
        (b'{"images": [], "prompts": [], "model": "x"}', "at model"),
        (pictures(png(Image.new("RGB", (2, 2))), prompts=[{"text": "a", "ask": {"cat": -1}}]), "prompts.0"),
        (pictures(png(Image.new("RGB", (2, 2))), prompts=[{"text": "a", "ask": {" ": 1}}]), "a name in ask is empty"),
        (pictures(png(Image.new("RGB", (2, 2))), png(Image.new("RGB", (2, 3)))), "(2, 3)"),
        (pictures(png(Image.new("RGBA", (2, 2), (1, 2, 3, 4)))), "transparent"),
        (pictures(deep()), "16 bits"),
    ],
    ids=range(12),
)
def test_pictures_that_are_not_what_they_should_be(body: bytes, word: str, wavy: Host, client: httpx.Client) -> None:
    refused(post(client, wavy, body, PICTURES), 422, word)


def test_other_addresses_methods_and_types(wavy: Host, client: httpx.Client) -> None:
    refused(client.get(f"{wavy.url}/docs"), 404, "POST /score")
    refused(client.get(f"{wavy.url}/score"), 405, "POST /score")
    for media in ("application/octet-stream", "application/x-pickle", "text/plain", ""):
        refused(post(client, wavy, GOOD, media), 415, TENSORS, PICTURES)


def test_too_much(wavy: Host, client: httpx.Client) -> None:
    large = b"0" * (SMALL.bytes + 1)
    refused(post(client, wavy, large), 413, "50000 bytes")
    refused(post(client, wavy, iter([large[:30_000], large[30_000:]])), 413, "50000 bytes")
    refused(post(client, wavy, large[:-1]), 422)
    refused(post(client, wavy, body_of(numbers(7, 2))), 413, "7 samples", "at most 6")
    small = png(Image.new("RGB", (2, 2)))
    refused(post(client, wavy, pictures(*[small] * 7), PICTURES), 413, "7 samples")
    refused(post(client, wavy, pictures(*[png(Image.new("RGB", (15, 15)))] * 3), PICTURES), 413, "675 pixels")
    for prompt in ("x" * 51, Prompt("x" * 30, {"y" * 11: 1, "z" * 10: 2})):
        refused(post(client, wavy, body_of(numbers(2, 2), ["a", prompt])), 422, "prompt 1 has 51 characters", "most 50")


def test_endless_bodies_are_not_read_to_their_end(wavy: Host) -> None:
    with socket.create_connection(("127.0.0.1", wavy.port), timeout=PATIENCE) as raw:
        raw.sendall(f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {TENSORS}\r\n".encode())
        raw.sendall(b"Content-Length: 9000000000000000\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_a_picture_that_claims_to_be_huge_is_not_unpacked(wavy: Host, client: httpx.Client) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for side in (9_000, 60_000):  # below and beyond what PIL itself is afraid of
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        packed = zlib.compress(bytes(10**7), 9)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
        answer = post(client, wavy, pictures(base64.b64encode(bomb).decode()), PICTURES)
        assert answer.status_code in (413, 422)
        assert "pixels" in refused(answer, answer.status_code)


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}é"])
def test_without_the_token_nothing_is_told_or_read(given: str | None, guarded: Host, client: httpx.Client) -> None:
    headers = {} if given is None else {b"Authorization": given.encode("latin-1")}
    for answer in (
        client.get(f"{guarded.url}/info", headers=headers),
        client.post(f"{guarded.url}/score", content=GOOD, headers=headers | {b"Content-Type": TENSORS.encode()}),
        client.post(f"{guarded.url}/score", content=b"0" * 10**6, headers=headers),
    ):
        line = refused(answer, 401, "ROLLFLOW_TOKEN")
        assert TOKEN not in line
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_refused_before_the_body_is_sent(guarded: Host) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=PATIENCE) as raw:
        raw.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 401")


def test_with_the_token_all_is_told(guarded: Host, client: httpx.Client) -> None:
    told = client.get(f"{guarded.url}/info", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert told.pop("versions").keys() == {"rollflow", "torch", "python"}
    assert told == {
        "name": "wavy",
        "identity": "wavy",
        "description": Wavy.description,
        "range": None,
        "bounds": [-1.0, None],
        "zero_is_perfect": False,
        "differentiable": False,
        "structured": False,
        "held_out": [],
        "batch_size": 4,
        "max_rows": 6,
        "max_bytes": 50_000,
        "max_pixels": 500,
    }
    assert post(client, guarded, GOOD, Authorization=f"Bearer {TOKEN}").status_code == 200
    assert client.get(f"{guarded.url}/health").json() == {"status": "ok", "requests": 0}


def test_slow_bodies_time_out_and_leave_their_place(wavy: Host, client: httpx.Client) -> None:
    slow = [socket.create_connection(("127.0.0.1", wavy.port), timeout=PATIENCE) for _ in range(3)]
    head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {TENSORS}\r\nContent-Length: 1000\r\n\r\n"
    for raw in slow:
        raw.sendall(head.encode() + GOOD[:20])
    wait_until(lambda: client.get(f"{wavy.url}/health").json()["requests"] == 3)
    answer = post(client, wavy, GOOD)
    refused(answer, 503, "3 requests")
    assert int(answer.headers["Retry-After"]) == 1
    slow.pop().close()  # one hangs up
    wavy.loop.skip(PATIENCE)
    for raw in slow:
        with raw:
            assert raw.recv(1000).startswith(b"HTTP/1.1 408")
    assert post(client, wavy, GOOD).status_code == 200
    assert client.get(f"{wavy.url}/health").json()["requests"] == 0


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["new", "kept alive"])
def test_requests_that_never_begin_are_hung_up_on(first: bytes, wavy: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a letter comes."""
    monkeypatch.setattr(_Punctual, "seconds", PATIENCE)
    with socket.create_connection(("127.0.0.1", wavy.port), timeout=PATIENCE) as raw:
        raw.sendall(first)
        answer = b""
        while first and not answer.endswith(b"}"):  # head and body may come apart
            answer += raw.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200" if first else b"")
        raw.setblocking(False)
        for _ in range(5):
            raw.sendall(b"G")
            time.sleep(0.01)
            with pytest.raises(BlockingIOError):  # it is open, and nothing was answered
                raw.recv(1000)

        def hung_up() -> bool:
            wavy.loop.skip(PATIENCE)  # again, since the server may not have seen the connection yet
            try:
                raw.sendall(b"G")
                return raw.recv(1000) == b""
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True

        wait_until(hung_up)


def test_no_http_at_all(wavy: Host) -> None:
    with socket.create_connection(("127.0.0.1", wavy.port), timeout=PATIENCE) as raw:
        raw.sendall(b"\x80\x04\x95 what is this\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")


@pytest.fixture
def spy() -> Iterator[Spy]:
    spy = Spy()
    yield spy
    spy.gate.set()


SUBMITTED: list[SampleBatch] = []
"""What has come as far as the thread that scores."""


@pytest.fixture(autouse=True)
def submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep ``SUBMITTED`` up to date."""
    submit = Batcher.submit

    def noted(self: Batcher, batch: SampleBatch, key: bytes | None = None) -> Future[list[float]]:
        scores = submit(self, batch, key)
        SUBMITTED.append(batch)
        return scores

    SUBMITTED.clear()
    monkeypatch.setattr(Batcher, "submit", noted)


class Crowd:
    """Requests at once, in the order in which they were made, while the reward is held up by a first one."""

    def __init__(self, spy: Spy, host: Host, client: httpx.Client) -> None:
        self.spy, self.host, self.client = spy, host, client
        self.pool = ThreadPoolExecutor(16)
        spy.gate.clear()
        self.waiting = 0
        self.first = self.ask(numbers(1, 2), ["first"])
        assert spy.entered.wait(PATIENCE)

    def ask(self, samples: Tensor, prompts: Sequence[str], **headers: str) -> Future[httpx.Response]:
        self.waiting += 1
        before = len(SUBMITTED)
        future = self.pool.submit(post, self.client, self.host, body_of(samples, prompts), **headers)
        wait_until(lambda: self.client.get(f"{self.host.url}/health").json()["requests"] == self.waiting)
        wait_until(lambda: len(SUBMITTED) > before or future.done())  # counted is not yet read
        return future

    def go_on(self) -> None:
        self.spy.gate.set()
        self.pool.shutdown()


def scores(asked: Future[httpx.Response]) -> list[float]:
    return list(asked.result().json()["scores"])


def test_what_came_in_meanwhile_is_scored_together(spy: Spy, client: httpx.Client) -> None:
    sizes = {"a": 2, "b": 1, "film": 1, "c": 2, "d": 1, "e": 6}
    samples = {name: numbers(size, *([2, 3, 2, 2] if name == "film" else [2])) for name, size in sizes.items()}
    with hosted(spy) as host:
        crowd = Crowd(spy, host, client)
        asked = {name: crowd.ask(samples[name], [name] * sizes[name]) for name in sizes}
        crowd.go_on()
    assert spy.calls == [["first"], ["a", "a", "b", "d"], ["film"], ["c", "c"], ["e"] * 4, ["e"] * 2]
    for name, answer in asked.items():
        assert scores(answer) == Wavy().score(samples[name], [name] * sizes[name]).tolist()


@pytest.mark.parametrize(
    ("trouble", "status", "told"),
    [
        (ValueError("a prompt\nlike no other"), 422, "reward 'wavy' refused the request: a prompt like no other"),
        (RuntimeError("no kernel image"), 500, "reward 'wavy' failed: RuntimeError: no kernel image"),
        (SystemExit(0), 500, "reward 'wavy' failed: SystemExit: 0"),
    ],
    ids=["refused", "failed", "exit"],
)
def test_trouble_of_one_is_not_that_of_others(
    trouble: BaseException, status: int, told: str, spy: Spy, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    spy.trouble = trouble
    with hosted(spy) as host:
        crowd = Crowd(spy, host, client)
        fine, bad, good = (crowd.ask(numbers(1, 2), [name]) for name in ("fine", "trouble", "good"))
        crowd.go_on()
        assert refused(bad.result(), status) == told
        for answer, name in ((fine, "fine"), (good, "good")):
            assert scores(answer) == Wavy().score(numbers(1, 2), [name]).tolist()
        assert client.get(f"{host.url}/health").status_code == 200
    assert spy.calls == [["first"], ["fine", "trouble", "good"], ["fine"], ["trouble"], ["good"]]
    logged = [
        record
        for record in caplog.records
        if record.name == "rollflow.rewards.remote.server.batcher" and record.exc_info
    ]
    assert len(logged) == (status == 500)


def test_a_request_made_again_is_not_scored_again(spy: Spy, client: httpx.Client) -> None:
    with hosted(spy) as host:
        crowd = Crowd(spy, host, client)
        one, again, other = (crowd.ask(numbers(1, 2), ["x"], **{KEY: key}) for key in ("1", "1", "2"))
        crowd.go_on()
        assert scores(one) == scores(again) == scores(other)
        assert scores(one) == post(client, host, body_of(numbers(1, 2), ["x"]), **{KEY: "1"}).json()["scores"]
    assert spy.calls == [["first"], ["x", "x"]]


def test_a_key_is_that_of_what_was_sent(spy: Spy, client: httpx.Client) -> None:
    """Programs that number their requests do not know of each other."""
    with hosted(spy) as host:
        for samples, prompt in ((numbers(1, 2), "x"), (numbers(1, 2), "y y"), (numbers(1, 3), "x")):
            answer = post(client, host, body_of(samples, [prompt]), **{KEY: "1"})
            assert answer.json()["scores"] == Wavy().score(samples, [prompt]).tolist()
    assert len(spy.calls) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_health_tells_that_the_thread_is_dead(spy: Spy, client: httpx.Client) -> None:
    spy.trouble = KeyboardInterrupt()  # what no reward is blamed for
    with hosted(spy) as host:
        crowd = Crowd(spy, host, client)
        asked = [crowd.ask(numbers(1, 2), [prompt]) for prompt in ("trouble", "after")]
        crowd.go_on()
        for answer in (
            *[future.result() for future in asked],
            post(client, host, body_of(numbers(1, 2))),
            client.get(f"{host.url}/health"),
        ):
            refused(answer, 503, "restart")


def test_what_is_not_finite_is_said_in_json(client: httpx.Client) -> None:
    class Infinite(Wavy):
        """No finite number."""

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.tensor([torch.nan, torch.inf, -torch.inf])

    with hosted(Infinite()) as host:
        answer = post(client, host, body_of(numbers(3, 2)))
    assert json.loads(answer.text)["scores"] == ["NaN", "Infinity", "-Infinity"]


def test_rewards_that_look_back_are_not_hosted() -> None:
    reward = Wavy()
    reward.relative = True
    with pytest.raises(RollflowError, match="mix them where the search runs"):
        app_of(reward)


@pytest.mark.parametrize(
    "limit", [{"rows": 0}, {"megabytes": -1.0}, {"seconds": float("nan")}, {"megabytes": float("inf")}]
)
def test_limits_are_above_zero(limit: dict[str, Any]) -> None:
    with pytest.raises(RollflowError, match=f"limit of {next(iter(limit))}"):
        Limits(**limit)

"""Requests that no client of ours makes: each is answered in one line, none is an error of the server."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import logging
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest
import torch
from PIL import Image, PngImagePlugin
from support.hosting import Host, Wavy, hosted
from support.waiting import PATIENCE, wait_until

from rollflow.rewards import REWARDS
from rollflow.rewards.pixels.colorfulness import Colorfulness
from rollflow.rewards.remote.server.app import _Desk, app_of
from rollflow.rewards.remote.server.bodies import check_media, read
from rollflow.rewards.remote.server.host import _SELDOM
from rollflow.rewards.remote.server.limits import Limits, Refusal
from rollflow.rewards.remote.wire import KEY, PICTURES, TENSORS, SampleBatch, encode

LIMITS = Limits(megabytes=2, rows=6, pixels=1000, characters=50, memory=4)
JSON = {"Content-Type": PICTURES}
TENSOR = {"Content-Type": TENSORS}
NO_DTYPES: tuple[Any, ...] = ("BOOL", "C64", "F8_E4M3", "U64", "X", None, [])
NO_COUNTS: tuple[Any, ...] = (-1, 10**30, 2**31, 1.5, True, "1", None, [])


class Ask(NamedTuple):
    """A request, and the answers that are right."""

    name: str
    expected: int | tuple[int, ...]
    content: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    method: str = "POST"
    path: str = "/score"


def png(picture: Image.Image | None = None, **how: Any) -> bytes:
    file = io.BytesIO()
    (picture or Image.new("RGB", (4, 4))).save(file, "PNG", **how)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def images(*files: bytes, prompts: Any = None, **more: Any) -> bytes:
    content = {"images": [base64.b64encode(file).decode() for file in files], "prompts": prompts or ["x"] * len(files)}
    return json.dumps(content | more).encode()


def tensors(entry: Any = None, prompts: Any = '["x"]', size: int = 192, **more: Any) -> bytes:
    """A safetensors file whose header says what it likes."""
    sample = {"dtype": "F32", "shape": [1, 3, 4, 4], "data_offsets": [0, 192]}
    entry = sample | entry if isinstance(entry, dict) else sample if entry is None else entry
    text = json.dumps({"samples": entry, "__metadata__": {"prompts": prompts}, **more}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def of(values: torch.Tensor, *prompts: str) -> bytes:
    return encode(SampleBatch(values, prompts or ["x"] * len(values)))


GOOD, GOOD_PICTURE = tensors(), images(png())
SIGNATURE = png()[:8]
TWICE = SIGNATURE + header(4, 4) + header(9_000, 9_000) + png()[33:]
TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("bomb", "0" * 10**8, zip=True)

ASKS = [
    Ask("good tensors", 200, GOOD, TENSOR),
    Ask("good pictures", 200, GOOD_PICTURE, JSON),
    # methods, paths, types
    *(Ask(f"{method} /score", 405, GOOD, TENSOR, method) for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")),
    *(Ask(f"{method} /info", 405, b"", {}, method, "/info") for method in ("HEAD", "POST", "PATCH", "TRACE")),
    *(
        Ask(f"path {path[:20]}", (200, 307, 404), GOOD, TENSOR, "POST", path)
        for path in (
            "//score",
            "/score/",
            "/score%00",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/sc\u00f6re",
            "/docs",
            "/" + "a" * 9_000,
        )
    ),
    Ask("query", 200, GOOD, TENSOR, path="/score?rows=1000000000&" + "a" * 5_000),
    *(
        Ask(f"type {media}", 415, GOOD, {"Content-Type": media})
        for media in ("", "text/plain", "multipart/form-data; boundary=x", "application/x-pickle", "application/jsonl")
    ),
    Ask("gzip", 415, gzip.compress(bytes(10**6)), JSON | {"Content-Encoding": "gzip"}),
    Ask("br", 415, GOOD, TENSOR | {"Content-Encoding": "br"}),
    Ask("not gzip", 200, GOOD, TENSOR | {"Content-Encoding": "identity"}),
    Ask("long key", 200, GOOD, TENSOR | {KEY: "k" * 9_000}),
    # tensors
    Ask("no tensors", 422, b"", TENSOR),
    Ask("a length without end", 422, b"\xff" * 8 + GOOD, TENSOR),
    Ask("negative side", 422, tensors({"shape": [1, -3, 4, 4]}), TENSOR),
    Ask("no rows", 422, tensors({"shape": [0, 3, 4, 4], "data_offsets": [0, 0]}, "[]", 0), TENSOR),
    Ask("float side", 422, tensors({"shape": [1, 3.0, 4, 4]}), TENSOR),
    Ask("bool side", 422, tensors({"shape": [True, 3, 4, 4]}), TENSOR),
    Ask("words as sides", 422, tensors({"shape": "1344"}), TENSOR),
    Ask("no shape", 422, tensors({"shape": None}), TENSOR),
    Ask("a number as shape", 422, tensors({"shape": 3}), TENSOR),
    Ask("scalar", 422, tensors({"shape": [], "data_offsets": [0, 4]}, size=4), TENSOR),
    Ask("nine dimensions", 422, tensors({"shape": [1, 3, 4, 4, 1, 1, 1, 1, 1]}), TENSOR),
    Ask("a million dimensions", 422, tensors({"shape": [1] * 90_000}), TENSOR),
    Ask("one dimension", 422, of(torch.zeros(2)), TENSOR),
    Ask("grey", 422, of(torch.zeros(2, 1, 4, 4)), TENSOR),
    Ask("channels last", 422, of(torch.zeros(2, 4, 4, 3)), TENSOR),
    Ask("films of films", 422, of(torch.zeros(1, 1, 1, 3, 2, 2)), TENSOR),
    Ask("a thousand million rows", 413, tensors({"shape": [10**9, 3, 4, 4]}), TENSOR),
    Ask("a thousand million columns", 413, tensors({"shape": [1, 3, 10**9, 10**9]}), TENSOR),
    Ask("sides beyond 64 bits", 413, tensors({"shape": [1, 3, 10**30, 1]}), TENSOR),
    Ask("one pixel too many", 413, tensors({"shape": [1, 3, 1001, 1], "data_offsets": [0, 12012]}, size=12012), TENSOR),
    Ask("offsets beyond the end", 422, tensors({"data_offsets": [0, 10**12]}), TENSOR),
    Ask("offsets that overlap", 422, tensors({"data_offsets": [100, 0]}), TENSOR),
    Ask("offsets that are none", 422, tensors({"data_offsets": "all"}), TENSOR),
    *(Ask(f"dtype {dtype}", 422, tensors({"dtype": dtype}), TENSOR) for dtype in NO_DTYPES),
    Ask("other tensors", 422, tensors(other={"dtype": "F32", "shape": [0], "data_offsets": [192, 192]}), TENSOR),
    Ask("no samples", 422, tensors("none"), TENSOR),
    Ask("a list as header", 422, struct.pack("<Q", 2) + b"[]", TENSOR),
    Ask("deep header", 422, struct.pack("<Q", 50_000) + b"[" * 50_000, TENSOR),
    Ask("too many values in the header", 413, struct.pack("<Q", 300_001) + b"[" + b"1," * 150_000, TENSOR),
    *(
        Ask(f"value {value}", 422, of(torch.full((1, 3, 4, 4), value)), TENSOR)
        for value in (torch.nan, torch.inf, -torch.inf)
    ),
    Ask("NaN in half", 422, of(torch.full((1, 3, 4, 4), torch.nan).half()), TENSOR),
    # prompts
    *(
        Ask(f"prompts {str(prompts)[:30]}", 422, tensors(None, prompts), TENSOR)
        for prompts in (
            "",
            "null",
            "{}",
            "[null]",
            "[1]",
            "[[]]",
            '["x", "y"]',
            "[" * 5_000,
            '["\\ud800"]',
            None,
            3,
            ["x"],
        )
    ),
    Ask("a hundred thousand prompts", 422, tensors(None, json.dumps([""] * 90_000)), TENSOR),
    Ask("a million prompts", 413, tensors(None, json.dumps([""] * 300_000)), TENSOR),
    Ask("a long prompt", 422, tensors(None, json.dumps(["x" * 10**6])), TENSOR),
    Ask(
        "prompts of the world",
        200,
        of(torch.zeros(4, 3, 2, 2), "\0", "\u202e\u0663", "\U0001f408" * 9, "\r\n\x1b[2J"),
        TENSOR,
    ),
    *(
        Ask(f"ask {asked}", 422, images(png(), prompts=[{"text": "x", "ask": {"cat": asked}}]), JSON)
        for asked in NO_COUNTS
    ),
    # JSON
    *(
        Ask(f"JSON {text[:12]!r}", 422, text, JSON)
        for text in (
            b"",
            b"null",
            b"[]",
            b"3",
            b"{}",
            b"\xef\xbb\xbf{}",
            b"NaN",
            b"[" * 10**5,
            b'{"a":' * 10**5,
            GOOD_PICTURE + b"x",
            GOOD_PICTURE.decode().encode("utf-16"),
            b"\x80" * 10**5,
            b"// x\n" + GOOD_PICTURE,
            b"9" * 10**5,
        )
    ),
    Ask("values without end", 413, b"[" + b"0," * 400_000, JSON),
    Ask("keys twice", 200, GOOD_PICTURE[:-1] + b"," + GOOD_PICTURE[1:], JSON),
    Ask("other keys", 422, images(png(), url="http://127.0.0.1/"), JSON),
    Ask("images by address", 422, json.dumps({"images": ["file:///etc/passwd"], "prompts": ["x"]}).encode(), JSON),
    Ask("data URL", 422, GOOD_PICTURE.replace(b'["', b'["data:image/png;base64,', 1), JSON),
    # pictures
    Ask("no PNG", 422, images(b"GIF89a" + bytes(100)), JSON),
    Ask("an empty picture", 422, images(b""), JSON),
    Ask("cut", 422, images(png(Image.effect_noise((9, 9), 90))[:90]), JSON),
    Ask("no pixels", 422, images(SIGNATURE + header(0, 0) + png()[33:]), JSON),
    Ask("huge", 413, images(SIGNATURE + header(9_000, 9_000) + png()[33:]), JSON),
    Ask("beyond what Pillow opens", 413, images(SIGNATURE + header(60_000, 60_000) + png()[33:]), JSON),
    Ask("negative", (413, 422), images(SIGNATURE + header(2**32 - 1, 2**32 - 1) + png()[33:]), JSON),
    Ask("two headers", (413, 422), images(TWICE), JSON),
    Ask("many that are too many", 413, images(*[png(Image.new("RGB", (15, 15)))] * 5), JSON),
    Ask("compressed text", (200, 422), images(png(pnginfo=TEXT)), JSON),
    Ask("film", 422, images(png(save_all=True, append_images=[Image.new("RGB", (4, 4), "red")])), JSON),
    Ask("transparent", 422, images(png(Image.new("LA", (4, 4)))), JSON),
    Ask("16 bits", 422, images(png(Image.new("I;16", (4, 4)))), JSON),
    Ask("two sizes", 422, images(png(), png(Image.new("RGB", (4, 5)))), JSON),
    Ask("body too long", 413, bytes(LIMITS.bytes + 1), TENSOR),
]


def checked(answer: httpx.Response, expected: int | tuple[int, ...]) -> None:
    assert answer.status_code in (expected if isinstance(expected, tuple) else (expected,)), answer.text
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert answer.headers["Content-Type"] == "application/json"
        [(key, line)] = answer.json().items()
        assert key == "error"
        assert len(line.splitlines()) == 1
        assert len(line) < 600


@pytest.fixture(scope="module")
def answers() -> dict[str, httpx.Response]:
    """Of all requests, made one after another of one server in this process."""

    async def ask() -> dict[str, httpx.Response]:
        transport = httpx.ASGITransport(app_of(Colorfulness(), limits=LIMITS), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            told = {}
            for one in ASKS:
                told[one.name] = await client.request(one.method, one.path, content=one.content, headers=one.headers)
            assert (await client.get("/health")).json() == {"status": "ok", "requests": 0}
            return told

    return asyncio.run(ask())


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.name)
def test_every_request_is_answered_in_one_line(ask: Ask, answers: dict[str, httpx.Response]) -> None:
    checked(answers[ask.name], ask.expected)


def test_names_tell_the_requests_apart(answers: dict[str, httpx.Response]) -> None:
    assert len(answers) == len(ASKS)


def test_an_error_of_the_server_itself_is_one_line_of_json_too() -> None:
    class Broken(Wavy):
        """Cannot say what fits."""

        def unfit(self, shape: tuple[int, ...]) -> str | None:
            raise KeyError(shape)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(Broken()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/score", content=GOOD, headers=TENSOR)

    checked(asyncio.run(ask()), 500)


def test_what_does_not_fit_is_refused_before_it_is_decoded() -> None:
    asked: list[tuple[int, ...]] = []

    def unfit(shape: tuple[int, ...]) -> str | None:
        asked.append(shape)
        return "expected (3, 32, 32); resize it first"

    broken = SIGNATURE + header(20, 10) + chunk(b"IDAT", b"no pixels")
    for media, body in ((PICTURES, images(broken)), (TENSORS, tensors({"shape": [1, 3, 10, 20]}))):
        with pytest.raises(Refusal, match="resize it first") as raised:
            read(media, body, LIMITS, unfit)
        assert raised.value.status == 422
    assert asked == [(3, 10, 20)] * 2


def test_pictures_become_what_they_were() -> None:
    """Values and strides, on which the last bits of a reward may depend."""
    from rollflow.files.pictures import from_pictures

    made = [Image.effect_noise((7, 5), 90).convert("RGB"), Image.effect_noise((7, 5), 50).convert("RGB")]
    samples = read(PICTURES, images(*map(png, made)), LIMITS).samples
    expected = from_pictures(made)
    assert torch.equal(samples, expected)
    assert samples.stride() == expected.stride()


def test_memory_of_all_requests_together_is_bounded() -> None:
    desk = _Desk(Limits(memory=1e-3, requests=3))
    with desk.place() as first, desk.place() as second:
        first.hold(600)
        with pytest.raises(Refusal, match="hold 600 bytes; try again") as busy:
            second.hold(401)
        with pytest.raises(Refusal, match="more than 1000 bytes") as never:
            second.hold(1001)
        assert (busy.value.status, never.value.status) == (503, 413)
        second.hold(400)
        first.hold(-100)
        second.hold(100)
        assert desk.held == 1000
        with desk.place(), pytest.raises(Refusal, match="3 requests"), desk.place():
            pass
    assert (desk.held, desk.occupied) == (0, 0)


def test_no_compressed_bodies() -> None:
    for encoding in ("gzip", "deflate, gzip", "zstd"):
        with pytest.raises(Refusal, match="expected an uncompressed body"):
            check_media(TENSORS, encoding)


CHUNKED = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
RAW = [
    b"GET /health HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /he alth HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n",
    b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nabcdef",
    b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n",
    b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 9" + b"9" * 5000 + b"\r\n\r\n",
    b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"-1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n",
]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with hosted(Colorfulness(), limits=LIMITS) as host:
        yield host


def exchange(host: Host, *parts: bytes, least: int = 1) -> bytes:
    """What comes back until the server hangs up, or has said enough."""
    told = b""
    with closing(socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE)) as raw:
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                raw.sendall(part)
        with suppress(ConnectionResetError):
            while told.count(b"HTTP/1.1 ") < least and (some := raw.recv(65536)):
                told += some
    return told


@pytest.mark.parametrize("request_", RAW, ids=range(len(RAW)))
def test_no_http_is_an_error_of_the_server(request_: bytes, host: Host) -> None:
    told = exchange(host, request_)
    assert not told or told[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 4"), told
    assert b"Traceback" not in told


def test_chunks_without_end_are_refused_at_the_limit(host: Host) -> None:
    part = b"40000\r\n" + bytes(0x40000) + b"\r\n"
    assert exchange(host, CHUNKED, *[part] * 40).startswith(b"HTTP/1.1 413")


def test_requests_in_a_row_on_one_connection(host: Host) -> None:
    """Good ones after bad ones, without waiting for answers."""
    one = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {TENSORS}\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()
    bad = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {TENSORS}\r\nContent-Length: 3\r\n\r\nbad".encode()
    told = exchange(host, (bad + one + GOOD) * 20, least=40)
    assert (told.count(b"HTTP/1.1 422"), told.count(b"HTTP/1.1 200")) == (20, 20)


def test_connections_are_bounded_and_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_SELDOM, "seconds", 2 * PATIENCE)
    _SELDOM._last.clear()
    with hosted(Wavy(), limits=Limits(connections=4)) as host, caplog.at_level(logging.WARNING):
        ask = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        open_ = [socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE) for _ in range(4)]
        for raw in open_:
            raw.sendall(ask)
            assert raw.recv(1000).startswith(b"HTTP/1.1 200")
        for _ in range(10):
            told = exchange(host, ask, least=2)  # until it hangs up
            assert told.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in told.lower()
            assert b"more than 4 connections" in told
        idle = [socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE) for _ in range(8)]
        hung_up = 0
        for raw in idle[4:]:
            with suppress(ConnectionResetError):
                assert raw.recv(10) == b""
            hung_up += 1
        assert hung_up == 4
        for raw in (*open_, *idle):
            raw.close()
        wait_until(lambda: exchange(host, ask).startswith(b"HTTP/1.1 200"))
        for _ in range(5):
            exchange(host, b"nonsense\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records]
    assert sorted(lines) == sorted(set(lines))
    assert len(lines) == 3


@pytest.mark.subprocess
def test_four_bombs_at_once_leave_a_server_with_little_memory_alive() -> None:
    """Below 1.5 GB for all that it does, libraries included, however small the bodies."""
    command = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (6 * 10**9,) * 2); "
        "from rollflow.cli import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve-reward", "colorfulness", "--port", "0", "--max-pixels", str(2**20)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split(" at ")[1].split()[0]
        row = zlib.compress(bytes(3 * 5792 + 1) * 5792, 9)
        bomb = images(SIGNATURE + header(5792, 5792) + chunk(b"IDAT", row) + chunk(b"IEND", b""))
        fits = images(*[png(Image.new("RGB", (512, 512), "red"))] * 4)
        many = tensors(None, json.dumps([""] * 3_000_000))
        assert len(bomb) < 200_000
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client, ThreadPoolExecutor(4) as threads:

            def post(body: bytes) -> int:
                headers = JSON if body[:1] == b"{" else TENSOR
                return client.post(f"{url}/score", content=body, headers=headers).status_code

            assert list(threads.map(post, [bomb] * 4)) == [413] * 4
            assert list(threads.map(post, [many] * 4)) == [413] * 4
            assert list(threads.map(post, [fits, bomb] * 4)) == [200, 413] * 4
            assert client.get(f"{url}/health").json() == {"status": "ok", "requests": 0}
        peak = Path(f"/proc/{process.pid}/status")
        if peak.exists():
            assert int(peak.read_text().split("VmHWM:")[1].split()[0]) * 1024 < 1.5e9
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()


SHAPES: tuple[tuple[int, ...], ...] = (
    (2,),
    (2, 2),
    (1, 8, 8),
    (1, 1, 32, 32),
    (1, 4, 32, 32),
    (1, 3, 1, 1),
    (1, 3, 1, 300),
    (1, 3, 33, 32),
)
SHAPES += ((1, 2, 1, 32, 32), (1, 32, 32, 3), (1, 1, 1, 3, 8, 8), (2, 3, 32, 32), (1, 2, 3, 32, 32), (1, 3, 64, 64))


@pytest.mark.parametrize(
    "name", ["count", "judge", "caption", "colorfulness", "jpeg-compressibility", "sum(parts=colorfulness;count)"]
)
@pytest.mark.slow
def test_no_shape_or_type_of_samples_is_an_error_of_the_server(name: str) -> None:
    async def ask() -> dict[str, httpx.Response]:
        transport = httpx.ASGITransport(app_of(REWARDS.make(name)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            told = {}
            for shape in SHAPES:
                for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64):
                    body = of(torch.zeros(shape, dtype=dtype), *["two cats on grass background"] * shape[0])
                    told[f"{shape} {dtype}"] = await client.post("/score", content=body, headers=TENSOR)
            return told

    told = asyncio.run(ask())
    for case, answer in told.items():
        assert answer.status_code in (200, 422), (case, answer.text)
        checked(answer, answer.status_code)
    assert told["(1, 3, 64, 64) torch.float32"].status_code == 200
    assert told["(1, 4, 32, 32) torch.float32"].status_code == 422


def test_memory_that_is_short_is_no_fault_of_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any) -> SampleBatch:
        raise MemoryError

    monkeypatch.setattr("rollflow.rewards.remote.server.bodies.decode", decode)
    with pytest.raises(Refusal, match="ran out of memory") as raised:
        read(TENSORS, GOOD, LIMITS)
    assert raised.value.status == 503

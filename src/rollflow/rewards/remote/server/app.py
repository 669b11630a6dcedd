"""The HTTP side of a hosted reward."""

from __future__ import annotations

import asyncio
import hmac
import math
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager

import anyio
import torch
from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import rollflow
from rollflow.errors import RollflowError
from rollflow.rewards.base import RewardModel
from rollflow.rewards.remote.server.batcher import Batcher
from rollflow.rewards.remote.server.bodies import check_media, fingerprint, read
from rollflow.rewards.remote.server.limits import Limits, Refusal
from rollflow.rewards.remote.wire import KEY, TOKEN, Failure, Health, Info, Scores

_READERS = 2  # bodies that are decoded at once, each of which takes several times its memory meanwhile
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}


def app_of(reward: RewardModel, token: str | None = None, limits: Limits | None = None) -> FastAPI:
    """The application that hosts a reward: ``POST /score``, ``GET /info``, ``GET /health``.

    Whoever has the token may ask for scores and information; health is told to anyone. A request is refused before its
    body is read if it need not be.

    Args:
        reward: Loaded.
        token: None is open to all.
        limits: What it takes on.

    Raises:
        RollflowError: On a reward that compares samples with those that were scored before, or that lacks a
            description.
    """
    if reward.relative:
        raise RollflowError(
            f"reward '{reward.name}' compares a search's samples with each other, which a server of many searches "
            "cannot; serve its parts, and mix them where the search runs"
        )
    limits = limits or Limits()
    try:
        info_of(reward, limits)
    except (AttributeError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise RollflowError(f"reward '{reward.name}' does not say of itself what clients ask: {line:.300}") from error
    batcher = Batcher(reward, 3 * limits.pixels)
    desk = _Desk(limits)
    reading = asyncio.Semaphore(_READERS)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    async def submitted(request: Request, media: str, place: _Place) -> Future[list[float]]:
        body = await _body(request, limits, place)
        key = request.headers.get(KEY)
        async with reading:
            known_by = None if key is None else await run_sync(fingerprint, key, body)
            batch = await run_sync(read, media, body, limits, reward.unfit)
        place.hold(batch.samples.nbytes - len(body))
        return batcher.submit(batch, known_by)

    app = FastAPI(title=f"rollflow: {reward.name}", openapi_url=None, lifespan=lifespan)
    guarded = [Depends(_guard(token))]

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return JSONResponse(Failure(error=str(error)).model_dump(), error.status, _HEADERS.get(error.status))

    @app.exception_handler(HTTPException)
    async def misplaced(_: Request, error: HTTPException) -> JSONResponse:
        told = f"{error.detail}; expected POST /score, GET /info or GET /health"
        return JSONResponse(Failure(error=told).model_dump(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        told = f"the server failed: {type(error).__name__}; see its log"
        return JSONResponse(Failure(error=told).model_dump(), 500)

    @app.get("/health")
    async def health() -> Health:
        batcher.check()
        return Health(status="ok", requests=desk.taken)

    @app.get("/info", dependencies=guarded)
    async def info() -> Info:
        return info_of(reward, limits)

    @app.post("/score", dependencies=guarded)
    async def score(request: Request) -> Response:
        media = check_media(request.headers.get("Content-Type", ""), request.headers.get("Content-Encoding", ""))
        batcher.check()
        with desk.place() as place:
            answer = await submitted(request, media, place)
            scores = await asyncio.shield(asyncio.wrap_future(answer))
        content = Scores(reward=reward.identity, scores=scores).model_dump_json()
        return Response(content, media_type="application/json")

    return app


def info_of(reward: RewardModel, limits: Limits) -> Info:
    """What a server says of its reward."""
    return Info(
        name=reward.name,
        identity=reward.identity,
        description=reward.description,
        range=reward.card.range if reward.card else None,
        bounds=None if reward.bounds is None else _finite(*reward.bounds),
        zero_is_perfect=reward.zero_is_perfect,
        differentiable=reward.differentiable,
        structured=reward.structured,
        held_out=list(reward.held_out),
        batch_size=reward.batch_size,
        max_rows=limits.rows,
        max_bytes=limits.bytes,
        max_pixels=limits.pixels,
        versions={"rollflow": rollflow.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def _finite(low: float, high: float) -> tuple[float | None, float | None]:
    """Bounds as JSON has them, which knows no infinity."""
    return low if math.isfinite(low) else None, high if math.isfinite(high) else None


class _Desk:
    """Places for requests, and the memory that their bodies and samples hold together."""

    def __init__(self, limits: Limits) -> None:
        self.places = limits.requests
        self.room = math.ceil(limits.memory * 1e6)
        self.taken = self.held = 0

    @contextmanager
    def place(self) -> Iterator[_Place]:
        if self.taken >= self.places:
            raise Refusal(503, f"{self.taken} requests are waiting already; try again")
        place = _Place(self)
        self.taken += 1
        try:
            yield place
        finally:
            self.taken -= 1
            self.held -= place.held


class _Place:
    """That of one request."""

    def __init__(self, desk: _Desk) -> None:
        self.desk = desk
        self.held = 0

    def hold(self, size: int) -> None:
        """Account for so many bytes more, or less.

        Raises:
            Refusal: 413 if they are more than one server may hold, 503 if they are while others hold theirs.
        """
        room = self.desk.room
        if self.held + size > room:
            raise Refusal(413, f"a request of more than {room} bytes in memory; send less, or start with more")
        if size > 0 and self.desk.held + size > room:
            raise Refusal(503, f"requests that wait already hold {self.desk.held} bytes; try again")
        self.desk.held += size
        self.held += size


def _guard(token: str | None) -> Callable[[Request], Awaitable[None]]:
    expected = None if token is None else f"Bearer {token}".encode()

    async def guard(request: Request) -> None:
        given = request.headers.get("Authorization", "").encode()
        if expected is not None and not hmac.compare_digest(given, expected):
            raise Refusal(401, f"expected the server's token in 'Authorization: Bearer ...'; set {TOKEN}")

    return guard


async def _body(request: Request, limits: Limits, place: _Place) -> bytes:
    """The body, no more of which is held than is allowed."""
    if int(request.headers.get("Content-Length", 0)) > limits.bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        with anyio.fail_after(limits.seconds):
            async for part in request.stream():
                if len(body) + len(part) > limits.bytes:
                    raise _too_large(limits)
                place.hold(len(part))
                body += part
    except TimeoutError:
        raise Refusal(408, f"the body took more than {limits.seconds} s") from None
    except ClientDisconnect:
        raise Refusal(400, "the body was cut short") from None
    return bytes(body)


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"a body of more than {limits.bytes} bytes; send fewer samples, or start with more")

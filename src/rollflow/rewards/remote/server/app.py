"""The HTTP application of a hosted reward."""

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

_READERS = 2  # bodies decoded at once; decoding takes several times the memory of a body
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}


def app_of(reward: RewardModel, token: str | None = None, limits: Limits | None = None) -> FastAPI:
    """Create the application that hosts a reward: ``POST /score``, ``GET /info``, ``GET /health``.

    Scores and information require the token; the health check does not. Where possible, a request is refused before its
    body is read.

    Args:
        reward: A loaded reward.
        token: Token that clients must send; None admits everyone.
        limits: Limits of the server; None means the defaults.

    Raises:
        RollflowError: If the reward depends on earlier scores, or lacks an attribute such as its description.
    """
    if reward.relative:
        raise RollflowError(
            f"reward '{reward.name}' depends on the earlier scores of a search, so a server of many searches cannot "
            "host it; serve its parts, and mix them where the search runs"
        )
    limits = limits or Limits()
    try:
        info_of(reward, limits)
    except (AttributeError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise RollflowError(f"reward '{reward.name}' lacks an attribute that clients ask for: {line:.300}") from error
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
            request_id = None if key is None else await run_sync(fingerprint, key, body)
            batch = await run_sync(read, media, body, limits, reward.unfit)
        place.hold(batch.samples.nbytes - len(body))
        return batcher.submit(batch, request_id)

    app = FastAPI(title=f"rollflow: {reward.name}", openapi_url=None, lifespan=lifespan)
    guarded = [Depends(_guard(token))]

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return JSONResponse(Failure(error=str(error)).model_dump(), error.status, _HEADERS.get(error.status))

    @app.exception_handler(HTTPException)
    async def misplaced(_: Request, error: HTTPException) -> JSONResponse:
        message = f"{error.detail}; expected POST /score, GET /info or GET /health"
        return JSONResponse(Failure(error=message).model_dump(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        message = f"the server failed: {type(error).__name__}; see its log"
        return JSONResponse(Failure(error=message).model_dump(), 500)

    @app.get("/health")
    async def health() -> Health:
        batcher.check()
        return Health(status="ok", requests=desk.occupied)

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
    """Describe a reward and the server's limits to clients."""
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
    """Replace infinite bounds by None, since JSON has no infinity."""
    return low if math.isfinite(low) else None, high if math.isfinite(high) else None


class _Desk:
    """Places for requests in progress, and the memory of their bodies and samples.

    Args:
        limits: Limits of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self.places = limits.requests
        self.room = math.ceil(limits.memory * 1e6)
        self.occupied = self.held = 0

    @contextmanager
    def place(self) -> Iterator[_Place]:
        """Occupy a place for the time of a request; raises a 503 Refusal if all are occupied."""
        if self.occupied >= self.places:
            raise Refusal(503, f"{self.occupied} requests are already in progress; try again")
        place = _Place(self)
        self.occupied += 1
        try:
            yield place
        finally:
            self.occupied -= 1
            self.held -= place.held


class _Place:
    """The place of one request.

    Args:
        desk: Desk that the place belongs to.
    """

    def __init__(self, desk: _Desk) -> None:
        self.desk = desk
        self.held = 0

    def hold(self, size: int) -> None:
        """Account for ``size`` more bytes, or fewer if negative.

        Raises:
            Refusal: 413 if the request alone exceeds the server's memory limit, 503 if it does so together with others.
        """
        room = self.desk.room
        if self.held + size > room:
            raise Refusal(
                413,
                f"the request takes more than {room} bytes in memory; send fewer samples, or start the server with a "
                "higher limit",
            )
        if size > 0 and self.desk.held + size > room:
            raise Refusal(503, f"requests in progress already hold {self.desk.held} bytes; try again")
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
    """Receive the body, up to the limits of size, time and memory."""
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
        raise Refusal(408, f"the body was not complete within {limits.seconds} s") from None
    except ClientDisconnect:
        raise Refusal(400, "the connection was closed before the body was complete") from None
    return bytes(body)


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413,
        f"the body exceeds {limits.bytes} bytes; send fewer samples, or start the server with a higher limit",
    )

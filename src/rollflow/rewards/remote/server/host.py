"""Where a hosted reward listens, and to whom."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Collection
from typing import ClassVar

import uvicorn
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from rollflow.errors import RollflowError
from rollflow.rewards.base import RewardModel
from rollflow.rewards.remote.server.app import app_of
from rollflow.rewards.remote.server.limits import Limits
from rollflow.rewards.remote.wire import TOKEN, Failure

_LOG = logging.getLogger(__name__)


class OpenToAll(RollflowError, ValueError):
    """An address that others can reach, without a token to keep them out."""


def bound(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that holds the address but does not listen yet, so that loading is not in vain.

    Args:
        host: Name or address.
        port: 0 is any that is free.
        token: That the server will ask for.

    Raises:
        OpenToAll: If others than this machine can reach the address and there is no token.
        RollflowError: If the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if token is None and not ipaddress.ip_address(address[0]).is_loopback:
            raise OpenToAll(
                f"'{host}' can be reached by others, who could use the reward; set {TOKEN} to a secret first, such as "
                "'openssl rand -hex 32' gives, here and where searches run; or stay with --host 127.0.0.1"
            )
        # asyncio sends answers without delay only where the protocol is told
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # the latter on a host that cannot be a name
        why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise RollflowError(f"cannot serve at {host}:{port}: {why}; choose another --host or --port") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Its URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(reward: RewardModel, token: str | None, limits: Limits) -> uvicorn.Server:
    """The server; its ``run`` takes the sockets that it listens at."""
    door = _Door(app_of(reward, token, limits), limits.connections)
    server = uvicorn.Server(
        uvicorn.Config(
            door,
            http=type("_Bounded", (_Punctual,), {"most": 2 * limits.connections}),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=30,
        )
    )
    door.connections = server.server_state.connections
    logging.getLogger("uvicorn.error").addFilter(_SELDOM)
    return server


class _Door:
    """Answers 503 to requests of connections beyond the limit, before anything of them is read.

    Args:
        app: What answers the others.
        most: Connections.

    Attributes:
        connections: That are open.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most
        self.connections: Collection[object] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(self.connections) > self.most:
            _LOG.warning("refused a request: more than %d connections are open", self.most)
            told = Failure(error=f"more than {self.most} connections are open; try again").model_dump()
            await JSONResponse(told, 503, {"Retry-After": "1", "Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _Seldom(logging.Filter):
    """Lets a warning through once a minute, so that whoever sends nonsense does not fill the disk."""

    seconds: ClassVar[float] = 60

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        now, last = time.monotonic(), self._last.get(str(record.msg))
        if last is not None and now < last + self.seconds:
            return False
        if len(self._last) >= 100:
            self._last.clear()
        self._last[str(record.msg)] = now
        return True


_SELDOM = _Seldom()
_LOG.addFilter(_SELDOM)


class _Punctual(H11Protocol):
    """HTTP/1.1, hanging up on those who begin no request within ``seconds``, however often they send a letter of it.

    uvicorn ends idle connections only after a first request, and starts anew with every byte. Connections beyond
    ``most`` are closed at once, so that files that can be opened are left.
    """

    seconds: ClassVar[float] = 30
    most: ClassVar[int]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            _LOG.warning("hung up: more than %d connections are open", self.most)
            transport.abort()
            return
        self._expect_request()

    def on_response_complete(self) -> None:
        self._expect_request()
        super().on_response_complete()

    def _expect_request(self) -> None:
        self.loop.call_later(self.seconds, self._hang_up, self.cycle)

    def _hang_up(self, last: object) -> None:
        if self.cycle is last:
            self.transport.close()

"""The address and the HTTP server of a hosted reward."""

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
    """An address that other machines can reach, without a token to protect it."""


def bound(host: str, port: int, token: str | None) -> socket.socket:
    """Bind a socket to an address, without listening yet, so that a conflict shows before the reward is loaded.

    Args:
        host: Host name or address.
        port: Port; 0 chooses a free one.
        token: Token that the server will require.

    Raises:
        OpenToAll: If other machines can reach the address and there is no token.
        RollflowError: If the address is not available.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if token is None and not ipaddress.ip_address(address[0]).is_loopback:
            raise OpenToAll(
                f"other machines can reach '{host}' and use the reward; set {TOKEN} to a secret here and where "
                "searches run, such as the output of 'openssl rand -hex 32', or use --host 127.0.0.1"
            )
        # asyncio disables Nagle's algorithm only if the protocol is given
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # the latter for an invalid host name
        why = error.strerror if isinstance(error, OSError) else "the host name is invalid"
        raise RollflowError(f"cannot serve at {host}:{port}: {why}; choose another --host or --port") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(reward: RewardModel, token: str | None, limits: Limits) -> uvicorn.Server:
    """Create the server of a reward; its ``run`` takes the sockets to listen on."""
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
    """Answers 503 to requests on connections beyond the limit, before anything is read.

    Args:
        app: Application that answers all other requests.
        most: Largest number of connections.

    Attributes:
        connections: Open connections.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most
        self.connections: Collection[object] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(self.connections) > self.most:
            _LOG.warning("refused a request: more than %d connections are open", self.most)
            failure = Failure(error=f"more than {self.most} connections are open; try again").model_dump()
            await JSONResponse(failure, 503, {"Retry-After": "1", "Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _Seldom(logging.Filter):
    """Passes each warning at most once a minute, so that a flood of bad requests does not fill the disk."""

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
    """HTTP/1.1 that closes connections on which no request is complete within ``seconds``.

    uvicorn itself ends idle connections only after a first request, and restarts its timer with every byte. Connections
    beyond ``most`` are closed at once, so that the process does not run out of file descriptors.
    """

    seconds: ClassVar[float] = 30
    most: ClassVar[int]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            _LOG.warning("closed a connection: more than %d are open", self.most)
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

"""Where a hosted reward listens, and to whom."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import ClassVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rollflow.errors import RollflowError
from rollflow.rewards.base import RewardModel
from rollflow.serve.bodies import Limits
from rollflow.serve.server import app_of
from rollflow.serve.wire import TOKEN


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
    except OSError as error:
        raise RollflowError(
            f"cannot serve at {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Its URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(reward: RewardModel, token: str | None, limits: Limits) -> uvicorn.Server:
    """The server; its ``run`` takes the sockets that it listens at."""
    return uvicorn.Server(
        uvicorn.Config(
            app_of(reward, token, limits),
            http=_Punctual,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=30,
        )
    )


class _Punctual(H11Protocol):
    """HTTP/1.1, hanging up on those who begin no request within ``seconds``, however often they send a letter of it.

    uvicorn ends idle connections only after a first request, and starts anew with every byte.
    """

    seconds: ClassVar[float] = 30

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def on_response_complete(self) -> None:
        self._expect_request()
        super().on_response_complete()

    def _expect_request(self) -> None:
        self.loop.call_later(self.seconds, self._hang_up, self.cycle)

    def _hang_up(self, last: object) -> None:
        if self.cycle is last:
            self.transport.close()

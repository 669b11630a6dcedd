"""``rollflow serve-reward``."""

from __future__ import annotations

from typing import Annotated

import typer

from rollflow.cli.errors import refusing
from rollflow.errors import BadReward, blamed
from rollflow.extras import requiring
from rollflow.runtime import interruption


def serve_reward(
    name: Annotated[
        str, typer.Argument(help="Reward (see 'rollflow rewards'), e.g. 'name(setting=value)'.", metavar="NAME")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines can reach requires ROLLFLOW_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.", min=0, max=65535)] = 8000,
    max_megabytes: Annotated[float, typer.Option(help="Largest request, in megabytes.")] = 128,
    max_rows: Annotated[int, typer.Option(help="Largest number of samples in a request.")] = 256,
    max_pixels: Annotated[int, typer.Option(help="Largest number of pixels in all pictures of a request together.")] = 2
    ** 23,
    max_requests: Annotated[int, typer.Option(help="Largest number of requests in progress.")] = 32,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds to receive a request.")] = 120,
    max_characters: Annotated[int, typer.Option(help="Largest number of characters in a prompt.")] = 10_000,
    max_memory: Annotated[
        float, typer.Option(help="Largest size of all requests in progress in memory, in megabytes.")
    ] = 2_000,
    max_connections: Annotated[int, typer.Option(help="Largest number of open connections.")] = 256,
) -> None:
    """Host the reward NAME over HTTP, for searches in other processes and on other machines.

    Searches use it as --reward "remote(url=http://127.0.0.1:8000)". If the environment variable
    ROLLFLOW_TOKEN is set, clients must send the same token.
    """

    with refusing(2):
        with requiring("serve-reward", "server"):
            from rollflow.rewards.remote import wire
            from rollflow.rewards.remote.server import host as hosting
            from rollflow.rewards.remote.server.limits import Limits
        from rollflow.rewards import REWARDS

        limits = Limits(
            max_megabytes,
            max_rows,
            max_pixels,
            max_requests,
            max_seconds,
            max_characters,
            max_memory,
            max_connections,
        )
        token = wire.token()
        listener = hosting.bound(host, port, token)
    with listener:
        with refusing(2):
            reward = REWARDS.make(name)
            with blamed(f"reward '{name}' could not be loaded", BadReward):
                reward.load()
            server = hosting.server_of(reward, token, limits)
        with refusing(1):
            listener.listen()
            who = "clients with the token" if token else "this machine"
            try:
                with interruption.handing_over("SIGHUP", server.handle_exit):  # uvicorn handles the other signals
                    address = hosting.address_of(listener)
                    print(f"serving '{reward.name}' at {address} to {who}; press Ctrl-C to stop")
                    server.run(sockets=[listener])
            except KeyboardInterrupt:  # the usual way to stop a server
                interruption.wind_up()

"""Rewards for servers, and servers of them: in a thread, or in a process that can be killed."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from socket import socket
from threading import Event, Thread

import torch
from support.waiting import PATIENCE
from torch import Tensor

from rollflow.prompts import Prompt
from rollflow.rewards import RewardModel
from rollflow.rewards.remote.server.host import address_of, bound, server_of
from rollflow.rewards.remote.server.limits import Limits

HERE = Path(__file__).parent


class Wavy(RewardModel):
    """A function of every value of a sample and of its prompt, computed for each row by itself."""

    name = "wavy"
    description = "mean of sines, plus the length and the counts of the prompt"
    bounds = (-1.0, math.inf)
    batch_size = 4

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        of_prompts = [len(p) / 7 + sum(p.ask.values()) / 3 if isinstance(p, Prompt) else len(p) / 7 for p in prompts]
        waves = [(row.double().flatten() * 3 + 0.1).sin().mean() for row in samples]
        return torch.stack(waves) + torch.tensor(of_prompts, dtype=torch.float64)


class Spy(Wavy):
    """Records its calls, waits for ``gate``, and raises ``trouble`` for the prompt 'trouble'."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.entered, self.gate = Event(), Event()
        self.gate.set()
        self.trouble: BaseException | None = ValueError("a prompt\nlike no other")

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls.append(list(prompts))
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        if self.trouble is not None and "trouble" in prompts:
            raise self.trouble
        return super().score(samples, prompts)


class Mortal(Wavy):
    """Kills its process in its third call, unless the file ``marker`` exists, which it creates then."""

    def __init__(self, marker: str) -> None:
        self.marker, self.calls = Path(marker), 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        if self.calls == 3 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(samples, prompts)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be set forward.

    Attributes:
        skipped: Seconds that its clock is ahead.
    """

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped

    def skip(self, seconds: float) -> None:
        """Set the clock forward, from another thread."""
        done = Event()

        def work() -> None:
            self.skipped += seconds
            done.set()

        self.call_soon_threadsafe(work)
        assert done.wait(PATIENCE)


class Host:
    """A reward hosted in a thread.

    Attributes:
        url: URL of the server; its port stays the same when it is started again.
        loop: Event loop of the server, whose time limits are by the loop's clock.
    """

    def __init__(self, reward: RewardModel, token: str | None = None, limits: Limits | None = None) -> None:
        self.reward, self.token, self.limits, self.port = reward, token, limits or Limits(), 0
        self.start()

    def start(self) -> None:
        listener = bound("127.0.0.1", self.port, self.token)
        listener.listen()
        self.url, self.port = address_of(listener), listener.getsockname()[1]
        self.server = server_of(self.reward, self.token, self.limits)
        self.loop = SkippingLoop()
        self.thread = Thread(target=self._serve, args=(listener,))
        self.thread.start()

    def _serve(self, listener: socket) -> None:
        with closing(self.loop):
            self.loop.run_until_complete(self.server.serve([listener]))

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@contextmanager
def hosted(reward: RewardModel, token: str | None = None, limits: Limits | None = None) -> Iterator[Host]:
    """A host that is stopped at the end."""
    host = Host(reward, token, limits)
    try:
        yield host
    finally:
        host.stop()


def spawn(reward: str, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """Start ``rollflow serve-reward`` in another process; returns it and its port, once it is ready."""
    command = "import typer; from rollflow.cli.serve import serve_reward; typer.run(serve_reward)"
    process = subprocess.Popen(
        [sys.executable, "-c", command, reward, "--port", str(port)],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, int(line.split(":")[-1].split()[0])

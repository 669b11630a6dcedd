"""Rewards to be hosted, and servers of them on this machine: in a thread, or in a process that can be killed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import torch
from torch import Tensor

from rollflow.prompts import Prompt
from rollflow.rewards import RewardModel
from rollflow.rewards.remote.server.host import address_of, bound, server_of
from rollflow.rewards.remote.server.limits import Limits

HERE = Path(__file__).parent


class Wavy(RewardModel):
    """Something of every value, without a round number, and what the prompt asks for; rows never see each other."""

    name = "wavy"
    description = "mean of sines, plus the length and the counts of the prompt"
    bounds = (-1.0, math.inf)
    batch_size = 4

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        asked = [len(p) / 7 + sum(p.ask.values()) / 3 if isinstance(p, Prompt) else len(p) / 7 for p in prompts]
        waves = [(row.double().flatten() * 3 + 0.1).sin().mean() for row in samples]
        return torch.stack(waves) + torch.tensor(asked, dtype=torch.float64)


class Spy(Wavy):
    """Remembers its calls, waits for ``gate``, and raises ``trouble`` at the prompt 'trouble'."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.entered, self.gate = Event(), Event()
        self.gate.set()
        self.trouble: BaseException | None = ValueError("a prompt\nlike no other")

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls.append(list(prompts))
        self.entered.set()
        assert self.gate.wait(60)
        if self.trouble is not None and "trouble" in prompts:
            raise self.trouble
        return super().score(samples, prompts)


class Mortal(Wavy):
    """Kills its process during its third call, in its first life."""

    def __init__(self, marker: str) -> None:
        self.marker, self.calls = Path(marker), 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        if self.calls == 3 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(samples, prompts)


class Host:
    """A reward hosted in a thread.

    Attributes:
        url: Where; the port stays the same when it is started again.
    """

    def __init__(self, reward: RewardModel, token: str | None = None, limits: Limits | None = None) -> None:
        self.reward, self.token, self.limits, self.port = reward, token, limits or Limits(), 0
        self.start()

    def start(self) -> None:
        listener = bound("127.0.0.1", self.port, self.token)
        listener.listen()
        self.url, self.port = address_of(listener), listener.getsockname()[1]
        self.server = server_of(self.reward, self.token, self.limits)
        self.thread = Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()

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
    """``rollflow serve-reward`` in a process of its own, once it serves, and its port."""
    command = "import typer; from rollflow.cli.serve import serve_reward; typer.run(serve_reward)"
    process = subprocess.Popen(
        [sys.executable, "-c", command, reward, "--port", str(port)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    return process, int(said.split(":")[-1].split()[0])

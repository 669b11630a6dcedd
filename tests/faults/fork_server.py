"""The command line in processes that can be killed, without the seconds that imports take: one process forks them all.

As a program it imports everything once, puts the tiny model in place of the packaged ones, and for each line of JSON on
its standard input starts ``rollflow`` as a child, or says how one ended.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE = 120.0
"""Seconds that anything may take, however busy the machine."""


class Child:
    """A command that runs.

    Args:
        fork_server: Its parent.
        pid: Of the process.
        folder: Where it works, and where its output goes.
    """

    def __init__(self, fork_server: ForkServer, pid: int, folder: Path) -> None:
        self.fork_server, self.pid, self.folder = fork_server, pid, folder
        self.code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for the signal that killed it; None while it runs."""
        if self.code is None:
            self.code = self.fork_server.ask({"poll": self.pid})
        return self.code

    def wait(self) -> int:
        self.until(lambda: self.poll() is not None)
        assert self.code is not None
        return self.code

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something has happened."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"nothing happened; {self.stderr}"
            time.sleep(0.005)

    def kill(self, number: int) -> None:
        """Send a signal, if it still runs; it is not reaped before it was polled, so that its number is its own."""
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def stdout(self) -> str:
        return self._said("stdout.txt")

    @property
    def stderr(self) -> str:
        return self._said("stderr.txt")

    def _said(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


class ForkServer:
    """Where children come from."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask({"poll": None})  # answered once all is imported

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        seconds: float = 0.0,
        closed: Sequence[str] = (),
        brief: bool = False,
    ) -> Child:
        """Start ``rollflow``.

        Args:
            arguments: Of the command.
            folder: Where it works; ``stdout.txt`` and ``stderr.txt`` are what it says.
            seconds: That each call of the model takes.
            closed: Which of its streams, "stdout" and "stderr", are pipes that nobody reads.
            brief: Whether it ends without the interpreter's own shutdown, which takes a while.
        """
        folder.mkdir(parents=True, exist_ok=True)
        request = {
            "run": list(arguments),
            "folder": str(folder),
            "seconds": seconds,
            "closed": list(closed),
            "brief": brief,
        }
        return Child(self, self.ask(request), folder)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _serve() -> dict[str, Any] | None:
    """Answer requests; in a child, what is asked of it."""
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG) if request["poll"] else (0, 0)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _settle(request)
            return dict(request)
        print(json.dumps(pid), flush=True)
    return None


def _settle(request: dict[str, Any]) -> None:
    os.chdir(request["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if name in request["closed"]:
            read, write = os.pipe()
            os.close(read)
        else:
            write = os.open(f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(write, number)
        os.close(write)
    Slow.seconds = request["seconds"]


if __name__ == "__main__":
    import torch
    from support.tiny import Judge, Redness, TinyModel

    from rollflow.bench.run.runner import Runner
    from rollflow.cli import main
    from rollflow.models import MODELS
    from rollflow.output import plots
    from rollflow.rewards import REWARDS

    torch.set_num_threads(1)

    class Slow(TinyModel):
        """Takes its time."""

        seconds = 0.0

        def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Sequence[Any]) -> torch.Tensor:
            time.sleep(self.seconds)
            return super().velocity(x, t, conditions)

    MODELS[Slow.name] = Slow
    for kind in (Redness, Judge):
        REWARDS[kind.name] = kind
    Runner.__init__.__kwdefaults__["checkpoint_seconds"] = 0.0  # type: ignore[index]
    os.fsync = lambda fd: None  # what is killed is not the machine
    plots.trace = plots.filmstrip = lambda *_: None  # type: ignore[assignment]
    plots.figure_png = lambda _: b"a plot"  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a child that has not begun yet is simply killed
    with tempfile.TemporaryDirectory() as folder:  # what is imported when it is needed, is
        main(["generate", "a red square", "--nfe", "80", "-q", "--out", folder])
    gc.freeze()
    asked = _serve()
    if asked is not None:
        sys.argv = ["rollflow", *asked["run"]]
        code = main()
        if asked["brief"]:
            sys.stdout.flush()
            os._exit(code)
        sys.exit(code)

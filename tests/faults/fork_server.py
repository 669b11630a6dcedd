"""Processes that run ``rollflow`` and can be killed, forked from one that has imported everything already.

Run as a program, this module imports everything once, replaces the packaged models and rewards by tiny ones, and reads
requests from standard input, one line of JSON each: to start ``rollflow`` in a child, or to report a child's exit code.
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

from support.waiting import wait_until

HERE = Path(__file__).parent


class Child:
    """A running command.

    Args:
        fork_server: Server that started it.
        pid: Process id.
        folder: Working directory, to which ``stdout.txt`` and ``stderr.txt`` are written.
    """

    def __init__(self, fork_server: ForkServer, pid: int, folder: Path) -> None:
        self.fork_server, self.pid, self.folder = fork_server, pid, folder
        self.code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, which is negative if a signal killed the command; None while it runs."""
        if self.code is None:
            self.code = self.fork_server.ask({"poll": self.pid})
        return self.code

    def wait(self) -> int:
        """Wait for the command to end; returns the exit code."""
        self.until(lambda: self.poll() is not None)
        assert self.code is not None
        return self.code

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        wait_until(condition, f"process {self.pid} in '{self.folder}'")

    def kill(self, number: int) -> None:
        """Send a signal if the command still runs; its pid cannot be another process's before ``poll`` reaps it."""
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def stdout(self) -> str:
        """What the command has written to standard output so far."""
        return self._read("stdout.txt")

    @property
    def stderr(self) -> str:
        """What the command has written to standard error so far."""
        return self._read("stderr.txt")

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


class ForkServer:
    """A process that starts commands as its children."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask({"poll": None})  # answered once everything is imported

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request and return the answer."""
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
            arguments: Command-line arguments.
            folder: Working directory, to which ``stdout.txt`` and ``stderr.txt`` are written.
            seconds: Time that each call of the model takes.
            closed: Streams, "stdout" or "stderr", that are pipes without a reader.
            brief: Whether the process skips the shutdown of the interpreter, which takes a while.
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
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _serve() -> dict[str, Any] | None:
    """Answer requests until standard input ends; in a child, return the request to run."""
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG) if request["poll"] else (0, 0)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _prepare_child(request)
            return dict(request)
        print(json.dumps(pid), flush=True)
    return None


def _prepare_child(request: dict[str, Any]) -> None:
    """Set the working directory, the standard streams and the model's speed."""
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
    SlowModel.seconds = request["seconds"]


if __name__ == "__main__":
    import torch
    from support.tiny import Judge, Redness, TinyModel

    from rollflow.bench.run.runner import Runner
    from rollflow.cli import main
    from rollflow.models import MODELS
    from rollflow.output import plots
    from rollflow.rewards import REWARDS

    torch.set_num_threads(1)

    class SlowModel(TinyModel):
        """The tiny model, with calls that take a given time."""

        seconds = 0.0

        def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Sequence[Any]) -> torch.Tensor:
            time.sleep(self.seconds)
            return super().velocity(x, t, conditions)

    MODELS[SlowModel.name] = SlowModel
    for reward in (Redness, Judge):
        REWARDS[reward.name] = reward
    Runner.__init__.__kwdefaults__["checkpoint_seconds"] = 0.0  # type: ignore[index]
    os.fsync = lambda fd: None  # processes are killed, not the machine
    plots.trace = plots.filmstrip = lambda *_: None  # type: ignore[assignment]
    plots.figure_png = lambda _: b"a plot"  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # SIGINT kills a child that has not reached main() yet
    with tempfile.TemporaryDirectory() as folder:  # one run imports what is imported lazily
        main(["generate", "a red square", "--nfe", "80", "-q", "--out", folder])
    gc.freeze()
    child_request = _serve()
    if child_request is not None:
        sys.argv = ["rollflow", *child_request["run"]]
        code = main()
        if child_request["brief"]:
            sys.stdout.flush()
            os._exit(code)
        sys.exit(code)

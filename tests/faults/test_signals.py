"""Commands that are interrupted end at once, keep the best sample, and report it."""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fork_server import Child, ForkServer
from PIL import Image
from support.hosting import Host, Spy
from support.waiting import PATIENCE

from rollflow.bench.run.journal import JournalIndex

GENERATE = ["generate", "a red square", "--nfe", "400", "--out", "out"]
NUMBERS = {"SIGINT": (signal.SIGINT, "interrupted"), "SIGTERM": (signal.SIGTERM, "interrupted by SIGTERM")}
NUMBERS["SIGHUP"] = signal.SIGHUP, "interrupted by SIGHUP"


class SilentServer:
    """A server that accepts connections and never answers.

    Args:
        listener: Socket that it listens on.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def has_connection(self) -> bool:
        """Whether a client has connected."""
        return bool(select.select([self._listener], [], [], 0)[0])


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield SilentServer(listener)


@pytest.fixture
def host() -> Iterator[Host]:
    """A server of a ``Spy``, which does not answer while its gate is closed."""
    spy = Spy()
    host = Host(spy)
    yield host
    spy.gate.set()
    host.stop()


def fall_silent(host: Host, child: Child) -> None:
    """Stop answering, and wait until the command waits for an answer."""
    assert isinstance(host.reward, Spy)
    host.reward.gate.clear()
    host.reward.entered.clear()
    child.until(host.reward.entered.is_set)


def ended(child: Child) -> tuple[int, str]:
    """Wait for an interrupted command; returns its exit code and the last line on standard error."""
    begun = time.monotonic()
    code = child.wait()
    assert time.monotonic() - begun < PATIENCE / 2
    assert "Traceback" not in child.stderr
    assert "Exception ignored" not in child.stderr
    return code, child.stderr.splitlines()[-1] if child.stderr else ""


def answers(port: int) -> bool:
    """Whether a server on this port answers."""
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success
    return False


def kept(child: Child) -> dict[str, Any]:
    """Check the output folder of an interrupted command; returns its ``result.json``."""
    out = child.folder / "out"
    assert {"image.png", "result.json", "checkpoint.pt"} <= {path.name for path in out.iterdir()}
    content: dict[str, Any] = json.loads((out / "result.json").read_text())
    assert content["interrupted"]
    assert content["reward"] == max(reward for _, reward in content["trace"])
    return content


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_signal_keeps_the_best(name: str, times: int, fork_server: ForkServer, tmp_path: Path) -> None:
    """So do two or three in quick succession, as a terminal and a launcher send them, or an impatient user."""
    number, text = NUMBERS[name]
    child = fork_server.run([*GENERATE, "--json"], tmp_path, seconds=0.02, brief=True)
    child.until((tmp_path / "out/checkpoint.pt").exists)
    for i in range(times):
        child.kill(number)
        time.sleep(0.05 * 10**i / 10)
    assert ended(child) == (
        128 + number,
        f"error: {text}; the best sample so far is in 'out'; continue with --resume",
    )
    assert json.loads(child.stdout) == kept(child)


@pytest.mark.parametrize("reward", ["stuck", "swallowed"])
def test_a_reward_in_process_that_hangs_is_not_waited_for(reward: str, fork_server: ForkServer, tmp_path: Path) -> None:
    """Even if it swallows the exception that interrupts it, and continues."""
    swallow = ", swallow=true" if reward == "swallowed" else ""
    arguments = ["--reward", f"blocking_rewards:Stuck(calls=4{swallow})", "--held-out", "judge"]
    child = fork_server.run([*GENERATE, *arguments], tmp_path, brief=True)
    child.until((tmp_path / "stuck").exists)
    child.kill(signal.SIGTERM)
    code, said = ended(child)
    assert code == 143
    assert "interrupted by SIGTERM; the best sample so far" in said
    assert kept(child)["held_out"]["judge"] is not None


def test_a_held_out_reward_that_hangs_has_a_few_seconds(fork_server: ForkServer, tmp_path: Path) -> None:
    child = fork_server.run([*GENERATE, "--held-out", "blocking_rewards:Stuck"], tmp_path, seconds=0.02, brief=True)
    child.until((tmp_path / "out/checkpoint.pt").exists)
    child.kill(signal.SIGTERM)
    assert ended(child)[0] == 143
    content = kept(child)
    assert content["held_out"] == {"stuck": None}
    assert content["missing"] == {"stuck": "interrupted before it answered"}


def test_after_the_search_its_sample_is_there(fork_server: ForkServer, tmp_path: Path) -> None:
    """Ctrl-C comes while the path is being scored."""
    arguments = ["generate", "a red square", "--nfe", "90", "--out", "out", "--held-out-path"]
    held_out = ["--held-out", "blocking_rewards:Stuck(calls=1)"]
    child = fork_server.run([*arguments, *held_out], tmp_path, brief=True)
    child.until((tmp_path / "stuck").exists)
    child.kill(signal.SIGINT)
    code, said = ended(child)
    assert (code, said.partition(";")[0]) == (130, "error: interrupted after the search, whose sample is in 'out'")
    content = json.loads((tmp_path / "out/result.json").read_text())
    assert not content["interrupted"]
    assert content["held_out"]["stuck"] is not None
    assert (tmp_path / "out/image.png").exists()


@pytest.mark.parametrize("method", ["svdd", "bon"])
def test_a_server_that_does_not_answer_is_not_waited_for(
    method: str, host: Host, fork_server: ForkServer, tmp_path: Path
) -> None:
    """A search that has scored nothing yet leaves its checkpoint alone."""
    reward = f"remote(url={host.url}, timeout={2 * PATIENCE}, patience={2 * PATIENCE})"
    nfe = ["--nfe", "400"] if method == "svdd" else ["--nfe", "40"]
    arguments = [*GENERATE, "--method", method, "--reward", reward, "--held-out", "judge", *nfe]
    child = fork_server.run(arguments, tmp_path, seconds=0.02)
    child.until((tmp_path / "out/checkpoint.pt").exists)
    fall_silent(host, child)
    child.kill(signal.SIGINT)
    code, said = ended(child)
    assert code == 130
    if method == "svdd":
        assert "the best sample so far is in 'out'" in said
        assert kept(child)["held_out"]["judge"] is not None
    else:
        assert said == (
            "error: interrupted before there was a sample to keep; the checkpoint is in 'out'; continue with --resume"
        )
        assert not (tmp_path / "out/image.png").exists()


def test_a_server_that_went_away_is_not_waited_for(host: Host, fork_server: ForkServer, tmp_path: Path) -> None:
    """The run is interrupted while it sleeps between two attempts."""
    reward = f"remote(url={host.url}, timeout={2 * PATIENCE}, patience={2 * PATIENCE})"
    child = fork_server.run([*GENERATE, "--reward", reward, "--held-out", "judge"], tmp_path, seconds=0.02)
    child.until((tmp_path / "out/checkpoint.pt").exists)
    host.stop()
    child.until(lambda: "waiting up to" in child.stderr)
    child.kill(signal.SIGTERM)
    assert ended(child)[0] == 143
    kept(child)


@pytest.mark.parametrize(
    "reward",
    [
        f"remote(url={{}}, timeout={2 * PATIENCE})",
        f"vlm-judge(url={{}}/v1, model=m, timeout={2 * PATIENCE}, cache=none)",
    ],
    ids=["remote", "vlm-judge"],
)
def test_a_first_request_that_is_not_answered(
    reward: str, silent: SilentServer, fork_server: ForkServer, tmp_path: Path
) -> None:
    """In any thread, including one that the interpreter would wait for when it exits."""
    command = [*GENERATE, "--method", "svdd", "--reward", reward.format(silent.url), "--held-out", "judge"]
    child = fork_server.run(command, tmp_path, seconds=0.02)
    child.until(lambda: (tmp_path / "out").exists() and silent.has_connection())
    child.kill(signal.SIGINT)
    code, said = ended(child)
    assert code == 130
    assert said.startswith("error: interrupted before there was a sample to keep")


@pytest.mark.parametrize(
    "command",
    [
        ["score", "remote(url={})", "a.png", "--prompt", "a"],
        ["serve-reward", "remote(url={})", "--port", "0"],
        ["bench", "run", "--preset", "init", "--quick", "--reward", "remote(url={})", "--out", "x"],
        ["bench", "mixture", "--seeds", "2000", "--out", "x"],
        ["bench", "profile", "--prompts", "10000", "--parents", "10", "--reward", "caption", "--out", "x"],
        ["bench", "diversity", "--prompts", "10000", "--trajectories", "100", "--distance", "scenes", "--out", "x"],
    ],
    ids=lambda command: "-".join(command[:2]).partition("(")[0],
)
def test_other_commands(command: Sequence[str], silent: SilentServer, fork_server: ForkServer, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    child = fork_server.run([part.format(silent.url) for part in command], tmp_path, brief=True)
    if any("{}" in part for part in command):
        child.until(silent.has_connection)
    else:
        time.sleep(1.0)
    child.kill(signal.SIGTERM)
    code, said = ended(child)
    if code != -signal.SIGTERM:  # on a busy machine it had not begun yet
        assert code == 143
        assert said.startswith("error: interrupted by SIGTERM")
        assert "sample" not in said


@pytest.mark.parametrize("name", NUMBERS)
def test_a_server_shuts_down_without_an_error(name: str, fork_server: ForkServer, tmp_path: Path) -> None:
    child = fork_server.run(["serve-reward", "judge", "--port", "0"], tmp_path, brief=True)
    child.until(lambda: "serving 'judge'" in child.stdout)
    port = int(child.stdout.split("http://127.0.0.1:")[1].split()[0])
    child.until(lambda: answers(port))  # from then on signals are the server's
    child.kill(NUMBERS[name][0])
    assert ended(child) == (0, "")


@pytest.mark.slow
def test_an_experiment_gives_its_jobs_back(host: Host, fork_server: ForkServer, tmp_path: Path) -> None:
    """While its reward does not answer, and however often it is interrupted."""
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a red square"}\n')
    reward = f"remote(url={host.url}, timeout={2 * PATIENCE}, patience={2 * PATIENCE})"
    command = ["bench", "run", "--preset", "init", "--suite", "mine.jsonl", "--nfe", "100", "--seeds", "1"]
    command += ["--out", "x", "--reward", reward, "--held-out", "judge"]
    child = fork_server.run(command, tmp_path, seconds=0.01)
    checkpoints = tmp_path / "x/checkpoints"
    child.until(lambda: checkpoints.exists() and any(checkpoints.glob("*.pt")))
    fall_silent(host, child)
    for _ in range(3):
        child.kill(signal.SIGTERM)
        time.sleep(0.02)
    code, said = ended(child)
    done = len(JournalIndex(tmp_path / "x").done)
    assert (code, said) == (
        143,
        f"error: interrupted by SIGTERM; {done} of 7 jobs are done, and the same command resumes the run",
    )
    assert list((tmp_path / "x/claims").iterdir()) == []
    assert any(checkpoints.glob("*.pt"))
    assert isinstance(host.reward, Spy)
    host.reward.gate.set()
    again = fork_server.run(command, tmp_path, brief=True)
    assert again.wait() == 0, again.stderr
    assert any(entry.get("resumed") for entry in JournalIndex(tmp_path / "x").done.values())


@pytest.mark.parametrize("closed", [["stdout"], ["stderr"], ["stdout", "stderr"]], ids="-".join)
def test_a_result_is_there_if_its_output_is_closed(closed: list[str], fork_server: ForkServer, tmp_path: Path) -> None:
    """All that remained was to print it, so there is no error message."""
    child = fork_server.run(["generate", "a red square", "--nfe", "90", "--out", "out"], tmp_path, closed=closed)
    code = child.wait()
    assert json.loads((tmp_path / "out/result.json").read_text())["finished"]
    assert not (tmp_path / "out/checkpoint.pt").exists()
    if "stdout" in closed:
        assert code == 141
        assert "stderr" in closed or child.stderr == ""
    else:
        assert code == 0, "nothing was written to standard error"


@pytest.mark.parametrize(("how", "closed"), [("prints", "stdout"), ("warns", "stderr"), ("threads", "stderr")])
def test_a_run_that_nobody_reads_ends_with_its_best(
    how: str, closed: str, fork_server: ForkServer, tmp_path: Path
) -> None:
    command = [*GENERATE, "--method", "svdd", "--reward", f"blocking_rewards:Chatty(how={how})", "--held-out", "judge"]
    child = fork_server.run(command, tmp_path, closed=[closed], brief=True)
    code, said = ended(child)
    assert code == 141
    content = kept(child)
    assert content["held_out"]["judge"] is not None
    assert content["nfe_used"] < 400
    if closed == "stdout":
        assert said == (
            "error: interrupted, because its output was closed; the best sample so far is in 'out'; continue with "
            "--resume"
        )
    else:
        assert "the best so far" in child.stdout
    assert fork_server.run([*command, "--resume", "-q"], tmp_path, brief=True).wait() == 0
    assert json.loads((tmp_path / "out/result.json").read_text())["finished"]


def test_an_experiment_that_nobody_reads_goes_on_later(fork_server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a red square"}\n')
    command = ["bench", "run", "--preset", "init", "--suite", "mine.jsonl", "--nfe", "100", "--seeds", "1"]
    command += ["--out", "x", "--reward", "caption", "--held-out", "judge"]
    child = fork_server.run(command, tmp_path, closed=["stderr"], brief=True)
    assert child.wait() == 141
    assert 1 <= len(JournalIndex(tmp_path / "x").done) < 7
    assert list((tmp_path / "x/claims").iterdir()) == []
    again = fork_server.run(command, tmp_path, brief=True)
    assert again.wait() == 0, again.stderr
    assert len(JournalIndex(tmp_path / "x").done) == 7


def test_an_error_that_nobody_reads_is_an_error(fork_server: ForkServer, tmp_path: Path) -> None:
    assert fork_server.run(["generate", "a", "--nfe", "1"], tmp_path, closed=["stdout", "stderr"]).wait() == 2

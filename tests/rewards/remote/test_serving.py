"""The command, the addresses that it takes, and what its modules may not import."""

from __future__ import annotations

import ast
import socket
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
import typer
from support.hosting import Host, Wavy
from torch import Tensor
from typer.testing import CliRunner

import rollflow
from rollflow.cli.serve import serve_reward
from rollflow.errors import RollflowError
from rollflow.rewards import RewardModel
from rollflow.rewards.remote.server.host import OpenToAll, address_of, bound

ROOT = Path(rollflow.__file__).parent
COMMAND = typer.Typer()
COMMAND.command()(serve_reward)


def refusal(*arguments: str) -> str:
    """The one line with which the command ends, with code 2."""
    result = CliRunner().invoke(COMMAND, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_bad_input_is_one_line() -> None:
    assert "did you mean 'count'?" in refusal("coutn", "--port", "0")
    assert "unknown setting" in refusal("support.hosting:Mortal(maker=x)", "--port", "0")
    assert "limit of rows" in refusal("count", "--port", "0", "--max-rows", "0")
    assert "cannot serve at no.such.host.invalid:0" in refusal("count", "--host", "no.such.host.invalid", "--port", "0")
    for host in ("a..b", "a" * 300):
        assert "the host name is invalid" in refusal("count", "--host", host)


class Unloadable(Wavy):
    """Raises when it is loaded."""

    def load(self) -> None:
        raise KeyError("weights")


class Nameless(RewardModel):
    """Says nothing of itself."""

    name = "nameless"

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples.flatten(1).sum(1)


def test_rewards_that_cannot_be_hosted_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "raises_at_import.py").write_text("raise RuntimeError('boom')")
    (tmp_path / "exits_at_import.py").write_text("raise SystemExit(0)")
    for name, told in [
        ("test_serving:Unloadable", "reward 'test_serving:Unloadable' could not be loaded: KeyError: 'weights'"),
        ("test_serving:Nameless", "no attribute 'description'"),
        ("raises_at_import:X", "boom"),
        ("exits_at_import:X", "exit(0)"),
        ("no_such_module:X", "no_such_module"),
        ("rank-average(parts=count;judge)", "mix them where the search runs"),
    ]:
        assert told in refusal(name, "--port", "0")


def test_a_taken_port_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollflow.rewards.REWARDS", {})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: Address already in use; choose another" in refusal("count", "--port", str(port))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_are_let_in_only_with_a_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROLLFLOW_TOKEN", raising=False)
    with pytest.raises(OpenToAll, match="set ROLLFLOW_TOKEN"):
        bound(host, 0, None)
    assert "set ROLLFLOW_TOKEN" in refusal("count", "--host", host, "--port", "0")


def test_addresses() -> None:
    for host, token in (("127.0.0.1", None), ("localhost", None), ("127.1.2.3", None), ("0.0.0.0", "secret")):
        with bound(host, 0, token) as listener:
            port = listener.getsockname()[1]
            assert address_of(listener).endswith(f":{port}")
            with pytest.raises(ConnectionRefusedError):  # bound, but not listening
                socket.create_connection(("127.0.0.1", port))
    with pytest.raises(RollflowError, match="cannot serve at 192"):
        bound("192.0.2.1", 0, "secret")


def test_a_server_can_come_back_at_once_where_it_was() -> None:
    host = Host(Wavy())
    with httpx.Client(trust_env=False) as client:  # whose connection outlives the server
        for _ in range(2):
            assert client.get(f"{host.url}/health").is_success
            host.stop()
            host.start()
        assert client.get(f"{host.url}/health").is_success
    host.stop()


def imports(path: Path, *, at_once: bool) -> set[str]:
    """Packages that a module imports; ``at_once``: without being called, or checked for types."""
    tree = ast.parse(path.read_text())
    later = (ast.FunctionDef, ast.AsyncFunctionDef, ast.If)
    skipped = (
        {id(n) for node in ast.walk(tree) if isinstance(node, later) for n in ast.walk(node)} if at_once else set()
    )
    found = set()
    for node in ast.walk(tree):
        if id(node) not in skipped and isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif id(node) not in skipped and isinstance(node, ast.ImportFrom):
            module = str(node.module)
            own = {module, *(f"{module}.{alias.name}" for alias in node.names)}
            found |= own if module.startswith("rollflow") else {module.split(".")[0]}
    return found


REMOTE = ROOT / "rewards" / "remote"
LATE = ("rollflow.rewards.remote.server.host", "rollflow.rewards.remote.wire")
CLIENT = [REMOTE / "client.py", REMOTE / "connection.py", ROOT / "cli" / "serve.py"]


@pytest.mark.parametrize(
    "path", [*sorted((REMOTE / "server").glob("*.py")), REMOTE / "wire.py", *CLIENT], ids=lambda path: path.name
)
def test_nothing_that_runs_what_it_reads(path: Path) -> None:
    assert not imports(path, at_once=False) & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert not called & {"eval", "exec", "torch.load", "np.load", "numpy.load"}


@pytest.mark.parametrize("path", CLIENT, ids=lambda path: path.name)
def test_nothing_is_imported_before_it_is_needed(path: Path) -> None:
    assert imports(path, at_once=False) & {"httpx", *LATE}
    early = imports(path, at_once=True)
    assert not early & {"httpx", "pydantic", "fastapi", "uvicorn"}
    assert not any(name.startswith(LATE) for name in early)

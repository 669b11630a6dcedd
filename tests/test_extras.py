"""A package that is not installed: one line everywhere, which ends with the command that installs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rollflow.errors import EXTRAS, MissingPackage, install_command
from rollflow.extras import check_installed, requiring

ROOT = Path(__file__).parents[1]
_MODULES = {"protobuf": "google.protobuf", "pyyaml": "yaml"}
"""Modules of distributions, where they are called otherwise."""


def test_the_table_is_that_of_the_package() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        names = [line.partition(">")[0].partition("[")[0] for line in declared[extra]]
        assert {_MODULES.get(name, name) for name in names} == set(modules)


def test_the_command_names_the_first_extra_that_has_all() -> None:
    assert install_command(["transformers"]) == 'pip install "rollflow[rewards]"'
    assert install_command(["transformers"], "diffusers") == 'pip install "rollflow[diffusers]"'
    assert install_command(["httpx", "pydantic"]) == 'pip install "rollflow[server]"'
    assert install_command(["jinja2"]) == 'pip install "rollflow[bench]"'
    assert install_command(["lpips"]) == "pip install lpips"


def test_a_failed_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingPackage) as caught, requiring("a test", "bench"):
        import scipy.stats  # noqa: F401
    said = 'a test needs the package scipy, which is not installed; install it with: pip install "rollflow[bench]"'
    assert str(caught.value) == said
    with pytest.raises(MissingPackage) as caught:
        check_installed("a test", "numpy", "scipy")
    assert str(caught.value) == said


def test_an_import_error_without_a_name_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with (
        pytest.raises(MissingPackage, match=r'needs the package accelerate, .*"rollflow\[diffusers\]"$'),
        requiring("a test", "diffusers"),
    ):
        raise ImportError("FluxPipeline requires something\nthat was not found")
    monkeypatch.undo()
    with (
        pytest.raises(MissingPackage, match=r'cannot import .*: x y; .*install --upgrade "rollflow\[bench\]"$'),
        requiring("a test", "bench"),
    ):
        raise ImportError("x\ny")


_COMMANDS = {
    "diffusers": [
        ["generate", "a cat", "--model", "owner/name", "--reward", "colorfulness"],
        ["generate", "a cat", "--model", "owner/name", "--reward", "colorfulness", "--dry-run"],
        ["generate", "a cat", "--model", "pipeline", "--reward", "colorfulness"],
        ["bench", "run", "--preset", "searches", "--model", "owner/name", "--out", "o"],
        ["bench", "run", "--preset", "searches", "--model", "owner/name", "--out", "o", "--dry-run"],
        ["bench", "profile", "--model", "owner/name", "--reward", "colorfulness", "--out", "o"],
        ["bench", "diversity", "--model", "owner/name", "--distance", "scenes", "--out", "o"],
    ],
    "rewards": [
        ["generate", "a cat", "--reward", "clipscore", "--dry-run"],
        ["generate", "a cat", "--reward", "vqascore"],
        ["generate", "a cat", "--reward", "vlm-judge(url=http://127.0.0.1:9/v1, model=m)", "--dry-run"],
        ["generate", "a cat", "--reward", "colorfulness", "--held-out", "pickscore"],
        ["bench", "run", "--preset", "searches", "--reward", "counting", "--out", "o", "--dry-run"],
        ["score", "clipscore", "a.png", "--prompt", "a cat"],
    ],
    "server": [
        ["serve-reward", "colorfulness"],
        ["generate", "a cat", "--reward", "remote(url=http://127.0.0.1:9)"],
        ["generate", "a cat", "--reward", "remote(url=http://127.0.0.1:9)", "--dry-run"],
        ["score", "remote(url=http://127.0.0.1:9)", "a.png", "--prompt", "a cat"],
    ],
}
_SCRIPT = """
import contextlib, io, json, sys, traceback
from pathlib import Path
import torch
from PIL import Image
absent, commands = json.loads(sys.stdin.read())

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in absent or name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [name for name in sys.modules if name.partition(".")[0] in absent]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())
Image.new("RGB", (8, 8)).save("a.png")
Path("pipeline").mkdir()
Path("pipeline/model_index.json").write_text('{"_class_name": "FluxPipeline"}')
from rollflow.cli import main
results = []
for command in commands:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = main(command)
        except BaseException:
            code = traceback.format_exc()
    results.append([code, out.getvalue()])
import rollflow
try:
    rollflow.generate("a cat", model="owner/name", reward="colorfulness")
except rollflow.RollflowError as error:
    results.append([2, str(error)])
print(json.dumps(results))
"""


@pytest.mark.subprocess
@pytest.mark.slow
def test_every_command_says_it_in_one_line(tmp_path: Path) -> None:
    absent = {module for modules in EXTRAS.values() for module in modules} | {"huggingface_hub", "lpips"}
    absent -= {"pydantic"}  # newer versions of typer need it themselves
    cases = [(extra, command) for extra, commands in _COMMANDS.items() for command in commands]
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps([sorted(absent), [command for _, command in cases]]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout.splitlines()[-1])
    for (extra, command), (code, said) in zip([*cases, ("diffusers", ["generate()"])], results, strict=True):
        assert code in (1, 2), (command, code, said)
        assert said.count("\n") <= 1, (command, said)
        assert said.rstrip().endswith(f'pip install "rollflow[{extra}]"'), (command, said)
        assert "not installed" in said, (command, said)

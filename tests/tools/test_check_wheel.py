"""What the check of the wheel runs, and what it refuses. Building and installing is left to CI."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools/check_wheel.py"
RESULT: dict[str, Any] = {"nfe_used": 200, "nfe_budget": 200, "reward": 0.9, "baseline": {"reward": 0.2}}


@pytest.fixture(scope="module")
def check_wheel() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wheel", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in ("image.png", "baseline.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    return tmp_path


def test_it_runs_the_demo_of_the_readme(check_wheel: ModuleType) -> None:
    command = check_wheel.demo_command()
    assert command[0] == "generate"
    assert command[1] == "three cats to the left of two cars on grass background"
    assert command[-1] == "--compare"


def test_a_demo_as_it_should_be_passes(check_wheel: ModuleType, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_wheel.check(out)
    assert capsys.readouterr().out == "ok: 200 NFE, reward 0.9000, plain 0.2000\n"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nfe_used": 201}, "used 201 of 200 NFE"),
        ({"nfe_used": 0}, "used 0 of 200 NFE"),
        ({"reward": 0.1}, "less than the plain sample's 0.2"),
    ],
)
def test_a_wrong_account_is_refused(check_wheel: ModuleType, out: Path, change: dict[str, Any], says: str) -> None:
    (out / "result.json").write_text(json.dumps(RESULT | change))
    with pytest.raises(SystemExit, match=says):
        check_wheel.check(out)


def test_a_picture_of_another_size_is_refused(check_wheel: ModuleType, out: Path) -> None:
    Image.new("RGB", (32, 64)).save(out / "image.png")
    with pytest.raises(SystemExit, match=r"image\.png is no PNG file of 64 x 64 pixels"):
        check_wheel.check(out)


def test_a_command_that_fails_ends_the_check(check_wheel: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="it failed with exit code 1"):
        check_wheel.run(["false"], tmp_path)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what the package holds is what git has")
def test_a_wheel_holds_every_file_of_the_package(check_wheel: ModuleType, tmp_path: Path) -> None:
    """Profiles and weights too, which are no Python."""
    package = ROOT / "src/rollflow"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {".npz", ".safetensors", ".jsonl", ".md"} <= {path.suffix for path in files}
    whole, lacking = tmp_path / "whole.whl", tmp_path / "lacking.whl"
    for wheel in (whole, lacking):
        with zipfile.ZipFile(wheel, "w") as archive:
            for path in files:
                if wheel is whole or path.suffix != ".npz":
                    archive.writestr(f"rollflow/{path.relative_to(package).as_posix()}", b"")
    check_wheel.check_content(whole)
    with pytest.raises(SystemExit, match=r"the wheel lacks rollflow/search/profiles/\S+\.npz"):
        check_wheel.check_content(lacking)

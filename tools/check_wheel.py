"""Build the wheel, install it in an empty environment, and run the README's demo there, outside the checkout."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def demo_command() -> list[str]:
    """The arguments of ``rollflow`` in the README's demo, ``generate "..." --method rbf ...``."""
    readme = (ROOT / "README.md").read_text().replace("\\\n", " ")
    command = re.search(r"^ *rollflow (generate .*--compare.*)$", readme, re.MULTILINE)
    if command is None:
        sys.exit("the README has no line 'rollflow generate ... --compare'")
    return shlex.split(command[1])


def build(folder: Path) -> Path:
    """Build the wheel into a folder and return its path."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], folder)
    [wheel] = folder.glob("rollflow-*.whl")
    return wheel


def check_content(wheel: Path) -> None:
    """End the program unless the wheel holds every file of the package that git has."""
    listed = subprocess.run(["git", "ls-files", "-z", "src/rollflow"], cwd=ROOT, capture_output=True, check=True).stdout
    wanted = {name.removeprefix("src/") for name in listed.decode().split("\0") if name}
    missing = sorted(wanted - set(zipfile.ZipFile(wheel).namelist()))
    if missing:
        sys.exit(f"the wheel lacks {', '.join(missing)}")


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel and its dependencies, in the tested versions, into a new environment; return its ``bin``."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    constraints = str(ROOT / "constraints.txt")
    run([str(scripts / "python"), "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel)], folder)
    return scripts


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder; end the program if it fails."""
    print("$", shlex.join(command), flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # not the checkout
    status = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    if status:
        sys.exit(f"it failed with exit code {status}")


def check(out: Path) -> None:
    """End the program unless the demo wrote two pictures of the right size and an account within its budget."""
    for name in ("image.png", "baseline.png"):
        header = (out / name).read_bytes()[:24]
        size = tuple(int.from_bytes(header[at : at + 4], "big") for at in (16, 20))
        if header[:8] != b"\x89PNG\r\n\x1a\n" or size != (64, 64):
            sys.exit(f"{name} is no PNG file of 64 x 64 pixels")
    result = json.loads((out / "result.json").read_text())
    if not 0 < result["nfe_used"] <= result["nfe_budget"]:
        sys.exit(f"the demo used {result['nfe_used']} of {result['nfe_budget']} NFE")
    if result["reward"] < result["baseline"]["reward"]:
        sys.exit(f"the search found {result['reward']}, less than the plain sample's {result['baseline']['reward']}")
    print(f"ok: {result['nfe_used']} NFE, reward {result['reward']:.4f}, plain {result['baseline']['reward']:.4f}")


def main() -> None:
    """Do all of this in a temporary folder."""
    parser = argparse.ArgumentParser(description="Build, install and try the wheel.")
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rollflow-wheel-") as temporary:
        folder = Path(temporary)
        wheel = build(folder)
        check_content(wheel)
        scripts = install(wheel, folder / "venv")
        work = folder / "elsewhere"
        work.mkdir()
        run([str(scripts / "rollflow"), *demo_command()], work)
        check(work / "rollflow-out")


if __name__ == "__main__":
    main()

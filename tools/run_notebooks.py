"""Run the notebooks of ``examples/notebooks``, and fail if a cell raises an exception.

python tools/run_notebooks.py            # run them and discard their outputs
python tools/run_notebooks.py --write    # store the outputs in the files, without times and counters
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "examples/notebooks"
MOST_BYTES = 300_000
"""Largest size of a file, in which pictures must therefore be small."""


def run(path: Path, *, write: bool) -> None:
    """Run one notebook in a fresh kernel.

    Args:
        path: File of the notebook.
        write: Whether to store its outputs in the file.

    Raises:
        CellExecutionError: If a cell raises an exception.
        SystemExit: If the file is larger than it may be.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=900, kernel_name="python3", record_timing=False).execute()
    if write:
        for cell in notebook.cells:
            cell.metadata.clear()
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    if path.stat().st_size > MOST_BYTES:
        sys.exit(f"{path.name} has {path.stat().st_size} bytes; expected at most {MOST_BYTES}: draw smaller figures")


def main() -> None:
    """Run every notebook, and print how long each took."""
    parser = argparse.ArgumentParser(description="Run the notebooks of examples/notebooks.")
    parser.add_argument("--write", action="store_true", help="store the outputs in the files")
    arguments = parser.parse_args()
    for path in sorted(FOLDER.glob("*.ipynb")):
        start = time.monotonic()
        run(path, write=arguments.write)
        print(f"{path.name}: ran in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

"""Print the size of the repository, and fail if it is too large: python tools/weight.py [--sdist FILE]

The tree is what git tracks. Neither the tree nor the source distribution may hold an uncompressed journal: finished
experiments are packed by ``rollflow bench pack`` into results, which the source distribution leaves out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePath

ROOT = Path(__file__).parents[1]
MOST_TREE, MOST_SDIST = 60_000_000, 45_000_000
"""Largest sizes, in bytes."""


def tracked() -> list[Path]:
    """List the files that git tracks and that exist."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def faults(what: str, size: int, most: int, names: Iterable[str]) -> list[str]:
    """List the faults of a tree or an archive with a total size and these file names."""
    journals = [name for name in names if PurePath(name).match("journal-*.jsonl")]
    heavy = [f"{what} has {size:,} bytes, at most {most:,} are allowed"] if size > most else []
    return heavy + [f"{what} holds the uncompressed journal {name}; pack it" for name in journals]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdist", type=Path, help="source distribution, as of python -m build --sdist")
    given = parser.parse_args(argv)
    files = tracked()
    size = sum(path.stat().st_size for path in files)
    print(f"tree: {size / 1e6:.1f} MB")
    wrong = faults("the tree", size, MOST_TREE, map(str, files))
    if given.sdist:
        size = given.sdist.stat().st_size
        print(f"sdist: {size / 1e6:.1f} MB")
        with tarfile.open(given.sdist) as archive:
            names = archive.getnames()
        wrong += faults("the sdist", size, MOST_SDIST, names)
        wrong += [f"the sdist holds {name}" for name in names if "/results/" in name and name.endswith(".jsonl.gz")]
    for fault in wrong:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

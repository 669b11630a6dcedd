"""Write the tables of docs/results from the experiments in results: python tools/tables.py [--check]

Each ``results/NAME.jsonl.gz`` gives ``docs/results/NAME.md``, byte for byte the Markdown of ``rollflow report``, which
also writes a page, CSV and LaTeX. With ``--check``, nothing is written, and tables that differ are listed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rollflow.bench.analysis.results import read
from rollflow.bench.run.packed import SUFFIX
from rollflow.report.tables import tables
from rollflow.report.texts import texts

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs/results"


def written(packed: Path) -> str:
    """Return the Markdown of the tables of a packed experiment."""
    results = read(packed)
    return texts(results, tables(results))[0]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="experiments; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table differs")
    given = parser.parse_args(argv)
    names = given.names or sorted(path.name.removesuffix(SUFFIX) for path in RESULTS.glob(f"*{SUFFIX}"))
    differing = []
    for name in names:
        text, target = written(RESULTS / f"{name}{SUFFIX}").encode(), DOCS / f"{name}.md"
        if given.check:
            differing += [] if target.is_file() and target.read_bytes() == text else [str(target.relative_to(ROOT))]
        else:
            target.write_bytes(text)
    if differing:
        print(f"other than their experiments say: {', '.join(differing)}; run python tools/tables.py", file=sys.stderr)
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

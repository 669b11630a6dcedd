"""Write the tables of docs/results from the experiments in results: python tools/tables.py [--check]

Each ``results/NAME.jsonl.gz`` gives ``docs/results/NAME.md``, byte for byte the Markdown of ``rollflow report``, which
also writes a page, CSV and LaTeX. Those of the presets hard and pool give the page and the figure of ``rollflow bench
searches``, and the summaries of hard are inserted into ``docs/searches.md``. With ``--check``, nothing is written, and
tables that differ are listed; figures are only missed, since their bytes depend on the version of matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rollflow.bench.analysis.results import ExperimentResults, read
from rollflow.bench.run.packed import SUFFIX
from rollflow.output.plots import figure_png, style
from rollflow.report.searches_figure import searches_plot
from rollflow.report.searches_page import searches_markdown, setting, summary
from rollflow.report.tables import tables
from rollflow.report.texts import texts
from rollflow.report.typeset import markdown, plain

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs/results"
CHOICE = ROOT / "docs/searches.md"
PRESET = "hard"
BY_BUDGET = (PRESET, "pool")
"""Presets whose arms are searches at several budgets."""
BEGIN, END = "<!-- begin searches -->\n", "<!-- end searches -->\n"


def written(packed: Path) -> str:
    """Return the Markdown of the tables of a packed experiment."""
    results = read(packed)
    if results.config["name"] in BY_BUDGET:
        return searches_markdown(results, f"{packed.name.removesuffix(SUFFIX)}.png")
    return texts(results, tables(results))[0]


def inserted(page: str, experiments: dict[str, ExperimentResults]) -> str:
    """Return the page on which search when, with a section for each experiment of the preset by its name."""
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    sections = [_section(name, results) for name, results in experiments.items()]
    none = (
        f"No experiment of the preset `{PRESET}` is in `results/`; `python tools/tables.py` inserts those that are.\n"
    )
    return f"{head}{BEGIN}\n{chr(10).join(sections) or none}\n{END}{tail}"


def _section(name: str, results: ExperimentResults) -> str:
    table = markdown([summary(results)]).partition("\n\n")[2]
    return f"""\
### {plain(results.config["model"])}

{plain(setting(results))} [All tables](results/{name}.md).

![Given and held-out rewards against budget](results/{name}.png)

{table}"""


def _of(preset: str) -> dict[str, ExperimentResults]:
    found = {path.name.removesuffix(SUFFIX): path for path in sorted(RESULTS.glob(f"{preset}*{SUFFIX}"))}
    return {name: results for name, path in found.items() if (results := read(path)).config["name"] == preset}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="experiments; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table differs")
    given = parser.parse_args(argv)
    names = given.names or sorted(path.name.removesuffix(SUFFIX) for path in RESULTS.glob(f"*{SUFFIX}"))
    texts_ = {DOCS / f"{name}.md": written(RESULTS / f"{name}{SUFFIX}") for name in names}
    by_preset = {preset: _of(preset) for preset in BY_BUDGET}
    if CHOICE.is_file():
        texts_[CHOICE] = inserted(CHOICE.read_text(), by_preset[PRESET])
    differing = []
    for target, text in texts_.items():
        if not given.check:
            target.write_bytes(text.encode())
        elif not target.is_file() or target.read_bytes() != text.encode():
            differing.append(str(target.relative_to(ROOT)))
    experiments = {name: results for found in by_preset.values() for name, results in found.items()}
    for name in experiments.keys() & {*names}:
        figure = DOCS / f"{name}.png"
        if not given.check:
            with style():
                figure.write_bytes(figure_png(searches_plot(experiments[name])))
        elif not figure.is_file():
            differing.append(str(figure.relative_to(ROOT)))
    if differing:
        print(f"other than their experiments say: {', '.join(differing)}; run python tools/tables.py", file=sys.stderr)
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

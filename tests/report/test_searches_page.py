"""The page on searches at several budgets: its figures are those that can be computed by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_study import entry, study
from support.tiny import Judge, Redness, TinyModel, register

from rollflow.bench.analysis.results import ExperimentResults
from rollflow.bench.analysis.searches import Reference, measures_of, nfe_needed, reference_of, searches_of
from rollflow.bench.run.experiment import Arm, Experiment
from rollflow.bench.run.runner import Runner
from rollflow.bench.suites.load import Item, Suite
from rollflow.cli import main
from rollflow.errors import RollflowError
from rollflow.output.plots import figure_png
from rollflow.report.searches_figure import searches_plot
from rollflow.report.searches_page import (
    across_budgets,
    by_budget,
    costs,
    differences,
    equal_reward,
    searches_markdown,
    searches_tables,
    setting,
    shared_budgets,
)
from rollflow.report.typeset import Table

PROMPTS, SEEDS = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(24)], (1000, 1001)
MEANS = {
    "BoN": {50: 0.1, 100: 0.2, 200: 0.3, 500: 0.4},
    "SVDD(1), DDIM": {50: 0.2, 100: 0.3, 200: 0.5},
    "CoDe, VP": {50: 0.1, 100: 0.2, 200: 0.3},
    "auto": {50: 0.45, 100: 0.5, 200: 0.55},
    "auto, VP": {50: 0.3, 100: 0.4},
}
METHODS = {"BoN": "bon", "SVDD(1), DDIM": "svdd(streams=1)", "CoDe, VP": "code"}


def records(means: dict[str, dict[int, float]]) -> Iterator[dict[str, Any]]:
    """Yield records whose given reward is a mean plus what the prompt adds, and whose judge is right for some."""
    for name, curve in means.items():
        for nfe, mean in curve.items():
            for i, prompt in enumerate(PROMPTS):
                for seed in SEEDS:
                    right = i < len(PROMPTS) * mean
                    reward = mean + (i - (len(PROMPTS) - 1) / 2) / 1000
                    yield entry(f"{name}, {nfe}", prompt, seed, reward, held_out={"judge": right - 1.0}, nfe=nfe - 1)


def made(means: dict[str, dict[int, float]] = MEANS, **config: Any) -> ExperimentResults:
    arms = [Arm(f"{name}, {nfe}", METHODS.get(name, "auto"), nfe) for name, curve in means.items() for nfe in curve]
    results = study(*records(means), arms=(Arm("plain"), *arms))
    suite = {"name": "s", "version": "3", "prompts": len(PROMPTS)}
    known = {"model": "scenes-turbo(dtype=bfloat16)", "held_out": ["judge"], "suite": suite, "first_seed": 1000}
    return replace(results, config=results.config | known | config)


def rows_of(found: Table) -> dict[Any, tuple[Any, ...]]:
    """Return the rows of a table by their labels."""
    assert all(len(row) == len(found.columns) for row in found.rows)
    return {row[: found.labels] if found.labels > 1 else row[0]: row[found.labels :] for row in found.rows}


RESULTS = made()
SEARCHES = searches_of(RESULTS)
REFERENCE = Reference("BoN", 500, "BoN, 500")


def test_the_nfe_for_the_reference_are_those_of_the_curves() -> None:
    """Every prompt adds the same to every search, so that all resamples cross at one budget."""
    rows = rows_of(equal_reward(RESULTS, SEARCHES, REFERENCE))
    half = f"{100 * math.sqrt(2):.0f}"
    assert {name: cells[0] for name, cells in rows.items()} == {
        "BoN": "500 [500, 500]",
        "SVDD(1), DDIM": f"{half} [{half}, {half}]",
        "CoDe, VP": ">200 [>200, >200]",
        "auto": "<50 [<50, <50]",
        "auto, VP": "100 [100, 100]",
    }
    assert rows["SVDD(1), DDIM"][1].startswith(f"{half} [1")
    assert rows["auto"][1].startswith("<50")


def test_only_pairs_that_all_budgets_have_count() -> None:
    """A search whose job at one budget is missing is compared with the reference on the other prompts."""
    results = replace(
        RESULTS, done=tuple(one for one in RESULTS.done if (one.arm, one.prompt) != ("auto, VP, 50", "aa"))
    )
    assert reference_of(RESULTS, SEARCHES) == REFERENCE
    found = nfe_needed(results, results.given, SEARCHES["auto, VP"], REFERENCE)
    assert found is not None
    assert found.n == 23
    assert found.mean == pytest.approx(100)


def test_values_and_paired_differences() -> None:
    given = rows_of(by_budget(RESULTS, SEARCHES, RESULTS.given))
    assert [cell and round(cell.mean, 6) for cell in given["auto, VP"]] == [0.3, 0.4, None, None]
    share = rows_of(by_budget(RESULTS, SEARCHES, measures_of(RESULTS)[1]))
    assert share["BoN"][3].mean == pytest.approx(10 / 24)
    minus = rows_of(differences(RESULTS, SEARCHES, "auto"))
    assert minus.keys() == MEANS.keys() - {"auto"}
    found = [cell.mean for cell in minus["SVDD(1), DDIM"]]
    assert found == pytest.approx([0.25, 0.2, 0.05, (11 - 5) / 24, (12 - 8) / 24, (14 - 12) / 24])
    assert minus["auto, VP"][2] is None
    assert rows_of(differences(RESULTS, SEARCHES, "auto, VP"))["BoN"][0].mean == pytest.approx(0.2)
    across = rows_of(across_budgets(RESULTS, SEARCHES, REFERENCE))
    assert across.keys() == {("auto", 50), ("auto", 100), ("auto", 200), ("auto, VP", 50), ("auto, VP", 100)}
    assert across["auto", 50][0].mean == pytest.approx(0.05)
    assert [cell.mean for cell in rows_of(costs(RESULTS, SEARCHES))["CoDe, VP", 200]] == [199, 1, 1, 2]


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({}, "bfloat16"),
        ({"model": "scenes-turbo"}, "float32"),
        ({"model": "owner/name"}, "the type of its weights"),
        ({"model": "owner/name", "pipeline": {"dtype": "float16"}}, "float16"),
    ],
)
def test_the_page_says_what_was_run(config: dict[str, Any], dtype: str) -> None:
    text = setting(replace(RESULTS, config=RESULTS.config | config))
    assert f"computing in {dtype}; given reward caption, held-out judge; 24 prompts of s, version 3" in text
    assert "seeds 1000 to 1001" in text


def test_contenders_alone_make_a_page() -> None:
    """Arms without finished jobs are left out, as long as there is one of any search."""
    few = {"BoN": {50: 0.1, 500: 0.4}, "CoDe, VP": {50: 0.1}, "auto": {50: 0.4}}
    whole = made(few)
    alone = replace(whole, done=tuple(one for one in whole.done if not one.arm.startswith("auto")))
    page = searches_markdown(alone, "x.png")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## NFE for BoN at 500 NFE",
        "## Caption (given)",
        "## Share of judge = 0 (held out)",
        "## Costs",
    ]
    assert "auto" not in page.replace(alone.missing, "")
    assert "](x.png)" in page
    without = replace(whole, done=tuple(one for one in whole.done if not one.arm.startswith("BoN")))
    assert not any("BoN" in one.title for one in searches_tables(without))
    assert len(figure_png(searches_plot(without))) > 10_000
    with pytest.raises(RollflowError, match="no finished arms that are called by a search and its budget"):
        searches_tables(replace(whole, done=()))


def test_the_figure_has_every_search_where_it_belongs() -> None:
    """A row for each dynamics: labels leave out its name, and searches of no dynamics are in each."""
    figure = searches_plot(RESULTS)
    labels = [{text.get_text() for text in axes.texts} for axes in figure.axes]
    line = "BoN at 500 NFE"
    assert labels == [{"BoN", "SVDD(1)", "auto", line}] * 2 + [{"BoN", "CoDe", "auto", "auto, VP", line}] * 2
    for axes in figure.axes:
        places = sorted(text.get_position()[1] for text in axes.texts if text.get_text() != line)
        low, high = axes.get_ylim()
        assert np.diff(places).min() > 0.05 * (high - low)  # no label hides another
        assert low <= places[0] <= places[-1] <= high


def test_the_command_writes_page_and_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = tuple(Arm(f"BoN, {nfe}", "bon", nfe, interpolant="linear", kernel="sde", steps=4) for nfe in (8, 16))
    suite = Suite("two", "1", (Item("a red square"), Item("a blue square")))
    experiment = Experiment("tiny", "scenes-base", "caption", ("judge",), suite, arms, 1, 8, first_seed=7)
    register(monkeypatch)
    Runner(experiment, tmp_path / "run").run(TinyModel(), Redness(), [Judge()])
    assert main(["bench", "searches", str(tmp_path / "run"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("All jobs are done.\n")
    text = (tmp_path / "searches-run.md").read_text()
    assert "seeds 7 to 7" in text
    assert "| BoN | 16 (n = 2) |" in text
    assert (tmp_path / "searches-run.png").read_bytes()[:4] == b"\x89PNG"


def test_a_shared_budget_is_compared_with_an_even_split() -> None:
    """What it reaches at 60 NFE, half-way between .1 at 50 and .3 at 200, is reached by an even split at 100 NFE."""
    even = {50: 0.1, 200: 0.3}
    results = made({"auto": even, "auto pooled": {60: 0.2}, "CoDe, VP": even})
    rows = rows_of(shared_budgets(results, searches_of(results)))
    assert rows["auto pooled", 60][0] == "100 [100, 100]"
    assert list(rows) == [("auto pooled", 60)]
    assert shared_budgets(RESULTS, SEARCHES).rows == ()

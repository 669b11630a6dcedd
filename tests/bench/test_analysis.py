"""Estimates from experiments against numbers computed by hand, and tables in Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from support.small_study import HOSTILE, entry, folder, study  # noqa: F401

from rollflow.bench.analysis import estimates
from rollflow.bench.analysis.estimates import (
    best_so_far,
    budget_shares,
    difference,
    effective_sizes,
    estimate,
    over_optimised,
    steps,
    win_rate,
)
from rollflow.bench.analysis.results import Cells, read
from rollflow.bench.analysis.scaling import against_budget, families
from rollflow.bench.intervals import Interval, bands, bootstrap, interval, share
from rollflow.bench.run.experiment import Arm
from rollflow.bench.run.presets import PRESETS
from rollflow.errors import RollflowError
from rollflow.report import tables, typeset
from rollflow.report.figures import parents_of
from rollflow.report.typeset import Table, shown


def test_seeds_of_a_prompt_are_averaged_first() -> None:
    found = estimate({("a", 0): 0.0, ("a", 1): 1.0, ("b", 0): 4.0, ("c", 2): 1.5})
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    half = 4.302653 * (3.25 / 3) ** 0.5  # Student's quantile of 2 degrees of freedom; a variance of 3.25
    np.testing.assert_allclose([found.low, found.high], [2 - half, 2 + half], rtol=1e-6)
    assert estimate({}) is None


@pytest.mark.parametrize("n", [4, 8])
def test_intervals_of_few_prompts_cover_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(0)
    found = [interval(row) for row in rng.normal(1, 2, size=(2_000, n))]
    assert abs(np.mean([one.low <= 1 <= one.high for one in found]) - 0.95) < 4 * (0.95 * 0.05 / 2_000) ** 0.5
    columns = bands(rng.normal(1, 2, size=(n, 2_000)))
    assert abs(np.mean((columns.low <= 1) & (columns.high >= 1)) - 0.95) < 4 * (0.95 * 0.05 / 2_000) ** 0.5
    for truth in (0.1, 0.5, 0.8):
        shares = [share(row) for row in (rng.random((1_000, n)) < truth).astype(float)]
        assert np.mean([one.low <= truth <= one.high for one in shares]) > 0.95 - 4 * (0.95 * 0.05 / 1_000) ** 0.5
        seeds = [share(row) for row in (rng.random((1_000, n, 3)) < truth).mean(2)]
        assert np.mean([one.low <= truth <= one.high for one in seeds]) > 0.95


def test_intervals_of_many_are_the_bootstrap() -> None:
    values = np.random.default_rng(0).random(20)
    assert interval(values, 500) == share(values, 500) == bootstrap(values, 500)


def test_few_values_that_agree_prove_nothing() -> None:
    for values in ([2.0] * 8, [0.1 + 0.2, 0.3, 0.3]):
        assert math.isnan(interval(values).low)
        assert math.isnan(interval(values).high)
    assert shown(interval([2.0] * 8)) == "2 (all 8 equal)"
    assert shown(interval([2.0] * 20)) == "2 [2, 2]"


def test_intervals_cover_though_seeds_of_a_prompt_agree() -> None:
    rng, covered, naive = np.random.default_rng(0), [], []
    for _ in range(150):
        prompts = rng.normal(size=40)
        cells: Cells = {(str(p), s): mean + 0.1 * rng.normal() for p, mean in enumerate(prompts) for s in range(4)}
        found, wrong = estimate(cells), bootstrap(list(cells.values()), 500)
        assert found is not None
        covered.append(found.low <= 0 <= found.high)
        naive.append(wrong.low <= 0 <= wrong.high)
    assert abs(np.mean(covered) - 0.95) < 3 * (0.95 * 0.05 / 150) ** 0.5 + 0.02
    assert np.mean(naive) < 0.8  # as it would be if seeds were taken for prompts


def test_one_prompt_or_two_have_no_interval() -> None:
    found = estimate({("a", 0): 1.0, ("a", 1): 2.0})
    assert found is not None
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert shown(found) == "1.5 (n = 1)"
    assert str(found) == "1.50 (n = 1)"
    assert found.percent() == "150.0 % (n = 1)"
    assert np.isnan(bands(np.array([[1.0, 2.0]])).low).all()
    assert np.isnan(bands(np.array([[1.0, 2.0], [3.0, 4.0]])).high).all()
    two = [estimate({("a", 0): 0.0, ("b", 0): 1.0}, shares=shares) for shares in (False, True)]
    assert [one and shown(one) for one in two] == ["0.5 (n = 2)"] * 2


def numbers(of: Interval) -> tuple[object, ...]:
    """Return the fields of an interval, for comparison with approximate numbers."""
    return tuple(of)


def test_shares_are_not_certain_where_all_agree() -> None:
    assert numbers(share([1.0] * 3)) == (1.0, pytest.approx(0.025 ** (1 / 3)), 1.0, 3)
    assert numbers(share([1.0] * 30)) == (1.0, pytest.approx(0.025 ** (1 / 30)), 1.0, 30)
    assert numbers(share([0.0] * 10)) == (0.0, 0.0, pytest.approx(0.3085, abs=1e-4), 10)  # Clopper & Pearson of 0 in 10
    assert numbers(share([1.0, 0.0] * 5)) == (0.5, pytest.approx(0.1871, abs=1e-4), pytest.approx(0.8129, abs=1e-4), 10)


def test_differences_and_wins_are_of_pairs_that_both_have() -> None:
    ours: Cells = {("a", 0): 1.0, ("a", 1): 2.0, ("b", 0): 3.0, ("c", 0): 100.0}
    theirs: Cells = {("a", 0): 0.0, ("a", 1): 2.0, ("b", 0): 5.0, ("b", 1): -100.0}
    lead, won = difference(ours, theirs), win_rate(ours, theirs)
    assert lead.pairs == won.pairs == 3
    assert lead.interval is not None
    assert won.interval is not None
    assert (lead.interval.mean, lead.interval.n) == (-0.75, 2)
    assert (won.interval.mean, won.interval.n) == (0.375, 2)  # a win and a tie; a loss
    assert difference(ours, {("z", 0): 1.0}) == (None, 0)
    back = win_rate(theirs, ours).interval
    assert back is not None
    assert back.mean == pytest.approx(1 - 0.375)


def test_step_functions() -> None:
    grid = np.array([1.0, 2.0, 3.0, 5.0, 9.0])
    np.testing.assert_array_equal(steps([(2, 0.5), (4, 1.5), (4, 2.0)], grid), [np.nan, 0.5, 0.5, 2.0, 2.0])


def test_rewards_at_equal_cost() -> None:
    told = study(
        entry("A", "p", 0, 3.0, nfe=4, seconds=8.0, trace=[[1, 1.0], [3, 3.0], [4, 3.0]]),
        entry("A", "q", 0, 2.0, nfe=2, seconds=1.0, trace=[[2, 2.0], [2, 2.0]]),
        entry("B", "p", 0, 0.0, nfe=1, seconds=1.0, trace=[[1, 0.0]]),
    )
    by_nfe = best_so_far(told, np.arange(1.0, 5.0))
    np.testing.assert_array_equal(by_nfe["A"].x, [2, 3, 4])  # q has nothing at 1; from 2 on it keeps its best
    np.testing.assert_array_equal(by_nfe["A"].bands.mean, [1.5, 2.5, 2.5])
    np.testing.assert_array_equal(by_nfe["B"].x, [1, 2, 3, 4])  # it has ended, but not its budget of 10
    by_seconds = best_so_far(told, np.array([1.0, 2.0, 6.0, 8.0]), seconds=True)
    np.testing.assert_array_equal(by_seconds["A"].x, [2, 6, 8])  # NFE 1 of p is at 2 s, NFE 3 at 6 s
    np.testing.assert_array_equal(by_seconds["A"].bands.mean, [1.5, 2.5, 2.5])
    np.testing.assert_array_equal(best_so_far(told, np.array([0.5, 2.0]), seconds=True)["B"].x, [])


def test_bands_resample_rows_whole() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 2))
    found = bands(np.column_stack([rows, rows.sum(1)]), 4_000)
    np.testing.assert_allclose(found.mean[2], found.mean[:2].sum())
    for column in range(2):
        np.testing.assert_allclose([found.low[column], found.high[column]], bootstrap(rows[:, column])[1:3], atol=0.03)


def test_shares_of_the_budget_are_of_whole_jobs() -> None:
    entries = [
        entry("A", "p", 0, 0.0, quota=[[1, 3], [1, 3]]),
        entry("A", "q", 0, 0.0, quota=[[6, 2]]),
        entry("A", "r", 0, 0.0, quota=[[5]]),  # resumed after its first step
    ]
    found = budget_shares(study(*entries).of("A"))
    assert found is not None
    np.testing.assert_allclose(found.curve.bands.mean, [0.5, 0.5])
    assert found.left_out == 1
    assert budget_shares(study(entry("A", "p", 0, 0.0)).of("A")) is None


def test_effective_sample_sizes() -> None:
    smc = [entry("A", prompt, 0, 0.0, diagnostics=[{"ess": [4.0, ess]}]) for prompt, ess in (("p", 1.0), ("q", 3.0))]
    found = effective_sizes(study(*smc, entry("A", "r", 0, 0.0)).of("A"))
    assert found is not None
    np.testing.assert_allclose(found.bands.mean, [4, 2])
    assert found.bands.n == 2
    assert effective_sizes(study(entry("A", "r", 0, 0.0, diagnostics=[{}])).of("A")) is None


def test_over_optimisation_is_beyond_both_intervals() -> None:
    def arm(name: str, rewards: list[float], judged: list[float]) -> list[dict[str, object]]:
        prompts = zip("abcdefgh", rewards, judged, strict=False)
        return [entry(name, prompt, 0, reward, held_out={"j": value}) for prompt, reward, value in prompts]

    told = study(
        *arm("plain", [0.0] * 8, [1.0] * 8),
        *arm("hacks", [0.5, 1.5] * 4, [-0.5, 0.5] * 4),
        *arm("unclear", [0.5, 1.5] * 4, [0.0, 2.0] * 4),
        *arm("worse", [-0.5, -1.5] * 4, [-0.5, 0.5] * 4),
        *arm("of two", [0.5, 1.5], [-0.5, 0.5]),
        *arm("of eight that agree", [1.0] * 8, [0.0] * 8),
    )
    assert [(name, judge, up.mean, down.mean) for name, judge, up, down in over_optimised(told)] == [
        ("hacks", "j", 1.0, -1.0)
    ]


def test_what_one_arm_wins_the_other_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(ours: Cells, theirs: Cells) -> estimates.Paired:
        calls.append(1)
        return win_rate(ours, theirs)

    monkeypatch.setattr(estimates, "win_rate", counted)
    rewards = np.random.default_rng(0).normal(size=(3, 9))
    told = study(*(entry(arm, p, 0, rewards[i, j]) for i, arm in enumerate("ABC") for j, p in enumerate("abcdefghi")))
    found = estimates.win_rates(told, told.given)
    assert len(calls) == 3
    for (ours, theirs), won in found.items():
        direct = win_rate(told.cells(told.given, ours), told.cells(told.given, theirs))
        assert won.pairs == direct.pairs == 9
        np.testing.assert_allclose(won.interval, direct.interval)  # type: ignore[arg-type]
    assert tables.win_rates(told, told.given).rows[2][1] == found["C", "A"].interval


def test_equal_cost_goes_on_to_every_budget() -> None:
    arms = (Arm("plain"), Arm("short", nfe=50), Arm("long", nfe=1_000))
    spent = {"plain": 19, "short": 48, "long": 990}
    told = study(*(entry(a, p, 0, 1.0, nfe=n, trace=[[10, 1.0]]) for a, n in spent.items() for p in "abc"), arms=arms)
    table = tables.equal_cost(told, "nfe")
    assert table.columns[1:] == tuple(f"{nfe} NFE" for nfe in (12, 25, 37, 50, 100, 200, 400, 800, 1000))
    ended = {row[0]: [cell is None for cell in row[1:]].index(True) for row in table.rows if None in row}
    assert ended == {"plain": 1, "short": 4}  # after its steps, and after its budget
    told = study(*(entry("A", p, 0, 1.0, seconds=s, trace=[[1, 1.0]]) for p, s in zip("abc", (1, 5, 2), strict=True)))
    assert tables.equal_cost(told, "seconds").columns[-1] == "5 s"


def test_arms_of_one_method_are_told_by_their_configuration() -> None:
    arms = (
        Arm("plain"),
        Arm("x", "svdd", 100, interpolant="vp", kernel="sde"),
        Arm("y", "svdd", 50, interpolant="vp", kernel="sde"),
        Arm("z", "svdd", 50, interpolant="linear", kernel="sde"),
        Arm("u", "rbf(initial=6)", 50, interpolant="vp", kernel="sde"),
        Arm("v", "rbf(initial=25)", 500, interpolant="vp", kernel="sde"),
    )
    configured = [asdict(arm) for arm in arms]
    assert families(configured) == {"svdd, vp": {50: "y", 100: "x"}, "rbf, vp": {50: "u", 500: "v"}}
    known = [asdict(arm) for arm in (*arms, Arm("w", "rbf(initial=6)", 500, interpolant="vp", kernel="sde"))]
    assert families(known)["rbf(initial=6), vp"] == {50: "u", 500: "w"}
    assert len(families(known)) == 2
    scaled = families([asdict(arm) for arm in PRESETS["nfe-scaling"].arms(1_000)])
    assert len(scaled) == 5
    assert all(list(budgets) == [50, 100, 200, 500, 1000] for budgets in scaled.values())
    assert families([asdict(arm) for arm in PRESETS["init"].arms(500)]) == {}
    told = study(*(entry(arm.name, p, 0, float(ord(p))) for arm in arms for p in "abc"), arms=arms)
    rows = tables.scaling(told).rows
    assert [row[:4] for row in rows[:2]] == [("svdd, vp", 50, "3 of 6", 3), ("svdd, vp", 100, "3 of 6", 3)]
    assert against_budget(told, told.given)["rbf, vp"][500] == interval([97.0, 98.0, 99.0])


def test_time_is_told_with_padding_and_devices() -> None:
    told = study(*(entry("A", p, 0, 1.0, device="a GPU") for p in "abc"), entry("B", "a", 0, 1.0))
    for table in (tables.costs(told), tables.equal_cost(told, "seconds")):
        assert "padded to 8 rows" in " ".join(table.notes)
        assert "reward, on a GPU, of" in " ".join(table.notes)


def test_accuracy_is_the_share_of_zeros_of_rewards_that_count() -> None:
    told = study(
        entry("A", "p", 0, 0.0, held_out={"judge": 0.0, "aesthetic": 0.0}),
        entry("A", "p", 1, -1.0, held_out={"judge": None, "aesthetic": 1.0}),
        entry("A", "q", 0, -4.0, held_out={"judge": -1.0, "aesthetic": 1.0}),
        reward="counting(device=cpu)",
    )
    assert [measure.label for measure in told.rewards] == [
        "counting(device=cpu) (given)",
        "share of counting(device=cpu) = 0 (given)",
        "judge (held out)",
        "share of judge = 0 (held out)",
        "aesthetic (held out)",
    ]
    [row] = tables.rewards(told).rows
    assert row[:3] == ("A", "3 of 4", 2)
    means = [cell.mean for cell in row[3:] if isinstance(cell, Interval)]
    assert means == [-2.25, 0.25, -0.5, 0.5, 0.75]  # what could not be had is not a zero


def test_every_table_tells_what_is_missing() -> None:
    lost = entry("B", "q", 1, 0.0) | {"error": "ValueError: no"}
    smc = {"log_z": 0.5, "ess": [2.0, 1.0], "resamplings": 2, "ancestors": 1}
    entries = [
        entry(arm, prompt, seed, float(seed), category=prompt, held_out={"j": 1.0}, diagnostics=[smc])
        for arm in ("A", "B")
        for prompt in ("p", "q")
        for seed in (0, 1)
    ]
    whole, told = study(*entries), study(*entries[:-1], failed=(lost,))
    assert len(tables.tables(told)) == 9
    for table in tables.tables(told):
        assert "jobs done: B (3 of 4, 1 failed)." in " ".join(table.notes)
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert all("All jobs are done." in table.notes for table in tables.tables(whole))
    assert whole.first_search == "B"  # A is the plain one
    [sequential] = [table for table in tables.tables(told) if table.title == "Sequential Monte Carlo"]
    assert [cell.mean for cell in sequential.rows[0][1:] if isinstance(cell, Interval)] == [0.5, 1.0, 2.0, 1.0]


def test_a_table_in_three_languages() -> None:
    cells = ("a_b|c & 5 % of $3 #1", Interval(0.123456, 0.1, 0.2, 9), Interval(1.0, math.nan, math.nan, 1), None)
    table = Table("T_1", ("arm", "x [m]", "y", "z"), (cells,), ("A note.",))
    assert "| a_b\\|c & 5 % of $3 #1 | 0.12 [0.10, 0.20] | 1 (n = 1) | - |" in typeset.markdown([table]).splitlines()
    set_ = typeset.latex([table])
    assert r"a\_b|c \& 5 \% of \$3 \#1 & 0.12 {[}0.10, 0.20{]} & 1 (n = 1) & - \\" in set_.splitlines()
    assert r"\caption{T\_1. A note.}" in set_
    assert r"\begin{tabular}{lrrr}" in set_
    assert typeset.escaped("\\x{~^}\n<y>") == (
        r"\textbackslash{}x\{\textasciitilde{}\textasciicircum{}\} \textless{}y\textgreater{}"
    )
    lines = list(csv.DictReader(io.StringIO(typeset.comma_separated([table]))))
    assert [[line[name] for name in ("column", "value", "low", "high", "note")] for line in lines] == [
        ["x [m]", "0.123456", "0.1", "0.2", ""],
        ["y", "1.0", "", "", "n = 1"],
        ["z", "", "", "", ""],
    ]
    assert {line["row"] for line in lines} == {cells[0]}


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(200, 200, 200, 20), "200 [200, 200]"),
        (Interval(1234.5, 1000, 1500, 9), "1234 [1000, 1500]"),
        (Interval(0.00123, 0.001, 0.002, 9), "0.0012 [0.0010, 0.0020]"),
    ],
)
def test_intervals_are_shown_to_two_digits_of_their_width(interval: Interval, text: str) -> None:
    assert shown(interval) == text


def test_genealogies_write_out_the_rows_that_go_on() -> None:
    assert parents_of([None, [0, 0, 2], None, [1, 1]]) == [[0, 0, 2], [0, 1, 2], [1, 1]]
    assert parents_of([None]) == []


@pytest.mark.slow
def test_a_folder_is_read(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    told = read(folder)
    assert told.arms == ["plain", "BoN", "RBF_1", "SMC"]
    assert {arm: told.account(arm) for arm in told.arms} == dict.fromkeys(told.arms, "4 of 6, 2 failed")
    assert [record.prompt for record in told.of("SMC")] == ["a red square", HOSTILE] * 2
    assert {record.prompt for record in told.failed} == {"a unicorn"}
    means = {row[0]: row[3].mean for row in tables.rewards(told).rows if isinstance(row[3], Interval)}
    assert means["BoN"] > means["plain"]
    with pytest.raises(RollflowError, match="is not a folder of 'rollflow bench run'"):
        read(tmp_path)

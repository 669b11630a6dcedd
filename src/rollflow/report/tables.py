"""Tables of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollflow.bench.analysis import estimates
from rollflow.bench.analysis.estimates import INTERVALS_NOTE, best_so_far, difference, estimate, largest
from rollflow.bench.analysis.results import Cells, ExperimentResults, Measure, prompt_of
from rollflow.bench.analysis.scaling import families
from rollflow.bench.intervals import Interval
from rollflow.engine import JobRecord
from rollflow.report.typeset import Cell, Table

BEST_SO_FAR_NOTE = (
    "The best reward of any clean sample seen until then, estimates on the way included, so that it can lie above that "
    "of the sample returned."
)
BUDGETS_NOTE = (
    "Of the sample returned, by arms of one method and the same dynamics with several budgets. Where a method is named "
    "without settings, these go with the budget, as the configuration says."
)
EVEN_TIME_NOTE = (
    "Each NFE of a job is taken for an equal share of its time. Of a job that was resumed, the time before is not "
    "known."
)


def seconds_note(results: ExperimentResults) -> str:
    """Return the note on what seconds measure, where they were spent, and how calls were padded."""
    where = f", on {' and '.join(results.devices)}" if results.devices else ""
    return (
        f"Seconds are those that a job spent in calls of model, decoder and reward{where}, of a shared call its rows' "
        f"share. Every call of the model was padded to {results.config['max_rows']} rows; the time of empty rows is "
        "no job's."
    )


def tables(results: ExperimentResults) -> list[Table]:
    """Return all tables of an experiment that are not empty."""
    return [table for table in _tables(results) if table.rows]


def _tables(results: ExperimentResults) -> Iterator[Table]:
    yield rewards(results)
    if len(results.categories) > 1:
        yield by_category(results)
    yield scaling(results)
    yield differences(results)
    for measure in (results.given, *results.held_out):
        yield win_rates(results, measure)
    yield equal_cost(results, "nfe")
    if largest(results, "seconds") > 0:
        yield equal_cost(results, "seconds")
    yield costs(results)
    yield diversity(results)
    yield sequential(results)


def _measured(cells: Cells, measure: Measure) -> Interval | None:
    return estimate(cells, shares=measure.accuracy)


def _prompts(cells: Cells) -> int:
    return len({prompt for prompt, _ in cells})


def rewards(results: ExperimentResults) -> Table:
    """Return the table of every reward of every arm."""
    rows = []
    for arm in results.arms:
        cells = [(measure, results.cells(measure, arm)) for measure in results.rewards]
        means = (_measured(values, measure) for measure, values in cells)
        rows.append((arm, results.account(arm), _prompts(cells[0][1]), *means))
    columns = ("arm", "jobs", "prompts", *(measure.label for measure in results.rewards))
    return Table("Rewards", columns, tuple(rows), (INTERVALS_NOTE, results.missing))


def by_category(results: ExperimentResults) -> Table:
    """Return the table of every reward of every arm, by category."""
    rows: list[tuple[Cell, ...]] = []
    for category in results.categories:
        for arm in results.arms:
            cells = [(measure, results.cells(measure, arm, category)) for measure in results.rewards]
            means = (_measured(values, measure) for measure, values in cells)
            rows.append((category or "none", arm, _prompts(cells[0][1]), *means))
    columns = ("category", "arm", "prompts", *(measure.label for measure in results.rewards))
    return Table("Rewards by category", columns, tuple(rows), (INTERVALS_NOTE, results.missing), labels=2)


def scaling(results: ExperimentResults) -> Table:
    """Return the table of every reward against budget, for arms that differ only in their budget."""
    rows: list[tuple[Cell, ...]] = []
    for family, arms in families(results.config["arms"]).items():
        for nfe, arm in arms.items():
            cells = [(measure, results.cells(measure, arm)) for measure in results.rewards]
            means = (_measured(values, measure) for measure, values in cells)
            rows.append((family, nfe, results.account(arm), _prompts(cells[0][1]), *means))
    columns = ("method", "budget, NFE", "jobs", "prompts", *(measure.label for measure in results.rewards))
    return Table(
        "Rewards against budget", columns, tuple(rows), (BUDGETS_NOTE, INTERVALS_NOTE, results.missing), labels=2
    )


def differences(results: ExperimentResults) -> Table:
    """Return the table of paired differences of every arm to the first one that searches."""
    base = results.first_search
    rows: list[tuple[Cell, ...]] = []
    for arm in (arm for arm in results.arms if arm != base):
        pairs = [difference(results.cells(m, arm), results.cells(m, base)) for m in results.rewards]
        rows.append((arm, pairs[0].pairs, *(pair.interval for pair in pairs)))
    columns = ("arm", "pairs", *(measure.label for measure in results.rewards))
    note = f"Differences to {base} over the pairs (a prompt and a seed) that both arms have."
    return Table(f"Paired differences to {base}", columns, tuple(rows), (note, INTERVALS_NOTE, results.missing))


def win_rates(results: ExperimentResults, measure: Measure) -> Table:
    """Return the table of win rates of every arm against every other."""
    rates = estimates.win_rates(results, measure)
    rows = tuple(
        (arm, *(None if other == arm else rates[arm, other].interval for other in results.arms))
        for arm in results.arms
        if rates
    )
    pairs = sorted({rate.pairs for rate in rates.values()})
    note = (
        "The share of pairs (a prompt and a seed) that the arm of the row wins against that of the column; a tie is "
        f"half a win. Pairs that two arms have: {', '.join(map(str, pairs))}."
    )
    return Table(f"Win rates, {measure.label}", ("arm", *results.arms), rows, (note, INTERVALS_NOTE, results.missing))


def equal_cost(results: ExperimentResults, field: str) -> Table:
    """Return the table of the best reward so far at equal cost.

    The columns are quarters and doublings of the smallest cost of any arm that searches, the budget of every arm (for
    NFE), and the largest cost of any job.

    Args:
        results: Results of the experiment.
        field: Cost: ``nfe``, for which the cost of an arm is its budget, or ``seconds``, for which it is the time of
            its longest job.
    """
    seconds = field == "seconds"
    grid = _times(results) if seconds else _budgets(results)
    rows: list[tuple[Cell, ...]] = []
    for arm, (x, bands) in best_so_far(results, grid, seconds=seconds).items():
        triples = zip(bands.mean.tolist(), bands.low.tolist(), bands.high.tolist(), strict=True)
        known = {key: Interval(*triple, bands.n) for key, triple in zip(x.tolist(), triples, strict=True)}
        rows.append((arm, *(known.get(key) for key in grid.tolist())))
    unit = "s" if seconds else "NFE"
    ended = "Empty where an arm has nothing yet, or has ended."
    timed = (seconds_note(results), EVEN_TIME_NOTE) if seconds else ()
    title = f"Best {results.given.name} so far at equal {'wall time' if seconds else 'NFE'}"
    columns = ("arm", *(f"{_short(x)} {unit}" for x in grid))
    return Table(title, columns, tuple(rows), (BEST_SO_FAR_NOTE, *timed, ended, INTERVALS_NOTE, results.missing))


def _short(x: float) -> str:
    """Return a number with three significant digits, or all digits of a whole number."""
    return f"{x:.0f}" if x >= 100 or x == round(x) else f"{x:.3g}"


def _budgets(results: ExperimentResults) -> NDArray[np.float64]:
    budgets = [nfe for arm, nfe in results.budgets.items() if results.of(arm)]
    most = max(largest(results, "nfe"), *budgets, 0)
    return np.unique(np.floor([*_rising(min(budgets, default=most), most), *budgets, most]))


def _times(results: ExperimentResults) -> NDArray[np.float64]:
    most = largest(results, "seconds")
    spent = [max(float(record.seconds) for record in results.of(arm)) for arm in results.budgets if results.of(arm)]
    rising = _rising(min((one for one in spent if one), default=most), most)
    return np.array([*(x for x in rising if _short(x) != _short(most)), most])


def _rising(least: float, most: float) -> list[float]:
    """Return the quarters of ``least``, followed by its doublings up to ``most``."""
    return [*(least * k / 4 for k in range(1, 5)), *(least * 2.0**k for k in range(1, int(np.log2(most / least)) + 1))]


def costs(results: ExperimentResults) -> Table:
    """Return the table of what a job of each arm spends."""
    rows = tuple((arm, *(estimate(results.cells(m, arm)) for m in results.spent)) for arm in results.arms)
    columns = ("arm", *(measure.label for measure in results.spent))
    return Table("Costs", columns, rows, ("Of one job.", seconds_note(results), INTERVALS_NOTE, results.missing))


def diversity(results: ExperimentResults) -> Table:
    """Return the table of the diversity of samples from one noise, which a search chooses from."""
    by_arm: dict[str, Cells] = {}
    for record in results.diversity:
        by_arm.setdefault(record.arm, {})[prompt_of(record), int(record.seed)] = record.diversity
    rows = tuple((arm, _prompts(cells), estimate(cells)) for arm, cells in by_arm.items())
    settings = results.config.get("diversity") or {}
    note = (
        f"Mean pairwise distance ('{settings.get('distance')}') of {settings.get('trajectories')} trajectories a "
        "prompt that part from one noise and move as the arm does, without its search; of arms that move alike the "
        "first stands for all."
    )
    return Table("Diversity", ("arm", "prompts", "mean pairwise distance"), rows, (note, INTERVALS_NOTE))


def sequential(results: ExperimentResults) -> Table:
    """Return the table of diagnostics of sequential Monte Carlo, for the arms that have any."""
    figures: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "log Z": lambda population: population["log_z"],
        "smallest ESS": lambda population: min(population["ess"]),
        "resamplings": lambda population: population["resamplings"],
        "first ancestors left": lambda population: population["ancestors"],
    }
    measures = [Measure(name, "spent", _of_populations(of)) for name, of in figures.items()]
    rows = []
    for arm in results.arms:
        means = [estimate(results.cells(measure, arm)) for measure in measures]
        if any(means):
            rows.append((arm, *means))
    note = "Of one job; first ancestors left are the particles at the start that any at the end descends from."
    title = "Sequential Monte Carlo"
    return Table(title, ("arm", *figures), tuple(rows), (note, INTERVALS_NOTE, results.missing))


def _of_populations(figure: Callable[[Mapping[str, Any]], float]) -> Callable[[JobRecord], float | None]:
    def of(record: JobRecord) -> float | None:
        values = [figure(one) for one in record.diagnostics if one.get("ess") and one["log_z"] is not None]
        return float(np.mean(values)) if values else None

    return of

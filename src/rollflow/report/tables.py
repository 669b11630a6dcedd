"""The tables of a study, and those of two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollflow.bench.analysis import estimates
from rollflow.bench.analysis.estimates import INTERVALS_NOTE, best_so_far, difference, estimate, largest
from rollflow.bench.analysis.results import Cells, Entry, Measure, Study, prompt_of
from rollflow.bench.analysis.scaling import families
from rollflow.bench.intervals import Interval
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


def seconds_note(study: Study) -> str:
    """What seconds are, where they were spent, and how calls were padded."""
    where = f", on {' and '.join(study.devices)}" if study.devices else ""
    return (
        f"Seconds are those that a job spent in calls of model, decoder and reward{where}, of a shared call its rows' "
        f"share. Every call of the model was padded to {study.config['max_rows']} rows; the time of empty rows is "
        "no job's."
    )


def tables(study: Study) -> list[Table]:
    """All of them; those that have nothing to say are left out."""
    return [table for table in _tables(study) if table.rows]


def _tables(study: Study) -> Iterator[Table]:
    yield results(study)
    if len(study.categories) > 1:
        yield by_category(study)
    yield scaling(study)
    yield differences(study)
    for measure in (study.given, *study.held_out):
        yield win_rates(study, measure)
    yield equal_cost(study, "nfe")
    if largest(study, "seconds") > 0:
        yield equal_cost(study, "seconds")
    yield costs(study)
    yield diversity(study)
    yield sequential(study)


def _measured(cells: Cells, measure: Measure) -> Interval | None:
    return estimate(cells, shares=measure.accuracy)


def _prompts(cells: Cells) -> int:
    return len({prompt for prompt, _ in cells})


def results(study: Study) -> Table:
    """Every reward of every arm."""
    rows = []
    for arm in study.arms:
        cells = [(measure, study.cells(measure, arm)) for measure in study.rewards]
        told = (_measured(some, measure) for measure, some in cells)
        rows.append((arm, study.account(arm), _prompts(cells[0][1]), *told))
    columns = ("arm", "jobs", "prompts", *(measure.label for measure in study.rewards))
    return Table("Rewards", columns, tuple(rows), (INTERVALS_NOTE, study.missing))


def by_category(study: Study) -> Table:
    """The same, category by category."""
    rows: list[tuple[Cell, ...]] = []
    for category in study.categories:
        for arm in study.arms:
            cells = [(measure, study.cells(measure, arm, category)) for measure in study.rewards]
            told = (_measured(some, measure) for measure, some in cells)
            rows.append((category or "none", arm, _prompts(cells[0][1]), *told))
    columns = ("category", "arm", "prompts", *(measure.label for measure in study.rewards))
    return Table("Rewards by category", columns, tuple(rows), (INTERVALS_NOTE, study.missing), labels=2)


def scaling(study: Study) -> Table:
    """Every reward of arms that differ in their budget, against it."""
    rows: list[tuple[Cell, ...]] = []
    for family, arms in families(study.config["arms"]).items():
        for nfe, arm in arms.items():
            cells = [(measure, study.cells(measure, arm)) for measure in study.rewards]
            measured = (_measured(some, measure) for measure, some in cells)
            rows.append((family, nfe, study.account(arm), _prompts(cells[0][1]), *measured))
    columns = ("method", "budget, NFE", "jobs", "prompts", *(measure.label for measure in study.rewards))
    return Table(
        "Rewards against budget", columns, tuple(rows), (BUDGETS_NOTE, INTERVALS_NOTE, study.missing), labels=2
    )


def differences(study: Study) -> Table:
    """Every arm less the first that searches, pair by pair."""
    base = study.first_search
    rows: list[tuple[Cell, ...]] = []
    for arm in (arm for arm in study.arms if arm != base):
        pairs = [difference(study.cells(m, arm), study.cells(m, base)) for m in study.rewards]
        rows.append((arm, pairs[0].pairs, *(pair.interval for pair in pairs)))
    columns = ("arm", "pairs", *(measure.label for measure in study.rewards))
    note = f"Differences to {base} over the pairs (a prompt and a seed) that both arms have."
    return Table(f"Paired differences to {base}", columns, tuple(rows), (note, INTERVALS_NOTE, study.missing))


def win_rates(study: Study, measure: Measure) -> Table:
    """Every arm against every other."""
    found = estimates.win_rates(study, measure)
    rows = tuple(
        (arm, *(None if other == arm else found[arm, other].interval for other in study.arms))
        for arm in study.arms
        if found
    )
    pairs = sorted({won.pairs for won in found.values()})
    note = (
        "The share of pairs (a prompt and a seed) that the arm of the row wins against that of the column; a tie is "
        f"half a win. Pairs that two arms have: {', '.join(map(str, pairs))}."
    )
    return Table(f"Win rates, {measure.label}", ("arm", *study.arms), rows, (note, INTERVALS_NOTE, study.missing))


def equal_cost(study: Study, field: str) -> Table:
    """The best reward so far: at quarters of the least that a search may spend, at doublings of it, and at the end.

    Args:
        study: Whose.
        field: ``nfe``, where the end is every arm's own budget, and the most that any job spent; or ``seconds``, where
            a search may spend what it did.
    """
    seconds = field == "seconds"
    grid = _times(study) if seconds else _budgets(study)
    rows: list[tuple[Cell, ...]] = []
    for arm, (x, found) in best_so_far(study, grid, seconds=seconds).items():
        at = zip(found.mean.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
        known = {key: Interval(*three, found.n) for key, three in zip(x.tolist(), at, strict=True)}
        rows.append((arm, *(known.get(key) for key in grid.tolist())))
    unit = "s" if seconds else "NFE"
    ended = "Empty where an arm has nothing yet, or has ended."
    timed = (seconds_note(study), EVEN_TIME_NOTE) if seconds else ()
    title = f"Best {study.given.name} so far at equal {'wall time' if seconds else 'NFE'}"
    columns = ("arm", *(f"{_short(x)} {unit}" for x in grid))
    return Table(title, columns, tuple(rows), (BEST_SO_FAR_NOTE, *timed, ended, INTERVALS_NOTE, study.missing))


def _short(x: float) -> str:
    """Three digits, or all of a whole number."""
    return f"{x:.0f}" if x >= 100 or x == round(x) else f"{x:.3g}"


def _budgets(study: Study) -> NDArray[np.float64]:
    budgets = [nfe for arm, nfe in study.budgets.items() if study.of(arm)]
    most = max(largest(study, "nfe"), *budgets, 0)
    return np.unique(np.floor([*_rising(min(budgets, default=most), most), *budgets, most]))


def _times(study: Study) -> NDArray[np.float64]:
    most = largest(study, "seconds")
    spent = [max(float(entry["seconds"]) for entry in study.of(arm)) for arm in study.budgets if study.of(arm)]
    rising = _rising(min((one for one in spent if one), default=most), most)
    return np.array([*(x for x in rising if _short(x) != _short(most)), most])


def _rising(least: float, most: float) -> list[float]:
    """Quarters of the least, and doublings of it up to the most."""
    return [*(least * k / 4 for k in range(1, 5)), *(least * 2.0**k for k in range(1, int(np.log2(most / least)) + 1))]


def costs(study: Study) -> Table:
    """What a job of every arm spent."""
    rows = tuple((arm, *(estimate(study.cells(m, arm)) for m in study.spent)) for arm in study.arms)
    columns = ("arm", *(measure.label for measure in study.spent))
    return Table("Costs", columns, rows, ("Of one job.", seconds_note(study), INTERVALS_NOTE, study.missing))


def diversity(study: Study) -> Table:
    """Of samples that set out from one noise, where it was measured: what a search has to choose from."""
    found: dict[str, Cells] = {}
    for entry in study.diversity:
        found.setdefault(entry["arm"], {})[prompt_of(entry), int(entry["seed"])] = entry["diversity"]
    rows = tuple((arm, _prompts(cells), estimate(cells)) for arm, cells in found.items())
    told = study.config.get("diversity") or {}
    note = (
        f"Mean pairwise distance ('{told.get('distance')}') of {told.get('trajectories')} trajectories a prompt that "
        "part from one noise and move as the arm does, without its search; of arms that move alike the first stands "
        "for all."
    )
    return Table("Diversity", ("arm", "prompts", "mean pairwise distance"), rows, (note, INTERVALS_NOTE))


def sequential(study: Study) -> Table:
    """Figures of sequential Monte Carlo, of the arms that have any."""
    figures: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "log Z": lambda told: told["log_z"],
        "smallest ESS": lambda told: min(told["ess"]),
        "resamplings": lambda told: told["resamplings"],
        "first ancestors left": lambda told: told["ancestors"],
    }
    measures = [Measure(name, "spent", _of_populations(of)) for name, of in figures.items()]
    rows = []
    for arm in study.arms:
        told = [estimate(study.cells(measure, arm)) for measure in measures]
        if any(told):
            rows.append((arm, *told))
    note = "Of one job; first ancestors left are the particles at the start that any at the end descends from."
    title = "Sequential Monte Carlo"
    return Table(title, ("arm", *figures), tuple(rows), (note, INTERVALS_NOTE, study.missing))


def _of_populations(figure: Callable[[Mapping[str, Any]], float]) -> Callable[[Entry], float | None]:
    def of(entry: Entry) -> float | None:
        told = [figure(one) for one in entry["diagnostics"] if one.get("ess") and one["log_z"] is not None]
        return float(np.mean(told)) if told else None

    return of


def compared(first: Study, second: Study) -> list[Table]:
    """What differs between two runs: settings, and the rewards of arms that both have, pair by pair."""
    found, theirs = [], {measure.title: measure for measure in second.rewards}
    shared = [(measure, theirs[measure.title]) for measure in first.rewards if measure.title in theirs]
    for arm in (arm for arm in first.arms if arm in second.arms and shared):
        pairs = [difference(second.cells(b, arm), first.cells(a, arm)) for a, b in shared]
        found.append((arm, pairs[0].pairs, *(pair.interval for pair in pairs)))
    notes = (
        "The second run less the first, over the pairs (a prompt and a seed) that both have.",
        INTERVALS_NOTE,
        f"First run: {first.missing} Second run: {second.missing}",
    )
    columns = ("arm", "pairs", *(measure.title for measure, _ in shared))
    settings = tuple(_different(_settings(first), _settings(second)))
    return [
        Table("Settings that differ", ("setting", "first run", "second run"), settings),
        Table("Paired differences, arm by arm", columns, tuple(found), notes),
    ]


def _settings(study: Study) -> dict[str, str]:
    """All that was set, and the versions that ran it, each under a name with dots."""
    versions: dict[str, list[str]] = {}
    for entry in study.done:
        for name, version in entry["versions"].items():
            versions[name] = list(dict.fromkeys([*versions.get(name, []), version]))
    arms = {arm["name"]: arm for arm in study.config["arms"]}
    return dict(_flat(study.config | {"arms": arms, "versions": versions}))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else key)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)


def _different(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterable[tuple[Cell, ...]]:
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            yield name, ours.get(name), theirs.get(name)

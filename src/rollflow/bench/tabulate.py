"""The tables of a study, and those of two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from rollflow.bench.analysis import METHOD, best_so_far, difference, estimate, largest, win_rate
from rollflow.bench.statistics import Interval
from rollflow.bench.study import Cells, Entry, Measure, Study
from rollflow.bench.typeset import Cell, Table

BEST = (
    "The best reward of any clean sample seen until then, estimates on the way included, so that it can lie above that "
    "of the sample returned."
)
SECONDS = (
    "Seconds are those that a job spent in calls of model, decoder and reward, of a shared call its rows' share; each "
    "NFE of a job is taken for an equal share of its time. Of a job that was resumed, the time before is not known."
)


def tables(study: Study) -> list[Table]:
    """All of them; those that have nothing to say are left out."""
    return [table for table in _tables(study) if table.rows]


def _tables(study: Study) -> Iterator[Table]:
    yield results(study)
    if len(study.categories) > 1:
        yield by_category(study)
    yield differences(study)
    for measure in (study.given, *study.held_out):
        yield win_rates(study, measure)
    yield equal_cost(study, "nfe")
    if largest(study, "seconds") > 0:
        yield equal_cost(study, "seconds")
    yield costs(study)
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
    return Table("Rewards", columns, tuple(rows), (METHOD, study.missing))


def by_category(study: Study) -> Table:
    """The same, category by category."""
    rows: list[tuple[Cell, ...]] = []
    for category in study.categories:
        for arm in study.arms:
            cells = [(measure, study.cells(measure, arm, category)) for measure in study.rewards]
            told = (_measured(some, measure) for measure, some in cells)
            rows.append((category or "none", arm, _prompts(cells[0][1]), *told))
    columns = ("category", "arm", "prompts", *(measure.label for measure in study.rewards))
    return Table("Rewards by category", columns, tuple(rows), (METHOD, study.missing), labels=2)


def differences(study: Study) -> Table:
    """Every arm less the first that searches, pair by pair."""
    base = study.first_search
    rows: list[tuple[Cell, ...]] = []
    for arm in (arm for arm in study.arms if arm != base):
        pairs = [difference(study.cells(m, arm), study.cells(m, base)) for m in study.rewards]
        rows.append((arm, pairs[0].pairs, *(pair.interval for pair in pairs)))
    columns = ("arm", "pairs", *(measure.label for measure in study.rewards))
    note = f"Differences to {base} over the pairs (a prompt and a seed) that both arms have."
    return Table(f"Paired differences to {base}", columns, tuple(rows), (note, METHOD, study.missing))


def win_rates(study: Study, measure: Measure) -> Table:
    """Every arm against every other."""
    cells = {arm: study.cells(measure, arm) for arm in study.arms}
    rows = tuple(
        (arm, *(None if other == arm else win_rate(cells[arm], cells[other]).interval for other in cells))
        for arm in cells
        if len(cells) > 1
    )
    pairs = sorted({len(cells[a].keys() & cells[b].keys()) for a, b in combinations(cells, 2)})
    note = (
        "The share of pairs (a prompt and a seed) that the arm of the row wins against that of the column; a tie is "
        f"half a win. Pairs that two arms have: {', '.join(map(str, pairs))}."
    )
    return Table(f"Win rates, {measure.label}", ("arm", *cells), rows, (note, METHOD, study.missing))


def equal_cost(study: Study, field: str) -> Table:
    """The best reward so far: at quarters of what the least spending search spent, then at twice that, and so on.

    Args:
        study: Whose.
        field: ``nfe`` or ``seconds``.
    """
    seconds, most = field == "seconds", largest(study, field)
    spent = [max(entry[field] for entry in study.of(arm)) for arm in study.searches if study.of(arm)]
    least = min((amount for amount in spent if amount), default=most)
    doublings = least * 2.0 ** np.arange(1, int(np.log2(most / least)) + 1)
    grid = np.concatenate([least * np.arange(1, 5) / 4, doublings])
    grid = grid if seconds else np.unique(np.floor(grid))
    found = best_so_far(study, grid, seconds=seconds)
    rows = []
    for arm, curve in found.items():
        known = {x: Interval(*map(float, row)) for x, *row in zip(curve.x, *curve.bands, strict=True)}
        rows.append((arm, *(known.get(x) for x in grid)))
    unit = "s" if seconds else "NFE"
    notes = (BEST, *((SECONDS,) if seconds else ()), "Empty where an arm has nothing yet, or has ended.", METHOD)
    title = f"Best {study.given.name} so far at equal {'wall time' if seconds else 'NFE'}"
    columns = ("arm", *(f"{x:.3g} {unit}" for x in grid))
    return Table(title, columns, tuple(rows), (*notes, study.missing))


def costs(study: Study) -> Table:
    """What a job of every arm spent."""
    rows = tuple((arm, *(estimate(study.cells(m, arm)) for m in study.spent)) for arm in study.arms)
    columns = ("arm", *(measure.label for measure in study.spent))
    note = "Of one job; seconds in calls of model, decoder and reward, of a shared call its rows' share."
    return Table("Costs", columns, rows, (note, METHOD, study.missing))


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
    return Table(title, ("arm", *figures), tuple(rows), (note, METHOD, study.missing))


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
        METHOD,
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

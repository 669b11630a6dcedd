"""The page on searches at several budgets: what each reaches, and how much it needs for what best of N reaches."""

from __future__ import annotations

from collections.abc import Iterator

from rollflow.bench.analysis.estimates import INTERVALS_NOTE, estimate
from rollflow.bench.analysis.results import ExperimentResults, Measure
from rollflow.bench.analysis.searches import (
    Reference,
    Searches,
    defaults_of,
    less,
    measures_of,
    nfe_needed,
    reference_of,
    searches_of,
)
from rollflow.bench.equal_reward import EQUAL_REWARD_NOTE, needed_text
from rollflow.errors import RollflowError
from rollflow.models import MODELS
from rollflow.registry import settings_of
from rollflow.report.tables import seconds_note
from rollflow.report.typeset import Cell, Table, markdown, plain, quoted

POOLED = " pooled"
"""End of the name of a search whose prompts share a budget."""


def searches_markdown(results: ExperimentResults, figure: str) -> str:
    """Return the page of an experiment whose arms are searches at several budgets.

    Args:
        results: Results of the experiment.
        figure: Address of its figure.

    Raises:
        RollflowError: If no arm is called by its search and its budget.
    """
    tables = markdown(searches_tables(results))
    origin = f"Of the experiment that {quoted(results.command)} ran; w" if results.command else "W"
    return f"""\
# Searches against budget, {plain(results.config["model"])}

{origin}ritten by `rollflow bench searches`.

{plain(setting(results))}

![Given and held-out rewards against budget]({figure})

{tables}"""


def searches_tables(results: ExperimentResults) -> list[Table]:
    """Return the tables of the page that are not empty.

    Raises:
        RollflowError: If no arm is called by its search and its budget.
    """
    return [table for table in _tables(results, _searches(results)) if table.rows]


def _searches(results: ExperimentResults) -> Searches:
    searches = searches_of(results)
    if not searches:
        raise RollflowError(
            f"'{results.name}' has no finished arms that are called by a search and its budget, such as 'SVDD, 50'; "
            "run the preset hard, or use 'rollflow report'"
        )
    return searches


def _tables(results: ExperimentResults, searches: Searches) -> Iterator[Table]:
    reference = reference_of(results, searches)
    if reference is not None:
        yield equal_reward(results, searches, reference)
    for measure in measures_of(results):
        yield by_budget(results, searches, measure)
    for default in defaults_of(searches):
        yield differences(results, searches, default)
    yield shared_budgets(results, searches)
    if reference is not None:
        yield across_budgets(results, searches, reference)
    yield costs(results, searches)


def summary(results: ExperimentResults) -> Table:
    """Return one table of every search: the NFE it needs, and what it reaches at the budgets that most searches have.

    Raises:
        RollflowError: If no arm is called by its search and its budget.
    """
    searches, measures = _searches(results), measures_of(results)
    reference = reference_of(results, searches)
    budgets = sorted({nfe for arms in searches.values() for nfe in arms})
    common = [nfe for nfe in budgets if 2 * sum(nfe in arms for arms in searches.values()) > len(searches)]
    columns, rows = ["search"], {name: list[Cell]() for name in searches}
    for measure in measures:
        if reference is not None:
            columns.append(f"NFE for {reference.name} at {reference.nfe} NFE: {measure.label}")
            for name, arms in searches.items():
                rows[name].append(needed_text(nfe_needed(results, measure, arms, reference), sorted(arms)))
    for measure in measures:
        for nfe in common:
            columns.append(f"{measure.label}, {nfe} NFE")
            for name, arms in searches.items():
                cells = results.cells(measure, arms[nfe]) if nfe in arms else {}
                rows[name].append(estimate(cells, shares=measure.accuracy))
    notes = (EQUAL_REWARD_NOTE, INTERVALS_NOTE) if reference is not None else (INTERVALS_NOTE,)
    return Table("Summary", tuple(columns), tuple((name, *cells) for name, cells in rows.items()), notes)


def setting(results: ExperimentResults) -> str:
    """Return a sentence on the model, its numbers, the rewards, the prompts and the seeds."""
    config, suite = results.config, results.config["suite"]
    first = config.get("first_seed", 0)
    held = ", ".join(config["held_out"]) or "none"
    version = f", version {suite['version']}" if suite["version"] else ""
    return (
        f"Model {config['model']}, computing in {dtype_of(config)}; given reward {config['reward']}, held-out {held}; "
        f"{suite['prompts']} prompts of {suite['name']}{version}; seeds {first} to {first + config['seeds'] - 1}. "
        f"{results.missing}"
    )


def dtype_of(config: dict[str, object]) -> str:
    """Return the type of numbers that the model of an experiment computes with, as far as its configuration says."""
    pipeline = config.get("pipeline")
    if isinstance(pipeline, dict) and pipeline.get("dtype"):
        return str(pipeline["dtype"])
    name, given = str(config["model"]).partition("(")[0].strip(), dict[str, str]()
    if name not in MODELS.names():
        return "the type of its weights"
    if "(" in str(config["model"]):
        _, given = MODELS.split(str(config["model"]))
    declared = settings_of(MODELS.find(name)).get("dtype")
    return given.get("dtype") or (str(declared.default) if declared is not None else "the type of its weights")


def by_budget(results: ExperimentResults, searches: Searches, measure: Measure) -> Table:
    """Return the table of a measure, by search and budget."""
    budgets = sorted({nfe for arms in searches.values() for nfe in arms})
    rows: list[tuple[Cell, ...]] = []
    for name, arms in searches.items():
        cells = [results.cells(measure, arms[nfe]) if nfe in arms else {} for nfe in budgets]
        rows.append((name, *(estimate(each, shares=measure.accuracy) for each in cells)))
    columns = ("search", *(f"{nfe} NFE" for nfe in budgets))
    return Table(_headline(measure), columns, tuple(rows), (INTERVALS_NOTE,))


def _headline(measure: Measure) -> str:
    return measure.label[:1].upper() + measure.label[1:]


def equal_reward(results: ExperimentResults, searches: Searches, reference: Reference) -> Table:
    """Return the table of the NFE that every search needs for the reference's mean."""
    measures = measures_of(results)
    rows = tuple(
        (name, *(needed_text(nfe_needed(results, m, arms, reference), sorted(arms)) for m in measures))
        for name, arms in searches.items()
    )
    columns = ("search", *(measure.label for measure in measures))
    return Table(f"NFE for {reference.name} at {reference.nfe} NFE", columns, rows, (EQUAL_REWARD_NOTE,))


def differences(results: ExperimentResults, searches: Searches, default: str) -> Table:
    """Return the table of what a search has more than every other, at equal budgets."""
    measures, own = measures_of(results), searches[default]
    shared = {name: [nfe for nfe in arms if nfe in own] for name, arms in searches.items() if name != default}
    budgets = sorted({nfe for each in shared.values() for nfe in each})
    rows: list[tuple[Cell, ...]] = []
    for name, common in shared.items():
        pairs = [
            less(results, measure, own[nfe], searches[name][nfe]) if nfe in common else None
            for measure in measures
            for nfe in budgets
        ]
        rows.append((name, *(None if pair is None else pair.interval for pair in pairs)))
    columns = ("search", *(f"{measure.label}, {nfe} NFE" for measure in measures for nfe in budgets))
    note = f"{default} minus the search of the row, paired by prompt and seed."
    return Table(f"{default} minus each search", columns, tuple(rows) if budgets else (), (note, INTERVALS_NOTE))


def shared_budgets(results: ExperimentResults, searches: Searches) -> Table:
    """Return the table of the NFE that a search needs for what it reaches if all prompts share a budget."""
    measures = measures_of(results)
    rows: list[tuple[Cell, ...]] = []
    for name in (name for name in searches if name.endswith(POOLED) and name.removesuffix(POOLED) in searches):
        even = searches[name.removesuffix(POOLED)]
        for nfe, arm in searches[name].items():
            found = [nfe_needed(results, measure, even, Reference(name, nfe, arm)) for measure in measures]
            rows.append((name, nfe, *(needed_text(one, sorted(even)) for one in found)))
    note = "NFE that the same search needs with an even split for the mean that it reaches with a shared budget."
    columns = ("search", "NFE", *(measure.label for measure in measures))
    title = "NFE of an even split for what a shared budget reaches"
    return Table(title, columns, tuple(rows), (note, EQUAL_REWARD_NOTE), labels=2)


def across_budgets(results: ExperimentResults, searches: Searches, reference: Reference) -> Table:
    """Return the table of what the default search with each of its budgets has more than the reference."""
    measures = measures_of(results)
    rows: list[tuple[Cell, ...]] = [
        (name, nfe, *(less(results, measure, arm, reference.arm).interval for measure in measures))
        for name in defaults_of(searches)
        for nfe, arm in searches[name].items()
    ]
    title = f"The default minus {reference.name} at {reference.nfe} NFE"
    note = f"The search of the row minus {reference.arm}, paired by prompt and seed."
    columns = ("search", "NFE", *(measure.label for measure in measures))
    return Table(title, columns, tuple(rows), (note, INTERVALS_NOTE), labels=2)


def costs(results: ExperimentResults, searches: Searches) -> Table:
    """Return the table of what a job of each search and budget spends."""
    spent = {one.name: one for one in results.spent}
    decodes = Measure("decodes", "spent", lambda record: record.decodes)
    shown = [spent["NFE"], spent["reward calls"], decodes, spent["seconds"]]
    rows: list[tuple[Cell, ...]] = [
        (name, nfe, *(estimate(results.cells(measure, arm)) for measure in shown))
        for name, arms in searches.items()
        for nfe, arm in arms.items()
    ]
    columns = ("search", "budget, NFE", *(measure.name for measure in shown))
    return Table("Costs", columns, tuple(rows), ("Of one job.", seconds_note(results), INTERVALS_NOTE), labels=2)

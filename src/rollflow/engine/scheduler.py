"""Whose turn it is, of the populations that wait for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rollflow.engine.executor import Query
from rollflow.engine.population import Population
from rollflow.requests import Grad, Request, Reward


class Slice(NamedTuple):
    """What is answered of a population's request now.

    Args:
        live: The population.
        asked: The request, or the part of it that has its turn.
        rows: Of that.
    """

    live: Population
    asked: Query
    rows: int


def fill_batches(group: Sequence[Population], most: int) -> list[Slice]:
    """Whose turn it is among those who can share calls of ``most`` rows, so that no call has room left.

    First come, first served; of the last, only as many rows as there is room for. But the populations of a job with
    caps have their turns together and in whole (see ``cohorts``), whether that fills a call or not.
    """
    capped = [live for live in group if live.run.job.capped]
    others = [live for live in group if not live.run.job.capped]
    waiting, urgent = (sum(live.rows for live in some) for some in (group, capped))
    room = max(waiting // most * most, min(waiting, -(-urgent // most) * most))
    chosen = []
    for live in (*capped, *others):
        rows = min(live.rows, room)
        if rows:
            chosen.append(Slice(live, live.asked(rows), rows))
        room -= rows
    return chosen


def batch_groups(kind: type[Request], waiting: Sequence[Population]) -> list[list[Population]]:
    """Of those who wait for an answer of one kind, who can share a call: those of one model, and of one judge."""
    groups: dict[tuple[int, int | None], list[Population]] = {}
    for live in waiting:
        task = live.run.job.task
        judge = id(task.reward) if kind in (Reward, Grad) else None
        groups.setdefault((id(task.model), judge), []).append(live)
    return list(groups.values())


def overlap_half(flying: Sequence[Population], waiting: Sequence[Population]) -> list[Population]:
    """Who have their turn with the network so that about half of all their rows, and of those that fly, then do.

    Args:
        flying: Who wait for rewards.
        waiting: Who wait for the network.
    """
    left = sum(live.rows for live in (*flying, *waiting)) / 2
    turn: list[Population] = []
    for party in cohorts(flying, waiting):
        if left > 0:
            turn += party
            left -= sum(live.rows for live in party)
    return turn


def cohorts(flying: Sequence[Population], waiting: Sequence[Population]) -> list[list[Population]]:
    """Of those who wait for the network, who have their turns together.

    That is each by itself, but all the populations of a job with caps, none of which may be ahead of the others then:
    what one spends the others cannot, so that where a cap ends the job would depend on its company.

    Args:
        flying: Who wait for rewards.
        waiting: Who wait for the network.
    """
    behind = {id(live.run) for live in flying if live.run.job.capped}
    together: dict[int, list[Population]] = {}
    for live in waiting:
        if id(live.run) not in behind:
            together.setdefault(id(live.run if live.run.job.capped else live), []).append(live)
    return list(together.values())

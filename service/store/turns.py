"""Whose turn it is: the queued unit that goes out next, so that no project and no sweep starves another.

The project with the fewest leases goes first, among equals the one that was served longest ago. Within a project it is
the same between sweeps, where a weight is a share: with weight 4 a sweep may hold four leases where another holds one,
and is served four times as often. What waits gains on the others all the time, so the smallest share comes too.

Distinct projects and sweeps are found by steps through an index, not by reading the units: a queue of 10,000 units of
one sweep costs as much as a queue of one.
"""

from functools import cache
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from service.domain.states import UnitState
from service.store.clock import now
from service.store.tables import UnitRow


@cache  # each claim asks: the statement is put together once
def next_in_turn(queue: str) -> Select[str]:
    """The id of the unit whose turn it is in this queue, locked; what another claim holds at this moment is skipped."""
    waits = (UnitRow.state == UnitState.QUEUED, UnitRow.queue == queue)
    project = _first_project(queue, *waits).cte("project")
    of_project = (*waits, UnitRow.project_id == select(project.c.value).scalar_subquery())
    subject = _first_subject(*of_project).cte("subject")
    return (
        select(UnitRow.id)
        .where(*of_project, UnitRow.subject_id == select(subject.c.value).scalar_subquery())
        .order_by(UnitRow.created_at, UnitRow.ordinal)
        .limit(1)
        .with_for_update(skip_locked=True, of=UnitRow)
    )


@cache
def any_queued(queue: str) -> Select[str]:
    """The id of any queued unit of this queue that no other claim holds at this moment, locked."""
    waits = select(UnitRow.id).where(UnitRow.state == UnitState.QUEUED, UnitRow.queue == queue)
    return waits.limit(1).with_for_update(skip_locked=True, of=UnitRow)


def _first_project(queue: str, *waits: ColumnElement[bool]) -> Select[Any]:
    projects = _distinct("projects_that_wait", UnitRow.project_id, *waits)
    other = aliased(UnitRow)
    mine = (other.queue == queue, other.project_id == projects.c.value)
    running = select(func.count()).where(other.state == UnitState.LEASED, *mine)
    served = select(func.max(other.started_at)).where(*mine)
    order = (
        running.correlate(projects).scalar_subquery(),
        func.coalesce(served.correlate(projects).scalar_subquery(), 0.0),
        projects.c.value,
    )
    return select(projects.c.value).where(projects.c.value.is_not(None)).order_by(*order).limit(1)


def _first_subject(*waits: ColumnElement[bool]) -> Select[Any]:
    subjects = _distinct("subjects_that_wait", UnitRow.subject_id, *waits)
    other = aliased(UnitRow)
    of_it = other.subject_id == subjects.c.value
    running = select(func.count()).where(other.state == UnitState.LEASED, of_it)
    served = select(func.max(other.started_at)).where(of_it)
    weight = select(UnitRow.weight).where(*waits, UnitRow.subject_id == subjects.c.value).limit(1)
    oldest = select(func.min(UnitRow.created_at)).where(*waits, UnitRow.subject_id == subjects.c.value)
    running_, served_, weight_, oldest_ = (
        each.correlate(subjects).scalar_subquery() for each in (running, served, weight, oldest)
    )
    waited = now() - func.coalesce(served_, oldest_)
    order = (running_ / weight_, (weight_ * waited).desc(), subjects.c.value)
    return select(subjects.c.value).where(subjects.c.value.is_not(None)).order_by(*order).limit(1)


def _distinct(name: str, column: InstrumentedAttribute[str], *waits: ColumnElement[bool]) -> CTE:
    """The distinct values of the column, and a NULL after the last: each step looks for the next one in the index."""
    found = select(func.min(column).label("value")).where(*waits).cte(name, recursive=True)
    following = select(func.min(column)).where(*waits, column > found.c.value).correlate(found).scalar_subquery()
    return found.union_all(select(following).where(found.c.value.is_not(None)))

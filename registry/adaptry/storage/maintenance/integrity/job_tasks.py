"""Jobs and schedules in the catalog: whether each task is still valid."""

from __future__ import annotations

import json
from collections.abc import Iterator

from adaptry.registry.job_types.tasks import parse_task
from adaptry.storage.catalog import jobs, schedules
from adaptry.storage.catalog.audit import IntegrityProblem
from adaptry.storage.catalog.audit.problem import UNREADABLE, guard_problems
from adaptry.storage.catalog.database import Catalog


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        asked = [(f"job {id}", kind, task, whose) for id, kind, task, whose in jobs.orders(tx)]
    for one in asked:
        yield from _problem(*one)
    yield from guard_problems("schedules", lambda: _of_schedules(catalog))


def _of_schedules(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        found = schedules.every(tx)
    for one in found:
        yield from _problem(f"schedule {one.name}", one.order.kind, json.dumps(one.order.task), one.namespace)


def _problem(where: str, kind: str, task: str, namespace: str) -> Iterator[IntegrityProblem]:
    try:
        parsed = parse_task(kind, json.loads(task))
    except UNREADABLE as error:
        yield IntegrityProblem(where, f"its task is invalid: {str(error)[:200]}")
        return
    if parsed.namespace != namespace:
        yield IntegrityProblem(
            where, f"its namespace is {namespace!a}, and its task is {parsed.namespace!a}'s"
        )

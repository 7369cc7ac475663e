"""Single values: whether each is of its column's type, and of those that the column can have.

Rows are read as the database has them, past every conversion, so that a value that no reader could convert is
found by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, Table, text

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.identity import BaseVisibility, Role, Visibility
from adaptry.core.lifecycle import STATE_RULES, WITHDRAWN
from adaptry.core.refs import AdapterName, parse_base_name, parse_stored_alias
from adaptry.registry.job_types.cron import Cron
from adaptry.registry.job_types.records import DEVICES, JobFault, JobNeeds, JobOrder, JobState
from adaptry.registry.records import BaseStatus
from adaptry.registry.rollouts import RolloutPlan, RolloutStage
from adaptry.registry.workers import Condition
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import Moment, Row

Test = Callable[[Any], bool]
"""Whether a value can be; may raise, which means no. (`Any`: whatever lies in the column.)"""

_SKIPPED = frozenset({"postings", "terms"})
"""Derived as a whole, and compared with what they are derived from."""
_BY_TYPE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?")
_HEX = re.compile(r"[0-9a-f]{64}")


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    for table in Row.metadata.sorted_tables:
        if table.name not in _SKIPPED:
            yield from _of_table(catalog, table)


def _of_table(catalog: Catalog, table: Table) -> Iterator[IntegrityProblem]:
    tests = {column.name: _test_of(table, column) for column in table.columns}
    keys = [column.name for column in table.primary_key.columns]
    with catalog.read() as tx:
        names = ", ".join(f'"{name}"' for name in tests)
        rows = tx.connection().execute(text(f'SELECT {names} FROM "{table.name}"'))
        for row in rows.mappings():
            key = ", ".join(str(row[part])[:80] for part in keys)
            for name, test in tests.items():
                if not _passes(test, row[name]):
                    is_derived = f"{table.name}.{name}" in _DERIVED
                    yield IntegrityProblem(
                        f"{table.name} ({key})",
                        f"{name} has the invalid value {ascii(row[name])[:120]}",
                        "derived" if is_derived else "row",
                        f"version:{row[keys[0]]}" if is_derived else f"{table.name}:{key}",
                    )
            if (whole := _ROWS.get(table.name)) and not _passes(whole, row):
                yield IntegrityProblem(f"{table.name} ({key})", "its values contradict each other")


def _passes(test: Test, value: Any) -> bool:
    try:
        return test(value)
    except (AdaptryError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        return False


def _test_of(table: Table, column: Column[Any]) -> Test:
    special = _VALUES.get(f"{table.name}.{column.name}")
    test = special or _type_test(column)
    if column.nullable:
        return lambda value: value is None or test(value)
    return lambda value: value is not None and test(value)


def _type_test(column: Column[Any]) -> Test:
    match column.type:
        case Moment():
            return _is_moment
        case Boolean():
            return lambda value: value in (0, 1)
        case Integer() | BigInteger():
            return lambda value: type(value) is int and value >= 0
        case Float():
            return lambda value: isinstance(value, int | float) and math.isfinite(value)
        case LargeBinary():
            return lambda value: isinstance(value, bytes | memoryview)
    return lambda value: isinstance(value, str)


def _is_moment(value: Any) -> bool:
    if isinstance(value, datetime):
        return True
    return _BY_TYPE.fullmatch(value) is not None and datetime.fromisoformat(value).year >= 2000


def _among(*values: str) -> Test:
    return lambda value: value in values


def _matches(pattern: str) -> Test:
    compiled = re.compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


def _reads(read: Callable[[str], object]) -> Test:
    """A value that `read` does not refuse."""

    def test(value: Any) -> bool:
        read(value)
        return True

    return test


def _owner(value: str) -> object:
    return Digest.parse(value) if value.startswith("sha256:") else AdapterName.parse(value)


def _is_list_of_texts(value: str) -> bool:
    return all(isinstance(item, str) for item in json.loads(value))


def _is_map(value: str) -> bool:
    return isinstance(json.loads(value), dict)


def _steps(value: str) -> object:
    return RolloutPlan(steps=tuple(json.loads(value)))


_digest: Test = lambda value: _HEX.fullmatch(value) is not None  # noqa: E731  # one of a table of tests
_positive: Test = lambda value: type(value) is int and value >= 1  # noqa: E731
_VALUES: Mapping[str, Test] = {
    "adapters.name": _reads(AdapterName.parse),
    "adapters.tags": _is_list_of_texts,
    "adapters.visibility": _among(*get_args(Visibility)),
    "adapters.next_number": _positive,
    "aliases.alias": _reads(parse_stored_alias),
    "aliases.generation": _positive,
    "answers.answer": _reads(json.loads),
    "base_files.base_id": _digest,
    "base_files.digest": _digest,
    "base_names.name": _reads(parse_base_name),
    "base_names.base_id": _digest,
    "bases.id": _digest,
    "bases.architecture": _digest,
    "bases.visibility": _among(*get_args(BaseVisibility)),
    "commits.digest": _digest,
    "damaged_files.digest": _digest,
    "damaged_revisions.revision": _digest,
    "damaged_revisions.file": _digest,
    "epochs.id": _matches(r"[0-9a-f]{16}"),
    "epochs.secret": _digest,
    "events.detail": _is_map,
    "events.name": _reads(AdapterName.parse),
    "files.owner": _reads(_owner),
    "files.digest": _digest,
    "job_schedules.by_role": _among(*get_args(Role)),
    "job_schedules.by_namespaces": _is_list_of_texts,
    "job_schedules.cron": _reads(Cron.parse),
    "job_schedules.ordered": _reads(JobOrder.model_validate_json),
    "job_steps.result": _is_map,
    "jobs.id": _matches(r"job-[0-9a-f]{16}"),
    "jobs.task": _is_map,
    "jobs.state": _among(*get_args(JobState)),
    "jobs.needs": _reads(JobNeeds.model_validate_json),
    "jobs.priority": lambda value: value in range(1, 10),
    "jobs.tries": _positive,
    "jobs.result": _is_map,
    "jobs.fault": _reads(JobFault.model_validate_json),
    "jobs.by_role": _among(*get_args(Role)),
    "jobs.by_namespaces": _is_list_of_texts,
    "inspections.file_digest": _digest,
    "inspections.inspection": _positive,
    "leaving.digest": _digest,
    "marks.kind": _among("branch", "tag"),
    "recall_claims.name": _reads(AdapterName.parse),
    "recall_claims.digest": _digest,
    "recall_claims.state": _among(*WITHDRAWN),
    "residents.condition": _among(*get_args(Condition)),
    "revisions.digest": _digest,
    "rollouts.alias": _reads(parse_stored_alias),
    "rollouts.steps": _reads(_steps),
    "rollouts.stage": _among(*get_args(RolloutStage)),
    "rollouts.was_digest": _digest,
    "rollouts.generation": _positive,
    "runners.devices": _is_list_of_texts,
    "runners.tags": _is_list_of_texts,
    "runners.concurrency": _positive,
    "tokens.secret_sha256": _digest,
    "tokens.last_four": _matches(r"[A-Za-z0-9]{4}"),
    "tokens.kind": _matches(r"[a-z]{2,8}"),
    "tokens.role": _among(*get_args(Role)),
    "tokens.namespaces": _is_list_of_texts,
    "uploads.id": _matches(r"[0-9a-f]{32}"),
    "uploads.owner": _reads(_owner),
    "uploads.digest": _digest,
    "versions.digest": _digest,
    "versions.number": _positive,
    "versions.state": _among(*STATE_RULES),
    "versions.targets": _is_list_of_texts,
    "versions.traits": _is_list_of_texts,
    "versions.weights": _digest,
    "versions.base_id": _digest,
    "versions.base_status": _among(*get_args(BaseStatus)),
    "weights.file_digest": _digest,
    "weights.weights_digest": _digest,
    "workers.troubles": lambda value: isinstance(json.loads(value), list),
}
"""What each column can hold, where that is less than its type."""


def _is_job(row: Mapping[str, Any]) -> bool:
    """A job's state and what it came to."""
    is_over = row["state"] in ("done", "failed", "cancelled")
    return (
        is_over == (row["finished_at"] is not None)
        and (row["state"] == "failed") == (row["fault"] is not None)
        and (row["result"] is None or row["state"] == "done")
        and (row["state"] != "running" or row["started_at"] is not None)
    )


def _is_upload(row: Mapping[str, Any]) -> bool:
    is_base = row["owner"].startswith("sha256:")
    return bool(row["tenant"] == ("bases" if is_base else AdapterName.parse(row["owner"]).namespace))


_DERIVED = frozenset(
    f"versions.{name}"
    for name in (
        "method",
        "rank",
        "targets",
        "traits",
        "parameters",
        "size",
        "weights",
        "base_id",
        "base_name",
        "findings",
    )
)
"""Columns that follow from a version's files, and can be derived anew."""
_ROWS: Mapping[str, Test] = {
    "jobs": _is_job,
    "uploads": _is_upload,
    "runners": lambda row: all(device in DEVICES for device in json.loads(row["devices"])),
    "job_steps": lambda row: row["turn"] > 0 or row["runner"] is None,
    "tokens": lambda row: row["revoked_at"] is None or row["created_at"] <= row["revoked_at"],
}
"""What the values of a row have to do with each other, where nothing else says it."""

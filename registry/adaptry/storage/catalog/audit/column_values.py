"""Single values: whether each has its column's type, and is allowed in it.

Rows are read without conversion, so that a value that no reader could convert is reported with its column.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, Table, text

from adaptry.core.access.conditions import Condition
from adaptry.core.access.grants import check_permission
from adaptry.core.access.resources import Resource
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.evidence.values import Direction, EvidenceFormat
from adaptry.core.gates.policy import Policy
from adaptry.core.identity import BaseVisibility, Visibility
from adaptry.core.lifecycle import STATE_RULES, WITHDRAWN
from adaptry.core.quotas import QuotaScope
from adaptry.core.refs import AdapterName, parse_base_name, parse_stored_alias
from adaptry.registry.access import PrincipalKind
from adaptry.registry.job_types.cron import Cron
from adaptry.registry.job_types.records import DEVICES, JobFailure, JobNeeds, JobOrder, JobState
from adaptry.registry.records import BaseStatus
from adaptry.registry.rollouts import RolloutPlan, RolloutStage
from adaptry.registry.workers import Condition as ResidentCondition
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.evidence import CONTENT
from adaptry.storage.catalog.rights import decode_rights
from adaptry.storage.catalog.rows import Moment, Row

Test = Callable[[Any], bool]
"""Whether a value is allowed; raising an error means no. (`Any`: the raw value of the column.)"""

_SKIPPED = frozenset({"postings", "terms"})
"""Tables that are derived as a whole, and compared with their sources."""
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
    """A test that accepts values that `read` accepts."""

    def test(value: Any) -> bool:
        read(value)
        return True

    return test


def _owner(value: str) -> object:
    return Digest.parse(value) if value.startswith("sha256:") else AdapterName.parse(value)


def _is_list_of_texts(value: str) -> bool:
    return all(isinstance(item, str) for item in json.loads(value))


def _is_list_of_conditions(value: str) -> bool:
    return all(map(Condition.parse, json.loads(value)))


def _is_list_of_permissions(value: str) -> bool:
    return all(map(check_permission, json.loads(value)))


def _is_list_of_resources(value: str) -> bool:
    return all(map(Resource.parse, json.loads(value)))


def _is_rights(value: str) -> bool:
    return bool(decode_rights("somebody", value))


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
    "grants.permission": _reads(check_permission),
    "grants.conditions": _is_list_of_conditions,
    "invitations.code_sha256": _digest,
    "job_schedules.rights": _is_rights,
    "job_schedules.cron": _reads(Cron.parse),
    "job_schedules.ordered": _reads(JobOrder.model_validate_json),
    "job_steps.result": _is_map,
    "jobs.id": _matches(r"job-[0-9a-f]{16}"),
    "jobs.task": _is_map,
    "jobs.state": _among(*get_args(JobState)),
    "jobs.needs": _reads(JobNeeds.model_validate_json),
    "jobs.priority": lambda value: value in range(1, 10),
    "jobs.attempts": _positive,
    "jobs.result": _is_map,
    "jobs.error": _reads(JobFailure.model_validate_json),
    "jobs.rights": _is_rights,
    "inspections.file_digest": _digest,
    "inspections.inspection": _positive,
    "pending_deletes.digest": _digest,
    "marks.kind": _among("branch", "tag"),
    "metric_values.base_id": _digest,
    "metric_values.direction": _among(*get_args(Direction)),
    "metric_values.format": _among(*get_args(EvidenceFormat)),
    "metric_values.file_digest": _digest,
    "metric_values.samples_digest": _digest,
    "policies.alias": _reads(parse_stored_alias),
    "policies.text": _reads(Policy.stored),
    "policies.version": _positive,
    "principals.kind": _among(*get_args(PrincipalKind)),
    "quotas.scope": _among(*get_args(QuotaScope)),
    "recall_claims.name": _reads(AdapterName.parse),
    "recall_claims.digest": _digest,
    "recall_claims.state": _among(*WITHDRAWN),
    "residents.condition": _among(*get_args(ResidentCondition)),
    "revisions.digest": _digest,
    "rollouts.alias": _reads(parse_stored_alias),
    "rollouts.steps": _reads(_steps),
    "rollouts.stage": _among(*get_args(RolloutStage)),
    "rollouts.was_digest": _digest,
    "rollouts.generation": _positive,
    "runners.devices": _is_list_of_texts,
    "runners.tags": _is_list_of_texts,
    "runners.concurrency": _positive,
    "stored_use.scope": _among(*get_args(QuotaScope)),
    "tokens.secret_sha256": _digest,
    "tokens.last_four": _matches(r"[A-Za-z0-9]{4}"),
    "tokens.kind": _matches(r"[a-z]{2,8}"),
    "tokens.permissions": _is_list_of_permissions,
    "tokens.resources": _is_list_of_resources,
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
    "versions.bound_base": _digest,
    "versions.base_status": _among(*get_args(BaseStatus)),
    "weights.file_digest": _digest,
    "weights.weights_digest": _digest,
    "weight_measurements.measurement": _positive,
    "workers.base_id": _digest,
    "workers.problems": lambda value: isinstance(json.loads(value), list),
}
"""The allowed values of each column, if they are fewer than those of its type."""


def _is_job(row: Mapping[str, Any]) -> bool:
    """Whether a job's state and its result fit together."""
    is_over = row["state"] in ("done", "failed", "cancelled")
    return (
        is_over == (row["finished_at"] is not None)
        and (row["state"] == "failed") == (row["error"] is not None)
        and (row["result"] is None or row["state"] == "done")
        and (row["state"] != "running" or row["started_at"] is not None)
    )


def _is_upload(row: Mapping[str, Any]) -> bool:
    is_base = row["owner"].startswith("sha256:")
    return bool(row["tenant"] == ("bases" if is_base else AdapterName.parse(row["owner"]).namespace))


def _is_measurement(row: Mapping[str, Any]) -> bool:
    """Whether a row of a logged metric has no value that only a results file can state."""
    withdrawal = [row[f"withdrawn_{name}"] is None for name in ("at", "by", "reason")]
    if len(set(withdrawal)) != 1:
        return False
    return row["file_digest"] is not None or all(
        row[name] is None
        for name in (*(name for name in CONTENT if name not in ("metric", "value")), "withdrawn_at")
    )


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
"""Columns that can be derived again from a version's files."""
_ROWS: Mapping[str, Test] = {
    "metric_values": _is_measurement,
    "jobs": _is_job,
    "uploads": _is_upload,
    "runners": lambda row: all(device in DEVICES for device in json.loads(row["devices"])),
    "job_steps": lambda row: row["attempt"] > 0 or row["runner"] is None,
    "policies": lambda row: (row["namespace"] is None) != (row["adapter_id"] is None),
    "grants": lambda row: (row["principal_id"] is None) != (row["group_id"] is None),
    "tokens": lambda row: row["revoked_at"] is None or row["created_at"] <= row["revoked_at"],
}
"""Constraints between the values of a row that nothing else checks."""

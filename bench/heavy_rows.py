"""Adds what makes single pages heavy to a filled catalog: an adapter, a base, a fleet, a log, and a group
that are far larger than usual. In SQL, since the reports of ten thousand workers take minutes over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, delete, insert, make_url, select, text, update

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, StateChange
from adaptry.registry.webhooks import WebhookRequest
from adaptry.storage.catalog.rows import (
    AdapterRow,
    AuditEntryRow,
    AuditStateRow,
    EventRow,
    GrantRow,
    GroupMemberRow,
    GroupRow,
    JobRow,
    MetricSummaryRow,
    PrincipalRow,
    ResidentRow,
    Row,
    TokenRow,
    VersionRow,
    WebhookDeliveryRow,
    WorkerRow,
)
from adaptry.storage.catalog.version_info import table_of
from adaptry.testing.samples import tiny_base, tiny_lora

MANY = AdapterName.parse("acme/many")
"""Has `VERSIONS` versions; `prod` is version 2, and version 1 is revoked; all workers had both."""
BASE = "org/model"
"""The newest version of every filled adapter is on it."""
VERSIONS = 10_000
WORKERS = 10_000
JOBS = 100_000
MOVES = 20_000
AUDIT_ENTRIES = 1 << 20  # a complete tree, which has one peak
USERS = 10_000
GROUPS = 500
DELIVERIES = 100_000
_AT = datetime(2026, 11, 1, tzinfo=UTC)
_BATCH = 20_000
_HEX = "{:064x}".format

Values = Mapping[str, Any]
"""A row. (`Any`: values of columns.)"""


def add_heavy_rows(registry: Registry, url: str, folder: Path) -> None:
    """Pushes a few real versions over the registry, and adds the rest in the catalog at `url`."""
    register_base(registry, open_checkpoint(tiny_base(folder / "base", vocab=64)), (BASE,))
    for number in (1, 2, 3):
        made = tiny_lora(folder / f"many-{number}", seed=number, base_name=BASE)
        push(registry, open_dir(made), MANY, options=PushOptions(metrics={"accuracy": number / 10}))
    second = registry.version(f"{MANY}@2")
    registry.aliases.move(MANY, "prod", second.digest, None)
    first = registry.version(f"{MANY}@1")
    registry.versions.set_state(MANY, first.digest, StateChange(state="revoked", reason="a leak"), 0)
    hook = WebhookRequest(namespace="acme", url="https://hooks.example.org/", kinds=("alias.moved",))
    registry.webhooks.set_enabled(registry.webhooks.add(hook).webhook.id, False)
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg") if "postgres" in url else url)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET session_replication_role = replica")
        for add in (
            _versions, _base, _public, _fleet, _jobs, _moves, _people, _deliveries, _audit_entries,
        ):  # fmt: skip
            add(connection)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    engine.dispose()


def _insert(connection: Connection, row: type[Row], values: Iterable[Values]) -> None:
    rest = iter(values)
    while some := [dict(each) for each in islice(rest, _BATCH)]:
        connection.execute(insert(table_of(row)), some)


def _version(connection: Connection, number: int) -> Values:
    versions, adapters = table_of(VersionRow), table_of(AdapterRow)
    joined = select(versions).join(adapters, adapters.c.id == versions.c.adapter_id)
    found = joined.where(adapters.c.name == str(MANY), versions.c.number == number)
    return dict(connection.execute(found).one()._mapping)


def _versions(connection: Connection) -> None:
    model = _version(connection, 3)
    version, adapter = model["id"], model["adapter_id"]
    columns = {name: value for name, value in model.items() if name != "id"}
    _insert(
        connection,
        VersionRow,
        ({**columns, "number": n, "digest": _HEX((1 << 200) + n)} for n in range(4, VERSIONS + 1)),
    )
    _give_details(connection, model, f"versions.adapter_id = {adapter} AND versions.number > 3")
    values = {"version_count": VERSIONS, "next_number": VERSIONS + 1}
    connection.execute(update(AdapterRow).where(AdapterRow.id == adapter).values(values))
    _post_like(connection, version, f"versions.adapter_id = {adapter} AND versions.number > 3")
    versions = table_of(VersionRow).c
    added = select(versions.id).where(versions.adapter_id == adapter, versions.number > 3)
    ids = connection.execute(added.order_by(versions.number))
    _insert(
        connection,
        MetricSummaryRow,
        (
            {"version_id": id, "metric": "accuracy", "newest": n % 997 / 1e3, "highest": 1, "lowest": 0}
            for n, (id,) in enumerate(ids)
        ),
    )


def _give_details(connection: Connection, model: Values, which: str) -> None:
    """Gives the versions the manifest and the check report of another."""
    connection.execute(
        text(
            "INSERT INTO revisions (digest, manifest) SELECT versions.digest, revisions.manifest FROM"
            f" versions, revisions WHERE revisions.digest = '{model['digest']}' AND {which}"
        )
    )
    connection.execute(
        text(
            "INSERT INTO version_details (version_id, spec, report, forced) SELECT versions.id, spec, report,"
            " forced FROM versions, version_details WHERE version_details.version_id ="
            f" {model['id']} AND {which}"
        )
    )


def _post_like(connection: Connection, version: int, which: str, field: str = "%") -> None:
    """Gives the versions the terms of another version, for one field or for all."""
    connection.execute(
        text(
            "INSERT INTO postings (term_id, version_id) SELECT terms.id, versions.id FROM versions, postings"
            f" JOIN terms ON terms.id = postings.term_id WHERE postings.version_id = {version}"
            f" AND terms.field LIKE '{field}' AND {which} ORDER BY 1, 2"
        )
    )


def _base(connection: Connection) -> None:
    model = _version(connection, 2)
    columns = {name: model[name] for name in ("base_id", "base_name", "base_status")}
    on = (VersionRow.number == 10) & (VersionRow.created_by == "bench")
    connection.execute(update(VersionRow).where(on).values(columns))
    which = "versions.number = 10 AND versions.created_by = 'bench'"
    _give_details(connection, model, which)
    _post_like(connection, model["id"], which, "base")


def _public(connection: Connection) -> None:
    """Every thousandth adapter is public."""
    connection.execute(text("UPDATE adapters SET visibility = 'public' WHERE id % 1000 = 0"))


def _fleet(connection: Connection) -> None:
    """Every worker serves version 2, and had version 1; half have proved that they dropped it."""
    now = datetime.now(UTC)
    _insert(
        connection,
        WorkerRow,
        (
            {
                "name": f"gpu-{n:05}", "owner": "root", "engine": "vllm", "version": "0.33.0", "base": BASE,
                "slots": 8, "lease": 86_400, "first_at": _AT, "reported_at": now, "is_answering": True,
                "problems": "[]",
            }
            for n in range(WORKERS)
        ),
    )  # fmt: skip
    keys = connection.execute(select(WorkerRow.id).where(WorkerRow.name.like("gpu-%"))).scalars().all()
    for number, condition in ((1, "unloaded"), (2, "serving")):
        version = _version(connection, number)["id"]
        _insert(
            connection,
            ResidentRow,
            (
                {
                    "worker_id": key, "version_id": version, "served_as": f"{MANY}@prod",
                    "condition": condition, "since": _AT, "last_used": None,
                    "ended_at": _AT if number == 1 else None,
                    "dropped_at": _AT if number == 1 and key % 2 else None, "reason": None,
                }
                for key in keys
            ),
        )  # fmt: skip


def _jobs(connection: Connection) -> None:
    states = ("done", "done", "done", "failed", "cancelled")
    _insert(
        connection,
        JobRow,
        (
            {
                "id": f"job-{n:06}", "by": "root", "rights": "{}", "kind": "verify", "task": "{}",
                "namespace": "acme", "state": states[n % 5], "needs": "{}", "priority": 0,
                "submitted_at": _AT, "started_at": _AT, "finished_at": _AT, "attempts": 1,
            }
            for n in range(JOBS)
        ),
    )  # fmt: skip


def _moves(connection: Connection) -> None:
    adapter = _version(connection, 2)["adapter_id"]
    _insert(
        connection,
        EventRow,
        (
            {
                "at": _AT, "by": "root", "kind": "alias.moved", "adapter_id": adapter, "name": str(MANY),
                "number": n % VERSIONS + 1,
                "detail": f'{{"alias": "prod", "was_number": "{n % VERSIONS}", "generation": "{n}"}}',
            }
            for n in range(2, MOVES)
        ),
    )  # fmt: skip


def _people(connection: Connection) -> None:
    """Adds users, each with a token and a role in `acme`, all in the first of many groups."""
    made = {"created_at": _AT, "created_by": "root"}
    _insert(connection, PrincipalRow, ({"kind": "user", "name": f"user-{n}", **made} for n in range(USERS)))
    _insert(connection, GroupRow, ({"name": f"group-{n:03}", **made} for n in range(GROUPS)))
    users = connection.execute(select(PrincipalRow.id).where(PrincipalRow.name.like("user-%"))).scalars()
    group = connection.execute(select(GroupRow.id).where(GroupRow.name == "group-000")).scalar_one()
    keys = users.all()
    _insert(connection, GroupMemberRow, ({"group_id": group, "principal_id": key} for key in keys))
    _insert(
        connection,
        GrantRow,
        (
            {
                "principal_id": key, "namespace": "acme", "names": "*", "permission": "viewer",
                "conditions": "[]", **made,
            }
            for key in keys
        ),
    )  # fmt: skip
    _insert(
        connection,
        TokenRow,
        (
            {
                "secret_sha256": _HEX(key), "last_four": "beef", "kind": "token", "principal_id": key,
                "name": "laptop", **made,
            }
            for key in keys
        ),
    )  # fmt: skip


def _deliveries(connection: Connection) -> None:
    hook = connection.execute(text("SELECT max(id) FROM webhooks")).scalar_one()
    _insert(
        connection,
        WebhookDeliveryRow,
        (
            {
                "message": f"msg-{n}", "webhook_id": hook, "event": 1, "kind": "alias.moved",
                "state": "delivered" if n % 50 else "failed", "created_at": _AT, "due_at": _AT, "attempts": 1,
                "tried_at": _AT, "status": 200, "milliseconds": 12,
            }
            for n in range(DELIVERIES)
        ),
    )  # fmt: skip


def _audit_entries(connection: Connection) -> None:
    """Adds sealed entries, with made-up hashes, which pages do not read."""
    actions = ("version.pushed", "alias.moved", "token.created", "version.read")
    connection.execute(delete(AuditEntryRow))
    _insert(
        connection,
        AuditEntryRow,
        (
            {
                "at": _AT + timedelta(seconds=n), "action": actions[n % 4], "actor": f"user-{n % 500}",
                "namespace": "acme", "resource": f"acme/adapter-{n % 1000}",
                "outcome": "allowed" if n % 100 else "denied", "detail": "{}", "seq": n, "leaf": _HEX(n),
            }
            for n in range(AUDIT_ENTRIES)
        ),
    )  # fmt: skip
    connection.execute(delete(AuditStateRow))
    state = {"id": 1, "origin": "adaptry/audit/bench", "size": AUDIT_ENTRIES, "peaks": _HEX(1)}
    _insert(connection, AuditStateRow, [state])

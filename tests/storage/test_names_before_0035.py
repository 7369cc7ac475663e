"""Migration 0035 renames columns, fields and kinds of events: an older registry has the same content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from adaptry import open_dir
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.job_types.records import JobFailure, JobOrder
from adaptry.registry.records import StateChange
from adaptry.registry.rollouts import RolloutPlan
from adaptry.registry.webhooks import WebhookRequest
from adaptry.registry.workers import ResidentReport, WorkerProblem, WorkerReport
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.catalog import job_steps, jobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import PendingDeleteRow
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

from .downgrade import statements_back_to_0034

TONE = AdapterName.parse("acme/tone")
STRAY = Digest.of(b"stray")
KEY = IdempotencyKey("rollout", Digest.of(b"request"))


def fill(registry: LocalRegistry, tmp_path: Path) -> None:
    """Adds rows with a value in each renamed column, and an event of each renamed kind."""
    first, second = (
        push(registry, open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed)), TONE).version
        for seed in (1, 2)
    )
    change_state(registry, Ref.parse("acme/tone@1"), StateChange(state="deprecated", reason="it stutters"))
    for make, drop in (
        (registry.commits.create_branch, registry.commits.delete_branch),
        (registry.commits.create_tag, registry.commits.delete_tag),
    ):
        make(TONE, "extra")
        drop(TONE, "extra")
    registry.webhooks.add(
        WebhookRequest(
            namespace="acme",
            url="https://example.com/x",
            kinds=("branch.created", "version.*", "tag.deleted"),
        )
    )
    registry.aliases.move(TONE, "prod", first.digest, was=None)
    with_key = registry.on_behalf_of(registry.identity, KEY)
    with_key.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,), interval=600))
    served = ResidentReport(
        name=TONE,
        digest=first.digest,
        served_as="acme/tone@prod",
        condition="serving",
        since=datetime.now(UTC),
    )
    problem = WorkerProblem(served_as="acme/x@prod", reason="its rank is too large")
    registry.workers.report(
        WorkerReport(worker="gpu-1", engine="vllm", last_event=7, residents=(served,), problems=(problem,))
    )
    job = registry.jobs.submit(JobOrder(kind="verify", task={}))
    with registry.catalog.write() as tx:
        now = datetime.now(UTC)
        attempt = job_steps.begin_attempt(tx, job.id, "start", "runner-1", now)
        assert attempt
        job_steps.report(tx, job.id, "start", attempt.attempt, "checking rows", 3, 10)
        failure = JobFailure(code="damaged", message="a file is damaged")
        jobs.finish(tx, job.id, "failed", now, error=failure)
        tx.add(PendingDeleteRow(digest=STRAY.hex, since=now, deleting_since=now))


def content(registry: LocalRegistry) -> dict[str, Any]:
    """Everything that the renamed columns and kinds hold. (`Any`: JSON and rows.)"""
    with registry.catalog.read() as tx:
        row = tx.get_one(PendingDeleteRow, STRAY.hex)
        stray = row.since, row.deleting_since
    worker = registry.workers.get("gpu-1")
    version = registry.versions.get(Ref.parse("acme/tone@1"))
    return {
        "pending": stray,
        "jobs": [job.model_dump() for job in registry.jobs.list().items],
        "worker": (worker.last_event, worker.problems),
        "rollouts": [rollout.model_dump() for rollout in registry.rollouts.list(TONE)],
        "webhooks": [webhook.kinds for webhook in registry.webhooks.list("acme")],
        "events": [event.kind for event in registry.events.read(0, 200).items],
        "state": version.last_state_change,
        "replayed": registry.on_behalf_of(registry.identity, KEY)
        .rollouts.start(TONE, "prod", version.digest, RolloutPlan())
        .model_dump(),
    }


def opened(url: str, folder: Path) -> LocalRegistry:
    return LocalRegistry(RegistryContext(Catalog(url), LocalBlobs(folder)))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'catalog.sqlite'}"


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    return postgres.url(postgres.create_migrated())


@pytest.fixture(params=["sqlite_url", "postgres_url"], ids=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.getfixturevalue(request.param)


def downgrade(url: str) -> None:
    name = make_url(url)
    engine = create_engine(
        name if name.drivername != "postgresql" else name.set(drivername="postgresql+psycopg")
    )
    with engine.begin() as connection:
        for statement in statements_back_to_0034():
            connection.execute(text(statement.replace('":', '"\\:')))
    engine.dispose()


def test_an_older_registry_has_the_same_content(url: str, tmp_path: Path) -> None:
    with closing(opened(url, tmp_path / "blobs")) as registry:
        fill(registry, tmp_path)
        before = content(registry)
    assert before["jobs"][0]["error"]["code"] == "damaged"
    assert before["replayed"]["interval"] == 600
    assert {"branch.created", "branch.deleted", "tag.created", "tag.deleted"} <= {*before["events"]}
    downgrade(url)

    with closing(opened(url, tmp_path / "blobs")) as reopened:
        assert content(reopened) == before
        assert verify(reopened.catalog, reopened.blobs) == ()
        assert push(reopened, open_dir(tiny_lora(tmp_path / "next", seed=9)), TONE).version.number == 3

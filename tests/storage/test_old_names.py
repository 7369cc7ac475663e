"""Names in older registries that are no longer allowed: they are kept, found as written, and can
be removed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptry import open_dir
from adaptry.core.errors import Conflict, InvalidRef
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.records import AdapterEdit
from adaptry.registry.workers import ResidentReport, WorkerReport
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.samples import tiny_lora
from adaptry_api.hub.name_case import canonical_id
from adaptry_cli.main import main

from .downgrade import back_to_0010

TONE, OTHER = AdapterName.parse("acme/tone"), AdapterName.parse("acme/other")
GUS = Identity.with_role("gus", "worker", ("acme",))


@pytest.fixture
def old(folder: Path, tmp_path: Path) -> Path:
    """A registry of schema 0010 with twins of every kind, two workers, a resident and a schedule."""
    with closing(open_local(folder)) as registry:
        version = push(registry, open_dir(tiny_lora(tmp_path / "lora")), TONE).version
        registry.adapters.create(OTHER, AdapterEdit())
        registry.aliases.move(TONE, "prod", version.digest, was=None)
        registry.aliases.move(TONE, "staging", version.digest, was=None)
        registry.commits.create_branch(TONE, "draft")
        registry.jobs.schedule("nightly", "0 3 * * *", JobOrder(kind="verify", task={}))
        served = ResidentReport(
            name=TONE,
            digest=version.digest,
            served_as="acme/tone@prod",
            condition="serving",
            since=version.created_at,
        )
        for name in ("gpu-1", "gpu-2"):
            report = WorkerReport(worker=name, engine="vllm", residents=(served,))
            registry.on_behalf_of(GUS).workers.report(report)
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as database, database:
        back_to_0010(database)
        database.executescript(_TWINS)
    return folder


_TWINS = """
UPDATE alembic_version SET version_num = '0010';
CREATE TABLE workers_old (
    id INTEGER NOT NULL, name VARCHAR NOT NULL, owner VARCHAR NOT NULL, engine VARCHAR NOT NULL, \
version VARCHAR, base VARCHAR,
    url VARCHAR, slots INTEGER, seen BIGINT, lease INTEGER NOT NULL, first_at DATETIME NOT NULL, \
reported_at DATETIME NOT NULL,
    is_answering BOOLEAN NOT NULL, troubles TEXT NOT NULL,
    CONSTRAINT pk_workers PRIMARY KEY (id), CONSTRAINT uq_workers_name UNIQUE (name));
INSERT INTO workers_old SELECT id, name, owner, engine, version, base, url, slots, seen, lease, first_at, \
reported_at,
    is_answering, troubles FROM workers;
DROP TABLE workers;
ALTER TABLE workers_old RENAME TO workers;
CREATE INDEX ix_workers_owner ON workers (owner);
CREATE TABLE schedules_old (
    name VARCHAR NOT NULL, cron VARCHAR NOT NULL, ordered TEXT NOT NULL, namespace VARCHAR NOT NULL, \
"by" VARCHAR NOT NULL,
    by_role VARCHAR NOT NULL, by_namespaces VARCHAR NOT NULL, created_at DATETIME NOT NULL,
    CONSTRAINT pk_job_schedules PRIMARY KEY (name));
INSERT INTO schedules_old SELECT name, cron, ordered, namespace, "by", by_role, by_namespaces, created_at \
FROM job_schedules;
DROP TABLE job_schedules;
ALTER TABLE schedules_old RENAME TO job_schedules;
UPDATE adapters SET name = 'Acme/Tone', namespace = 'Acme' WHERE name = 'acme/other';
INSERT INTO namespaces (name) VALUES ('Acme');
UPDATE aliases SET alias = 'PROD' WHERE alias = 'staging';
INSERT INTO aliases (adapter_id, alias, version_id, generation, moved_at, moved_by)
    SELECT adapter_id, 'HEAD', version_id, 3, moved_at, moved_by FROM aliases WHERE alias = 'prod';
UPDATE marks SET name = 'a..b' WHERE name = 'draft';
"""


@pytest.fixture
def registry(old: Path) -> Iterator[LocalRegistry]:
    with closing(open_local(old)) as opened:
        yield opened


def test_names_that_differ_only_in_case_stay_reachable(registry: LocalRegistry) -> None:
    capital = AdapterName.parse("Acme/Tone")
    assert [str(info.name) for info in registry.adapters.list().items] == ["Acme/Tone", "acme/tone"]
    assert registry.adapters.get(capital).versions == 0
    assert registry.versions.get(Ref.parse("acme/tone@prod")) == registry.versions.get(
        Ref.parse("acme/tone@PROD")
    )
    with pytest.raises(Conflict, match="differs only in case"):
        registry.adapters.create(AdapterName.parse("acme/TONE"), AdapterEdit())
    registry.adapters.create(AdapterName.parse("Acme/new"), AdapterEdit())  # in a namespace that exists
    # The rows were changed without events, which `verify` reports; no value among them is invalid.
    reasons = [found.reason for found in verify(registry.catalog, registry.blobs)]
    assert not [text for text in reasons if "invalid value" in text or "cannot be read" in text]


def test_a_name_is_found_in_any_case_and_a_twin_only_in_its_own_case(registry: LocalRegistry) -> None:
    def leads_to(name: str) -> str | None:
        return canonical_id(registry, LOCAL, name)

    registry.adapters.create(AdapterName.parse("acme/Voice"), AdapterEdit())
    assert (leads_to("ACME/voice"), leads_to("acme/Voice")) == ("acme/Voice", None)
    assert (leads_to("acme/tone"), leads_to("Acme/Tone")) == (None, None)  # each is found as it is written
    assert leads_to("ACME/TONE") is None
    assert leads_to("acme/none") is None
    registry.adapters.delete(AdapterName.parse("Acme/Tone"))
    assert leads_to("ACME/TONE") == "acme/tone"


def test_an_alias_or_branch_invalid_in_git_can_be_moved_and_removed(registry: LocalRegistry) -> None:
    head = next(info for info in registry.aliases.list(TONE) if info.alias == "HEAD")
    assert registry.versions.get(Ref.parse("acme/tone@HEAD")).number == 1
    moved = registry.aliases.move(TONE, "HEAD", head.digest, head.generation)
    registry.aliases.remove(TONE, "HEAD", moved.generation)
    with pytest.raises(InvalidRef, match="write my-head"):
        registry.aliases.move(TONE, "HEAD", head.digest, was=None)
    assert registry.commits.get(TONE, "a..b").number == 1
    registry.commits.delete_branch(TONE, "a..b")


def test_workers_loaded_versions_and_schedules_are_kept(registry: LocalRegistry) -> None:
    workers = registry.workers.list().items
    assert [(one.worker, one.owner, len(one.residents)) for one in workers] == [
        ("gpu-1", "gus", 1),
        ("gpu-2", "gus", 1),
    ]
    registry.on_behalf_of(LOCAL).workers.report(WorkerReport(worker="gpu-1", engine="vllm"))
    assert [one.owner for one in registry.workers.list().items] == ["gus", "local", "gus"]
    assert [one.name for one in registry.jobs.schedules()] == ["nightly"]
    registry.jobs.unschedule("nightly")


def test_doctor_lists_names_that_differ_only_in_case(old: Path) -> None:
    shown = CliRunner().invoke(main, ["doctor", "--registry", str(old)]).output
    for line in (
        "namespaces that differ only in case: Acme, acme",
        "adapters that differ only in case: Acme/Tone, acme/tone",
        "aliases, branches or tags that differ only in case: acme/tone@PROD, acme/tone@prod",
    ):
        assert line in " ".join(shown.split())

"""The tables. Private to the catalog: what leaves it is made of `records`.

Digests are their 64 hex digits. Names of tables and columns are the vocabulary of the project. A change here
needs a migration; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Moment(TypeDecorator[datetime]):
    """A point in time, in UTC whatever the database keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


LONG = BigInteger().with_variant(Integer, "sqlite")
"""Of keys that may pass two thousand million. (SQLite's are as large, and count up only where they are said to be `INTEGER`.)"""

WITHDRAWN = text("state IN ('quarantined', 'revoked')")
"""Written out, since a database uses an index of some rows only where a statement says which in the same words."""

# A later migration can only change what has a name.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Row(SQLModel, registry=registry(metadata=MetaData(naming_convention=_NAMES))):
    """The root of our tables: a metadata of our own, so that they never mix with an embedding program's."""


class NamespaceRow(Row, table=True):
    """The namespaces in use, so that an identity's globs are matched against few rows."""

    __tablename__ = "namespaces"
    name: str = Field(primary_key=True)


class AdapterRow(Row, table=True):
    """A line of versions, or the tombstone of one: its numbering goes on when the name is revived.

    `moved_to` is the key of the line that had this name before it was renamed.
    """

    __tablename__ = "adapters"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    namespace: str = Field(index=True)
    description: str = ""
    tags: str = "[]"
    visibility: str = "private"
    created_at: datetime = Field(sa_type=Moment)
    updated_at: datetime = Field(sa_type=Moment)
    deleted_at: datetime | None = Field(default=None, sa_type=Moment)
    next_number: int = 1
    downloads: int = 0
    moved_to: int | None = Field(default=None, index=True)


class RevisionRow(Row, table=True):
    """A manifest, byte for byte. Whoever pushed it, it is one revision."""

    __tablename__ = "revisions"
    digest: str = Field(primary_key=True)
    manifest: bytes = Field(sa_type=LargeBinary)


class VersionRow(Row, table=True):
    """A version, with what listings show and searches compare. Its `id` orders all versions by age."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("adapter_id", "number"),
        UniqueConstraint("adapter_id", "digest"),
        Index("ix_versions_base", "base_id", "adapter_id"),
        Index("ix_versions_declared", "base_name", "base_status"),
        Index("ix_versions_withdrawn", "weights", sqlite_where=WITHDRAWN, postgresql_where=WITHDRAWN),
        {"sqlite_autoincrement": True},
    )
    id: int | None = Field(default=None, primary_key=True)
    adapter_id: int = Field(foreign_key="adapters.id")
    number: int = Field(index=True)
    digest: str = Field(foreign_key="revisions.digest", index=True)
    state: str = "active"
    state_generation: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    state_reason: str | None = None
    state_successor: str | None = None
    state_at: datetime | None = Field(default=None, sa_type=Moment)
    state_by: str | None = None
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    method: str
    rank: int | None = Field(default=None, index=True)
    targets: str = "[]"
    traits: str = "[]"
    parameters: int = Field(default=0, sa_type=BigInteger, index=True)
    size: int = Field(default=0, sa_type=BigInteger, index=True)
    weights: str
    base_id: str | None = None
    base_name: str | None = None
    base_status: str = "unknown"
    findings: int = 0
    downloads: int = Field(default=0, index=True)


class VersionDetailRow(Row, table=True):
    """What is derived from a version's files, compressed; apart from `versions`, so that searches walk short rows."""

    __tablename__ = "version_details"
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")
    spec: bytes = Field(sa_type=LargeBinary)
    report: bytes = Field(sa_type=LargeBinary)
    forced: str | None = None


class TermRow(Row, table=True):
    """A field and a text that some version has or had (`module`, `q_proj`): the words of the search index."""

    __tablename__ = "terms"
    __table_args__ = (UniqueConstraint("field", "text"),)
    id: int | None = Field(default=None, primary_key=True)
    field: str
    text: str


class PostingRow(Row, table=True):
    """A version has a term. Kept in both orders: the newest versions of a term, and the terms of a version."""

    __tablename__ = "postings"
    __table_args__ = (Index("ix_postings_version", "version_id", "term_id"), {"sqlite_with_rowid": False})
    term_id: int = Field(primary_key=True, foreign_key="terms.id")
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")


class CommitRow(Row, table=True):
    """A step of a branch. Its `id` orders the steps of an adapter by age; what is dropped from a branch stays."""

    __tablename__ = "commits"
    __table_args__ = (Index("ix_commits_adapter", "adapter_id", "digest"), {"sqlite_autoincrement": True})
    id: int | None = Field(default=None, primary_key=True)
    adapter_id: int = Field(foreign_key="adapters.id")
    digest: str = Field(foreign_key="revisions.digest", index=True)
    branch: str
    # No foreign key: rows only go with all of an adapter's, and the check of each would be a walk over all of them.
    parent_id: int | None = None
    title: str
    message: str = ""
    author: str
    at: datetime = Field(sa_type=Moment)
    carries: int | None = None


class MarkRow(Row, table=True):
    """A branch or a tag: an adapter's name for a commit. Every adapter has the branch `main`."""

    __tablename__ = "marks"
    adapter_id: int = Field(primary_key=True, foreign_key="adapters.id")
    name: str = Field(primary_key=True)
    kind: str
    commit_id: int = Field(foreign_key="commits.id", index=True)
    message: str = ""
    set_at: datetime = Field(sa_type=Moment)
    set_by: str


class AliasRow(Row, table=True):
    """A movable name. A removed one stays without a version, so that its generation never comes again."""

    __tablename__ = "aliases"
    adapter_id: int = Field(primary_key=True, foreign_key="adapters.id")
    alias: str = Field(primary_key=True)
    version_id: int | None = Field(default=None, foreign_key="versions.id", index=True)
    generation: int = 1
    moved_at: datetime = Field(sa_type=Moment)
    moved_by: str


class MetricRow(Row, table=True):
    """One logged value; never changed."""

    __tablename__ = "metric_values"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    version_id: int = Field(foreign_key="versions.id", ondelete="CASCADE", index=True)
    metric: str
    value: float
    logged_at: datetime = Field(sa_type=Moment)
    logged_by: str


class MetricSummaryRow(Row, table=True):
    """The newest, highest and lowest value of a version's metric, for searches."""

    __tablename__ = "metric_summaries"
    __table_args__ = (
        Index("ix_metric_summaries_newest", "metric", "newest"),
        Index("ix_metric_summaries_highest", "metric", "highest"),
        Index("ix_metric_summaries_lowest", "metric", "lowest"),
    )
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")
    metric: str = Field(primary_key=True)
    newest: float
    highest: float
    lowest: float


class EventRow(Row, table=True):
    """Something that happened; written in the transaction of the change, never changed."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_adapter", "adapter_id", "seq"), {"sqlite_autoincrement": True})
    seq: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    at: datetime = Field(sa_type=Moment)
    by: str
    kind: str
    adapter_id: int | None = Field(default=None, foreign_key="adapters.id")
    name: str | None = None
    number: int | None = None
    detail: str = "{}"


class AnswerRow(Row, table=True):
    """What was answered to a request with a key of its own, so that it is not done twice; kept for a day."""

    __tablename__ = "answers"
    identity: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    request: str
    answer: str = Field(sa_type=Text)
    given_at: datetime = Field(sa_type=Moment, index=True)


class FileRow(Row, table=True):
    """Bytes that an owner (an adapter's name, or a base's id) has. Nobody is told of another owner's.

    `unneeded_since` is when a sweep found that no commit and no base of the owner names them.
    """

    __tablename__ = "files"
    owner: str = Field(primary_key=True)
    digest: str = Field(primary_key=True, index=True)
    size: int = Field(sa_type=BigInteger)
    unneeded_since: datetime | None = Field(default=None, sa_type=Moment)


class LeavingRow(Row, table=True):
    """Bytes that nobody has any more, since when; with `going_since` they are being deleted at this moment."""

    __tablename__ = "leaving"
    digest: str = Field(primary_key=True)
    since: datetime = Field(sa_type=Moment, index=True)
    going_since: datetime | None = Field(default=None, sa_type=Moment)


class WeightsRow(Row, table=True):
    """The weights digest of a safetensors file: derived once, whoever has the file."""

    __tablename__ = "weights"
    file_digest: str = Field(primary_key=True)
    weights_digest: str


class UploadRow(Row, table=True):
    """An upload session. Its bytes are a staging of the same id; how many there are, the staging knows."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_owner", "owner", "digest"),)
    id: str = Field(primary_key=True)
    owner: str
    tenant: str = Field(index=True)
    digest: str
    size: int = Field(sa_type=BigInteger)
    created_by: str
    touched_at: datetime = Field(sa_type=Moment, index=True)
    is_finished: bool = False


class BaseRow(Row, table=True):
    """A base: its record compressed, and what listings show of it."""

    __tablename__ = "bases"
    __table_args__ = ({"sqlite_autoincrement": True},)
    key: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    architecture: str = Field(index=True)
    record: bytes = Field(sa_type=LargeBinary)
    summary: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
    created_by: str


class BaseNameRow(Row, table=True):
    """A name that a base goes by."""

    __tablename__ = "base_names"
    name: str = Field(primary_key=True)
    base_id: str = Field(foreign_key="bases.id", index=True)


class BaseFileRow(Row, table=True):
    """A file of a base whose weights are stored."""

    __tablename__ = "base_files"
    base_id: str = Field(primary_key=True, foreign_key="bases.id")
    path: str = Field(primary_key=True)
    digest: str = Field(index=True)
    size: int = Field(sa_type=BigInteger)


class TokenRow(Row, table=True):
    """A token by the SHA-256 of its secret; the secret is nowhere."""

    __tablename__ = "tokens"
    id: int | None = Field(default=None, primary_key=True)
    secret_sha256: str = Field(unique=True)
    last_four: str
    kind: str
    name: str
    role: str
    namespaces: str
    created_at: datetime = Field(sa_type=Moment)
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)


class WorkerRow(Row, table=True):
    """A worker as it was heard of last. Where its engine does not answer, `is_answering` is false."""

    __tablename__ = "workers"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    owner: str = Field(index=True)
    engine: str
    version: str | None = None
    base: str | None = None
    url: str | None = None
    slots: int | None = None
    seen: int | None = Field(default=None, sa_type=BigInteger)
    lease: int
    first_at: datetime = Field(sa_type=Moment)
    reported_at: datetime = Field(sa_type=Moment)
    is_answering: bool = True
    troubles: str = Field(default="[]", sa_type=Text)


class ResidentRow(Row, table=True):
    """A version that a worker has under a name, or had: kept a while, as what a recall is proved by."""

    __tablename__ = "residents"
    __table_args__ = (Index("ix_residents_version", "version_id"),)
    worker_id: int = Field(primary_key=True, foreign_key="workers.id", ondelete="CASCADE")
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")
    served_as: str = Field(primary_key=True)
    condition: str
    since: datetime = Field(sa_type=Moment)
    last_used: datetime | None = Field(default=None, sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    dropped_at: datetime | None = Field(default=None, sa_type=Moment)
    reason: str | None = None


class RolloutRow(Row, table=True):
    """A version taking over an alias step by step; `was_*` is where the alias stood when it began."""

    __tablename__ = "rollouts"
    __table_args__ = (Index("ix_rollouts_alias", "adapter_id", "alias"), {"sqlite_autoincrement": True})
    id: int | None = Field(default=None, primary_key=True)
    # No foreign key, as of commits: a rollout goes with its version.
    adapter_id: int
    alias: str
    version_id: int = Field(foreign_key="versions.id", ondelete="CASCADE", index=True)
    was_number: int
    was_digest: str
    alias_generation: int
    steps: str
    step: int = 0
    every: int | None = None
    stage: str = "running"
    reason: str | None = None
    generation: int = 1
    started_at: datetime = Field(sa_type=Moment)
    started_by: str
    step_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)


class JobRow(Row, table=True):
    """A job: what was asked, by whom, and what became of it. `by_role` and `by_namespaces` are the rights it has."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_state", "state", "key"), {"sqlite_autoincrement": True})
    key: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    kind: str
    task: str = Field(sa_type=Text)
    namespace: str = Field(index=True)
    state: str
    needs: str = Field(sa_type=Text)
    priority: int
    by: str
    by_role: str
    by_namespaces: str
    submitted_at: datetime = Field(sa_type=Moment)
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    finished_at: datetime | None = Field(default=None, sa_type=Moment)
    tries: int = 1
    result: str | None = Field(default=None, sa_type=Text)
    fault: str | None = Field(default=None, sa_type=Text)


class JobStepRow(Row, table=True):
    """A step of a job. `turn` goes up whenever somebody begins it: only the last who did may change anything."""

    __tablename__ = "job_steps"
    job_key: int = Field(primary_key=True, foreign_key="jobs.key")
    step: str = Field(primary_key=True)
    turn: int = 0
    runner: str | None = None
    what: str = ""
    done: int = Field(default=0, sa_type=BigInteger)
    total: int = Field(default=0, sa_type=BigInteger)
    result: str | None = Field(default=None, sa_type=Text)


class JobLineRow(Row, table=True):
    """A line of a job's log."""

    __tablename__ = "job_lines"
    __table_args__ = ({"sqlite_autoincrement": True},)
    key: int | None = Field(default=None, primary_key=True)
    job_key: int = Field(foreign_key="jobs.key", index=True)
    at: datetime = Field(sa_type=Moment)
    step: str
    text: str = Field(sa_type=Text)


class RunnerRow(Row, table=True):
    """Who runs jobs. `beats` goes up as long as it lives; how late it is, nobody needs to know."""

    __tablename__ = "runners"
    id: str = Field(primary_key=True)
    host: str
    devices: str
    tags: str
    concurrency: int
    memory: int = Field(sa_type=BigInteger)
    beats: int = Field(default=0, sa_type=BigInteger)
    seen_at: datetime = Field(sa_type=Moment)


class JobScheduleRow(Row, table=True):
    """An order that is given again and again, when its `cron` expression says so (in UTC)."""

    __tablename__ = "job_schedules"
    name: str = Field(primary_key=True)
    cron: str
    ordered: str = Field(sa_type=Text)
    namespace: str
    by: str
    by_role: str
    by_namespaces: str
    created_at: datetime = Field(sa_type=Moment)

"""The first schema: adapters, versions, the search index, aliases, metrics, events, bytes, bases, tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _adapters_and_their_versions()
    _search_index()
    _aliases_metrics_and_events()
    _bytes()
    _bases()
    _tokens()


def _adapters_and_their_versions() -> None:
    op.create_table(
        "namespaces",
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_namespaces"),
    )
    op.create_table(
        "adapters",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("tags", sa.String(), nullable=False),
        sa.Column("visibility", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_number", sa.Integer(), nullable=False),
        sa.Column("downloads", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_adapters"),
        sa.UniqueConstraint("name", name="uq_adapters_name"),
    )
    op.create_index("ix_adapters_namespace", "adapters", ["namespace"])
    op.create_table(
        "revisions",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_revisions"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("targets", sa.String(), nullable=False),
        sa.Column("traits", sa.String(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("weights", sa.String(), nullable=False),
        sa.Column("base_id", sa.String(), nullable=True),
        sa.Column("base_name", sa.String(), nullable=True),
        sa.Column("base_status", sa.String(), nullable=False),
        sa.Column("findings", sa.Integer(), nullable=False),
        sa.Column("downloads", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_versions_adapter_id"),
        sa.ForeignKeyConstraint(["digest"], ["revisions.digest"], name="fk_versions_digest"),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint("adapter_id", "digest", name="uq_versions_adapter_id_digest"),
        sa.UniqueConstraint("adapter_id", "number", name="uq_versions_adapter_id_number"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_versions_base", "versions", ["base_id", "adapter_id"])
    op.create_index("ix_versions_declared", "versions", ["base_name", "base_status"])
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_index("ix_versions_downloads", "versions", ["downloads"])
    op.create_index("ix_versions_number", "versions", ["number"])
    op.create_index("ix_versions_parameters", "versions", ["parameters"])
    op.create_index("ix_versions_rank", "versions", ["rank"])
    op.create_index("ix_versions_size", "versions", ["size"])
    op.create_table(
        "version_details",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
        sa.Column("forced", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_version_details_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", name="pk_version_details"),
    )


def _search_index() -> None:
    op.create_table(
        "terms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("field", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_terms"),
        sa.UniqueConstraint("field", "text", name="uq_terms_field_text"),
    )
    op.create_table(
        "postings",
        sa.Column("term_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["term_id"], ["terms.id"], name="fk_postings_term_id"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_postings_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("term_id", "version_id", name="pk_postings"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_postings_version", "postings", ["version_id", "term_id"])


def _aliases_metrics_and_events() -> None:
    op.create_table(
        "aliases",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("moved_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_aliases_adapter_id"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_aliases_version_id"),
        sa.PrimaryKeyConstraint("adapter_id", "alias", name="pk_aliases"),
    )
    op.create_index("ix_aliases_version_id", "aliases", ["version_id"])
    op.create_table(
        "metric_values",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("logged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("logged_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_metric_values_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_metric_values"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_metric_values_version_id", "metric_values", ["version_id"])
    op.create_table(
        "metric_summaries",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("newest", sa.Float(), nullable=False),
        sa.Column("highest", sa.Float(), nullable=False),
        sa.Column("lowest", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_metric_summaries_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "metric", name="pk_metric_summaries"),
    )
    op.create_index("ix_metric_summaries_highest", "metric_summaries", ["metric", "highest"])
    op.create_index("ix_metric_summaries_lowest", "metric_summaries", ["metric", "lowest"])
    op.create_index("ix_metric_summaries_newest", "metric_summaries", ["metric", "newest"])
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("detail", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_events_adapter_id"),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_adapter", "events", ["adapter_id", "seq"])


def _bytes() -> None:
    op.create_table(
        "files",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "digest", name="pk_files"),
    )
    op.create_index("ix_files_digest", "files", ["digest"])
    op.create_table(
        "weights",
        sa.Column("file_digest", sa.String(), nullable=False),
        sa.Column("weights_digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("file_digest", name="pk_weights"),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_finished", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
    )
    op.create_index("ix_uploads_owner", "uploads", ["owner", "digest"])
    op.create_index("ix_uploads_tenant", "uploads", ["tenant"])
    op.create_index("ix_uploads_touched_at", "uploads", ["touched_at"])


def _bases() -> None:
    op.create_table(
        "bases",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("architecture", sa.String(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_bases"),
        sa.UniqueConstraint("id", name="uq_bases_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_bases_architecture", "bases", ["architecture"])
    op.create_table(
        "base_names",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("base_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["base_id"], ["bases.id"], name="fk_base_names_base_id"),
        sa.PrimaryKeyConstraint("name", name="pk_base_names"),
    )
    op.create_index("ix_base_names_base_id", "base_names", ["base_id"])
    op.create_table(
        "base_files",
        sa.Column("base_id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["base_id"], ["bases.id"], name="fk_base_files_base_id"),
        sa.PrimaryKeyConstraint("base_id", "path", name="pk_base_files"),
    )
    op.create_index("ix_base_files_digest", "base_files", ["digest"])


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("last_four", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("namespaces", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("secret_sha256", name="uq_tokens_secret_sha256"),
    )

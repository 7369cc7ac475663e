"""Quotas, storage use by namespace and principal, invitations, and an index of aliases by their last move.

Existing versions count towards the principals who pushed them. Existing files count towards no principal,
because their senders were not recorded.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_LIMITS = ("bytes", "versions", "uploads", "requests")


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        *(sa.Column(limit, sa.BigInteger(), nullable=True) for limit in _LIMITS),
        sa.Column("set_at", _MOMENT, nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name="pk_quotas"),
    )
    op.create_table(
        "stored_use",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("versions", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name="pk_stored_use"),
    )
    op.add_column("files", sa.Column("stored_by", sa.String(), nullable=True))
    op.create_index(
        "ix_uploads_by",
        "uploads",
        ["created_by"],
        sqlite_where=sa.text("is_finished IS 0"),
        postgresql_where=sa.text("is_finished IS false"),
    )
    op.create_index("ix_aliases_moved_at", "aliases", ["moved_at"])
    _create_invitations()
    _count()


def _create_invitations() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("code_sha256", sa.String(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_invitations_principal_id"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.UniqueConstraint("code_sha256", name="uq_invitations_code_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_invitations_principal_id", "invitations", ["principal_id"])


def _count() -> None:
    """What is stored already."""
    is_postgres = op.get_bind().dialect.name == "postgresql"
    namespace = (
        "split_part(owner, '/', 1)" if is_postgres else "substr(owner, 1, max(instr(owner, '/') - 1, 0))"
    )
    op.execute(
        f"""
        INSERT INTO stored_use (scope, name, bytes, versions)
        SELECT 'namespace', name, SUM(bytes), SUM(versions) FROM (
            SELECT CASE WHEN owner LIKE 'sha256:%' THEN 'bases' ELSE {namespace} END AS name,
                   size AS bytes, 0 AS versions FROM files
            UNION ALL
            SELECT adapters.namespace, 0, 1 FROM versions JOIN adapters ON adapters.id = versions.adapter_id
        ) AS stored GROUP BY name
        """
    )
    op.execute(
        "INSERT INTO stored_use (scope, name, bytes, versions)"
        " SELECT 'principal', created_by, 0, COUNT(*) FROM versions GROUP BY created_by"
    )

"""Signing in by identity providers: issuers and publishers of CI jobs, and users with their sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0021"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_publishers()
    _create_sessions()


def _create_publishers() -> None:
    op.create_table(
        "issuers",
        sa.Column("id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("name", "url", "kind", "audience")),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_issuers"),
        sa.UniqueConstraint("name", name="uq_issuers_name"),
        sa.UniqueConstraint("url", name="uq_issuers_url"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "publishers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("project_id", "owner_id", "workflow")),
        sa.Column("environment", sa.String(), nullable=True),
        sa.Column("branch", sa.String(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuers.id"], name="fk_publishers_issuer_id"),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_publishers_principal_id"),
        sa.PrimaryKeyConstraint("id", name="pk_publishers"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_publishers_namespace_name", "publishers", ["namespace", "name"])
    op.create_index("ix_publishers_issuer_id", "publishers", ["issuer_id"])
    op.create_table(
        "used_id_tokens",
        sa.Column("jti_sha256", sa.String(), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("jti_sha256", name="pk_used_id_tokens"),
    )
    op.create_index("ix_used_id_tokens_expires_at", "used_id_tokens", ["expires_at"])


def _create_sessions() -> None:
    op.create_table(
        "external_users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        sa.Column("refresh_token", sa.String(), nullable=True),
        *(sa.Column(name, _MOMENT, nullable=True) for name in ("confirmed_at", "ended_at", "claimed_until")),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_external_users_principal_id"),
        sa.PrimaryKeyConstraint("id", name="pk_external_users"),
        sa.UniqueConstraint("issuer", "subject", name="uq_external_users_issuer_subject"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_external_users_principal_id", "external_users", ["principal_id"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("external_id", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["external_id"], ["external_users.id"], name="fk_sessions_external_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("secret_sha256", name="uq_sessions_secret_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sessions_external_id", "sessions", ["external_id"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "provider_groups",
        sa.Column("claim", sa.String(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("set_at", _MOMENT, nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["principal_groups.id"], name="fk_provider_groups_group_id"),
        sa.PrimaryKeyConstraint("claim", name="pk_provider_groups"),
    )
    op.create_index("ix_provider_groups_group_id", "provider_groups", ["group_id"])
    op.add_column("tokens", sa.Column("external_id", sa.Integer(), nullable=True))
    op.create_index("ix_tokens_external_id", "tokens", ["external_id"])

"""Principals, groups and grants; tokens become credentials of a principal.

Each name that tokens had is a principal, with everything that its tokens allow and were not revoked for. Each
token stays narrowed to what it allowed, so that nobody may do more or less than before. Tokens of one name
get different names of their own.
"""

import json
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_BY = "the upgrade to schema 0018"


def upgrade() -> None:
    _create_principals()
    _create_grants()
    connection = op.get_bind()
    old = connection.execute(sa.text("SELECT * FROM tokens ORDER BY id")).mappings().all()
    principals = {
        name: _add_principal(connection, name, old) for name in dict.fromkeys(t["name"] for t in old)
    }
    op.drop_table("tokens")
    _create_tokens()
    _add_tokens(connection, principals, old)
    known = {(t["name"], t["role"], t["namespaces"]): principals[t["name"]] for t in old}
    for table, key in (("jobs", ("key",)), ("job_schedules", ("namespace", "name"))):
        _store_rights(connection, table, key, known)


def _create_principals() -> None:
    op.create_table(
        "principals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("disabled_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_principals"),
        sa.UniqueConstraint("name", name="uq_principals_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_principals_namespace", "principals", ["namespace"])
    op.create_table(
        "principal_groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_principal_groups"),
        sa.UniqueConstraint("name", name="uq_principal_groups_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["principal_groups.id"], name="fk_group_members_group_id"),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_group_members_principal_id"),
        sa.PrimaryKeyConstraint("group_id", "principal_id", name="pk_group_members"),
    )
    op.create_index("ix_group_members_principal_id", "group_members", ["principal_id"])


def _create_grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=True),
        sa.Column("group_id", sa.Integer(), nullable=True),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("names", sa.String(), nullable=False),
        sa.Column("permission", sa.String(), nullable=False),
        sa.Column("conditions", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_grants_principal_id"),
        sa.ForeignKeyConstraint(["group_id"], ["principal_groups.id"], name="fk_grants_group_id"),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sqlite_autoincrement=True,
    )
    for column in ("principal_id", "group_id", "namespace"):
        op.create_index(f"ix_grants_{column}", "grants", [column])
    op.create_table(
        "accountable_owners",
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        sa.Column("set_at", _MOMENT, nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_accountable_owners_principal_id"
        ),
        sa.PrimaryKeyConstraint("namespace", name="pk_accountable_owners"),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("last_four", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("permissions", sa.String(), nullable=True),
        sa.Column("resources", sa.String(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=True),
        sa.Column("revoked_at", _MOMENT, nullable=True),
        sa.Column("last_used_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_tokens_principal_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("secret_sha256", name="uq_tokens_secret_sha256"),
        sa.UniqueConstraint("principal_id", "name", name="uq_tokens_principal_id_name"),
        sqlite_autoincrement=True,
    )


def _add_principal(connection: sa.Connection, name: str, old: Sequence[sa.RowMapping]) -> int:
    """A principal with what its tokens allow. Expired ones count, because schedules outlive them."""
    own = [token for token in old if token["name"] == name]
    kept = [token for token in own if token["revoked_at"] is None]
    is_worker = all(token["role"] == "worker" for token in kept or own)
    connection.execute(
        sa.text(
            "INSERT INTO principals (kind, name, created_at, created_by) VALUES (:kind, :name, :at, :by)"
        ),
        {
            "kind": "worker" if is_worker else "user",
            "name": name,
            "at": min(token["created_at"] for token in own),
            "by": _BY,
        },
    )
    found = connection.execute(sa.text("SELECT id FROM principals WHERE name = :name"), {"name": name})
    principal = int(found.scalar_one())
    pairs = [(token["role"], glob) for token in kept for glob in json.loads(token["namespaces"])]
    for role, glob in dict.fromkeys(pairs):
        connection.execute(
            sa.text(
                "INSERT INTO grants"
                " (principal_id, namespace, names, permission, conditions, created_at, created_by)"
                " VALUES (:principal, :glob, '*', :role, '[]', :at, :by)"
            ),
            {"principal": principal, "glob": glob, "role": role, "at": own[0]["created_at"], "by": _BY},
        )
    return principal


def _add_tokens(connection: sa.Connection, principals: dict[str, int], old: Sequence[sa.RowMapping]) -> None:
    taken: set[tuple[int, str]] = set()
    for token in old:
        principal, name, number = principals[token["name"]], token["name"], 1
        while (principal, name) in taken:
            number += 1
            name = f"{token['name']}-{number}"
        taken.add((principal, name))
        connection.execute(
            sa.text(
                "INSERT INTO tokens (id, secret_sha256, last_four, kind, principal_id, name, permissions,"
                " resources, created_at, created_by, expires_at, revoked_at) VALUES (:id, :secret_sha256,"
                " :last_four, :kind, :principal, :unique, :permissions, :namespaces, :created_at, :by,"
                " :expires_at, :revoked_at)"
            ),
            {
                **token,
                "principal": principal,
                "unique": name,
                "permissions": json.dumps([token["role"]]),
                "by": _BY,
            },
        )
    if old and connection.dialect.name == "postgresql":
        connection.execute(
            sa.text("SELECT setval(pg_get_serial_sequence('tokens', 'id'), (SELECT max(id) FROM tokens))")
        )


def _store_rights(
    connection: sa.Connection,
    table: str,
    key: tuple[str, ...],
    known: dict[tuple[str, str, str], int],
) -> None:
    """The submitter's rights, in the form of `catalog.rights`."""
    op.add_column(table, sa.Column("rights", sa.Text(), nullable=False, server_default="{}"))
    quoted = [f'"{column}"' for column in key]
    rows = connection.execute(
        sa.text(f'SELECT {", ".join(quoted)}, "by", by_role, by_namespaces FROM {table}')
    )
    where = " AND ".join(f"{column} = :k{number}" for number, column in enumerate(quoted))
    for row in rows.all():
        *keys, by, role, namespaces = row
        principal = known.get((by, role, namespaces))
        globs = json.loads(namespaces)
        rights = {
            "principal": principal,
            "grants": [[role, glob, []] for glob in globs],
            "limit": None if principal is None else {"permissions": [role], "resources": globs},
        }
        connection.execute(
            sa.text(f"UPDATE {table} SET rights = :rights WHERE {where}"),
            {"rights": json.dumps(rights), **{f"k{number}": value for number, value in enumerate(keys)}},
        )
    op.drop_column(table, "by_role")
    op.drop_column(table, "by_namespaces")

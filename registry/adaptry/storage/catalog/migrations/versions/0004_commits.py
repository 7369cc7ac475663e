"""Branches, tags and commits. Existing versions become the commits of their adapters' `main`."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_EMPTY = b'{"schema":1}'
_EMPTY_DIGEST = "67d6291b301412df4a6ca7808aeafac9d0587b06ece3c68e72bab0157cd9d52c"


def upgrade() -> None:
    op.add_column("adapters", sa.Column("moved_to", sa.Integer(), nullable=True))
    op.create_index("ix_adapters_moved_to", "adapters", ["moved_to"])
    op.create_table(
        "commits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("branch", sa.String(), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("carries", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_commits_adapter_id"),
        sa.ForeignKeyConstraint(["digest"], ["revisions.digest"], name="fk_commits_digest"),
        sa.PrimaryKeyConstraint("id", name="pk_commits"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commits_adapter", "commits", ["adapter_id", "digest"])
    op.create_index("ix_commits_digest", "commits", ["digest"])
    op.create_table(
        "marks",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("commit_id", sa.Integer(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_marks_adapter_id"),
        sa.ForeignKeyConstraint(["commit_id"], ["commits.id"], name="fk_marks_commit_id"),
        sa.PrimaryKeyConstraint("adapter_id", "name", name="pk_marks"),
    )
    op.create_index("ix_marks_commit_id", "marks", ["commit_id"])
    _commits_of_versions()


def _commits_of_versions() -> None:
    """Each adapter's first commit is empty; then come its versions."""
    connection = op.get_bind()
    empty = sa.text(
        "INSERT INTO revisions (digest, manifest) SELECT CAST(:digest AS VARCHAR), :manifest"
        " WHERE EXISTS (SELECT 1 FROM adapters)"
        " AND NOT EXISTS (SELECT 1 FROM revisions WHERE digest = CAST(:digest AS VARCHAR))"
    )
    connection.execute(empty, {"digest": _EMPTY_DIGEST, "manifest": _EMPTY})
    firsts = sa.text(
        "INSERT INTO commits (adapter_id, digest, branch, title, message, author, at)"
        " SELECT id, CAST(:digest AS VARCHAR), 'main', 'Created', '', coalesce((SELECT events.by FROM events"
        " WHERE events.adapter_id = adapters.id AND events.kind = 'adapter.created'"
        " ORDER BY events.seq DESC LIMIT 1), 'adaptry'), created_at FROM adapters"
        " WHERE deleted_at IS NULL ORDER BY id"
    )
    connection.execute(firsts, {"digest": _EMPTY_DIGEST})
    connection.execute(
        sa.text(
            "INSERT INTO commits (adapter_id, digest, branch, title, message, author, at, carries)"
            " SELECT adapter_id, digest, 'main', 'Version ' || number, '', created_by, created_at, number"
            " FROM versions ORDER BY adapter_id, number"
        )
    )
    # A version's commit has the id after that of the version before it, unless it is its adapter's first.
    connection.execute(
        sa.text(
            "UPDATE commits SET parent_id = (SELECT before.id FROM commits AS before"
            " WHERE before.id = commits.id - 1 AND before.adapter_id = commits.adapter_id)"
        )
    )
    connection.execute(
        sa.text(
            "UPDATE commits SET parent_id = (SELECT min(first.id) FROM commits AS first"
            " WHERE first.adapter_id = commits.adapter_id AND first.digest = :digest)"
            " WHERE parent_id IS NULL AND digest <> :digest"
        ),
        {"digest": _EMPTY_DIGEST},
    )
    connection.execute(
        sa.text(
            "INSERT INTO marks (adapter_id, name, kind, commit_id, message, set_at, set_by)"
            " SELECT adapter_id, 'main', 'branch', id, '', at, author FROM commits"
            " WHERE id IN (SELECT max(id) FROM commits GROUP BY adapter_id)"
        )
    )

"""The last change of a version's state; and an index of withdrawn weights, so that they are not pushed
again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_WITHDRAWN = sa.text("state IN ('quarantined', 'revoked')")


def upgrade() -> None:
    op.add_column("versions", sa.Column("state_generation", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("versions", sa.Column("state_reason", sa.String(), nullable=True))
    op.add_column("versions", sa.Column("state_successor", sa.String(), nullable=True))
    op.add_column("versions", sa.Column("state_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("versions", sa.Column("state_by", sa.String(), nullable=True))
    op.create_index(
        "ix_versions_withdrawn",
        "versions",
        ["weights"],
        sqlite_where=_WITHDRAWN,
        postgresql_where=_WITHDRAWN,
    )

"""Credentials that go into the environment of a stdio server.

Downgrading forgets them: the earlier version could not use them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("credentials", sa.Column("environment", sa.String, nullable=False, server_default=""))


def downgrade() -> None:
    op.execute("DELETE FROM credentials WHERE environment <> ''")
    op.drop_column("credentials", "environment")

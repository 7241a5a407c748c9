"""Clients that are known by their metadata document: until when it may be used without a new look."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("clients") as clients:
        clients.add_column(sa.Column("fresh_until", sa.BigInteger))


def downgrade() -> None:
    with op.batch_alter_table("clients") as clients:
        clients.drop_column("fresh_until")

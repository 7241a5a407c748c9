"""Which definitions of tools are approved, and how servers hold those that are new or changed.

Of tools that are known already the definition that is seen next is approved.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_SERVERS = {"new_tools": "allow", "pinning": "enforce"}


def upgrade() -> None:
    for name, present in _SERVERS.items():
        op.add_column("servers", sa.Column(name, sa.String, nullable=False, server_default=present))
    op.create_table(
        "pins",
        sa.Column("server_slug", sa.String, sa.ForeignKey("servers.slug"), primary_key=True),
        sa.Column("tool", sa.String, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("definition", sa.String, nullable=False),
        sa.Column("offered", sa.String, nullable=False),
        sa.Column("offered_definition", sa.String, nullable=False),
        sa.Column("since", sa.String, nullable=False),
        sa.Column("rejected", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("pins")
    for name in _SERVERS:
        op.drop_column("servers", name)

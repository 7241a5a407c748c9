"""Servers, groups, what a group may use, members, the organization's switch."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "counter",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("value", sa.Integer, nullable=False),
    )
    op.execute("INSERT INTO counter (id, value) VALUES (1, 0)")
    op.create_table(
        "organization",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "servers",
        sa.Column("slug", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("transport", sa.String, nullable=False),
        sa.Column("auth", sa.String, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("tools", sa.JSON, nullable=False),
        sa.Column("connect_timeout", sa.Float, nullable=False),
        sa.Column("response_timeout", sa.Float, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "access",
        sa.Column("group_id", sa.String, sa.ForeignKey("groups.id"), primary_key=True),
        sa.Column("server_slug", sa.String, sa.ForeignKey("servers.slug"), primary_key=True),
        sa.Column("default", sa.String, nullable=False),
        sa.Column("tools", sa.JSON, nullable=False),
    )
    op.create_index("ix_access_server_slug", "access", ["server_slug"])
    op.create_table(
        "members",
        sa.Column("user_id", sa.String, primary_key=True),
        sa.Column("group_id", sa.String, sa.ForeignKey("groups.id"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_index("ix_members_group_id", "members", ["group_id"])


def downgrade() -> None:
    for table in ("members", "access", "groups", "servers", "organization", "counter"):
        op.drop_table(table)

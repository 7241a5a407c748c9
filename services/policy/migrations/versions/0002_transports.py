"""Servers over HTTP+SSE and stdio; prompts and resources beside tools.

Downgrading forgets the servers that the earlier version cannot reach, and who could use them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SERVERS = {
    "bridge": (sa.String, "auto"),
    "idle_timeout": (sa.Float, "60"),
    "command": (sa.JSON, "[]"),
    "environment": (sa.JSON, "{}"),
    "processes": (sa.String, "shared"),
    "idle_stop": (sa.Float, "600"),
    "prompts": (sa.JSON, "[]"),
    "resources": (sa.JSON, "[]"),
}
_ACCESS = {"prompts": (sa.JSON, "{}"), "resources": (sa.JSON, "{}")}


def upgrade() -> None:
    for table, columns in (("servers", _SERVERS), ("access", _ACCESS)):
        for name, (kind, present) in columns.items():
            op.add_column(table, sa.Column(name, kind, nullable=False, server_default=present))


def downgrade() -> None:
    servers = sa.table("servers", sa.column("slug"), sa.column("transport"))
    access = sa.table("access", sa.column("server_slug"))
    unreachable = servers.c.transport != "streamable_http"
    gone = sa.select(servers.c.slug).where(unreachable)
    op.execute(sa.delete(access).where(access.c.server_slug.in_(gone)))
    op.execute(sa.delete(servers).where(unreachable))
    for table, columns in (("access", _ACCESS), ("servers", _SERVERS)):
        for name in columns:
            op.drop_column(table, name)

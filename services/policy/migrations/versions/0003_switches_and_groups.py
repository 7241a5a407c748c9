"""One table for the switches of all levels; a row is something that is off.

Downgrading keeps those of the organization and of servers, without their end. The earlier version knows no
others: what only they keep off is on again.
"""

import sqlalchemy as sa
from alembic import op

from libs.common.clock import iso, now

revision = "0003"
down_revision = "0002"

_SWITCHES = sa.table(
    "switches", *map(sa.column, ("level", "subject", "reason", "until", "since", "changed_by", "version"))
)
_ORGANIZATION = sa.table("organization", *map(sa.column, ("enabled", "reason", "version")))
_SERVERS = sa.table("servers", *map(sa.column, ("slug", "enabled", "reason", "version")))
# Level, table, and what in it names the subject.
_SWITCHED = (("organization", _ORGANIZATION, sa.literal("")), ("server", _SERVERS, _SERVERS.c.slug))


def upgrade() -> None:
    op.create_table(
        "switches",
        sa.Column("level", sa.String, primary_key=True),
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("until", sa.String, nullable=False),
        sa.Column("since", sa.String, nullable=False),
        sa.Column("changed_by", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    nothing, since = sa.literal(""), sa.literal(iso(now()))
    for level, table, subject in _SWITCHED:
        off = sa.select(
            sa.literal(level), subject, table.c.reason, nothing, since, nothing, table.c.version
        ).where(table.c.enabled == sa.false())
        op.execute(sa.insert(_SWITCHES).from_select(_SWITCHES.c.keys(), off))
        op.drop_column(table.name, "enabled")
        op.drop_column(table.name, "reason")


def downgrade() -> None:
    for level, table, subject in _SWITCHED:
        enabled = sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true())
        op.add_column(table.name, enabled)
        op.add_column(table.name, sa.Column("reason", sa.String, nullable=False, server_default=""))
        own = sa.and_(_SWITCHES.c.level == level, _SWITCHES.c.subject == subject)
        reason = sa.select(_SWITCHES.c.reason).where(own).scalar_subquery()
        off = sa.exists(sa.select(_SWITCHES.c.level).where(own))
        op.execute(sa.update(table).where(off).values(enabled=sa.false(), reason=reason))
    op.drop_table("switches")

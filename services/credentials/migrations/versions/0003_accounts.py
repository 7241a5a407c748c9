"""Providers, accounts of people and several master keys.

The credentials of earlier versions stay where they are until the service starts with the master key, and then
become accounts. Downgrading forgets every credential that was stored or taken over since: the earlier version
could not open them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String, nullable=False)


def _envelope() -> list[sa.Column[bytes] | sa.Column[str]]:
    return [
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
    ]


def upgrade() -> None:
    op.add_column("vault", sa.Column("key_id", sa.String, nullable=False, server_default=""))
    op.create_table(
        "master_keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        _text("used_since"),
    )
    op.create_table(
        "providers",
        sa.Column("slug", sa.String, primary_key=True),
        *map(_text, ("kind", "layout", "settings")),
        sa.Column("version", sa.Integer, nullable=False),
        *_envelope(),
        *map(_text, ("changed_at", "changed_by")),
    )
    op.create_table(
        "accounts",
        sa.Column("id", sa.String, primary_key=True),
        *map(_text, ("slug", "user_id", "kind", "label", "origin")),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("sealed_version", sa.Integer, nullable=False),
        *map(_text, ("state", "reason")),
        sa.Column("chosen", sa.Boolean, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("refresh_at", sa.Float, nullable=False),
        _text("refresh_holder"),
        sa.Column("refresh_until", sa.Float, nullable=False),
        *_envelope(),
        *map(_text, ("created_at", "created_by", "changed_at", "changed_by")),
    )
    for columns in (["slug", "user_id"], ["user_id"], ["refresh_at"], ["key_id"]):
        op.create_index(f"accounts_{columns[0]}", "accounts", columns)


def downgrade() -> None:
    for table in ("accounts", "providers", "master_keys"):
        op.drop_table(table)
    # Nothing is left that the key of a check value would open, and the earlier version makes a new one.
    op.execute("UPDATE vault SET check_value = NULL WHERE key_id <> ''")
    op.drop_column("vault", "key_id")

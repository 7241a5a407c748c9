"""Invitations and password resets by link; where logins come from; rights of clients; the order of keys."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _create_links()
    op.add_column("sessions", sa.Column("address", sa.String, nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("agent", sa.String, nullable=False, server_default=""))
    op.add_column("clients", sa.Column("rights", sa.String, nullable=False, server_default=""))
    op.create_index("ix_grants_client_id", "grants", ["client_id"])
    _order_keys()


def _create_links() -> None:
    op.create_table(
        "links",
        sa.Column("hash", sa.String, primary_key=True),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=False, index=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.add_column("users", sa.Column("joined_at", sa.BigInteger))
    op.execute("UPDATE users SET joined_at = created_at")


def _order_keys() -> None:
    """Number the keys by age. Those that are there have been published long since."""
    with op.batch_alter_table("signing_keys") as keys:
        keys.add_column(sa.Column("number", sa.Integer))
        keys.add_column(sa.Column("published_at", sa.BigInteger))
    op.execute(
        "UPDATE signing_keys SET published_at = created_at, number ="
        " (SELECT count(*) FROM signing_keys AS older WHERE older.created_at < signing_keys.created_at"
        " OR (older.created_at = signing_keys.created_at AND older.kid <= signing_keys.kid))"
    )
    with op.batch_alter_table("signing_keys") as keys:
        keys.alter_column("number", existing_type=sa.Integer, nullable=False)
        keys.create_unique_constraint("uq_signing_keys_number", ["number"])


def downgrade() -> None:
    with op.batch_alter_table("signing_keys") as keys:
        keys.drop_constraint("uq_signing_keys_number", type_="unique")
        keys.drop_column("published_at")
        keys.drop_column("number")
    op.drop_index("ix_grants_client_id", "grants")
    op.drop_column("clients", "rights")
    op.drop_column("sessions", "agent")
    op.drop_column("sessions", "address")
    op.drop_column("users", "joined_at")
    op.drop_table("links")

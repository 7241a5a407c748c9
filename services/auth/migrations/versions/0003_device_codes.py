"""Requests of clients that cannot open a browser (RFC 8628)."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "device_codes",
        sa.Column("hash", sa.String, primary_key=True),
        sa.Column("user_code", sa.String, nullable=False, unique=True),
        sa.Column("client_id", sa.String, nullable=False),
        sa.Column("client_name", sa.String, nullable=False),
        sa.Column("audience", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("polled_at", sa.BigInteger, nullable=False),
        sa.Column("interval", sa.Integer, nullable=False),
        sa.Column("decision", sa.String, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("device_codes")

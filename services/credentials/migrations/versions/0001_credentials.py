"""The vault's check value and the credentials."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "vault",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("last_version", sa.Integer, nullable=False),
        sa.Column("check_value", sa.LargeBinary, nullable=True),
    )
    op.execute("INSERT INTO vault (id, last_version, check_value) VALUES (1, 0, NULL)")
    op.create_table(
        "credentials",
        sa.Column("slug", sa.String, primary_key=True),
        sa.Column("user_id", sa.String, primary_key=True),
        sa.Column("header", sa.String, nullable=False),
        sa.Column("template", sa.String, nullable=False),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("changed_at", sa.String, nullable=False),
        sa.Column("changed_by", sa.String, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("credentials")
    op.drop_table("vault")

"""People who were sent to a provider and have not come back yet."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "authorizations",
        sa.Column("state", sa.String, primary_key=True),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("session", sa.String, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("authorizations")

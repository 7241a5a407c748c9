"""Rules and quotas. Downgrading forgets them: the earlier version could not follow them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _strings(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "rules",
        sa.Column("id", sa.String, primary_key=True),
        *_strings("name", "effect", "scope", "scope_id", "condition", "message"),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("servers", sa.JSON, nullable=False),
        sa.Column("tools", sa.JSON, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "quotas",
        sa.Column("id", sa.String, primary_key=True),
        *_strings("name", "of", "subject"),
        sa.Column("servers", sa.JSON, nullable=False),
        sa.Column("per_minute", sa.Integer),
        sa.Column("per_day", sa.Integer),
        sa.Column("version", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("quotas")
    op.drop_table("rules")

"""Users, sessions, clients, codes, grants, refresh tokens, revocations, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    "secrets",
    "signing_keys",
    "revocations",
    "refresh_tokens",
    "grants",
    "codes",
    "clients",
    "sessions",
    "users",
)


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("email_key", sa.String, nullable=False, unique=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("password_hash", sa.String, nullable=False),
        sa.Column("tokens_valid_from", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("secret_hash", sa.String, nullable=False, unique=True),
        sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=False, index=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
    )
    op.create_table(
        "clients",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("redirect_uris", sa.JSON, nullable=False),
        sa.Column("grant_types", sa.JSON, nullable=False),
        sa.Column("auth_method", sa.String, nullable=False),
        sa.Column("secret_hash", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    _create_grants()
    op.create_table(
        "revocations",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False, index=True),
    )
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.String, primary_key=True),
        sa.Column("jwk", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("retired_at", sa.BigInteger),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )


def _create_grants() -> None:
    op.create_table(
        "codes",
        sa.Column("hash", sa.String, primary_key=True),
        sa.Column("grant_id", sa.String, nullable=False),
        sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("client_id", sa.String, nullable=False),
        sa.Column("client_name", sa.String, nullable=False),
        sa.Column("redirect_uri", sa.String, nullable=False),
        sa.Column("redirect_host", sa.String, nullable=False),
        sa.Column("audience", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("code_challenge", sa.String, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("used_at", sa.BigInteger),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=False, index=True),
        sa.Column("client_id", sa.String, nullable=False),
        sa.Column("client_name", sa.String, nullable=False),
        sa.Column("redirect_host", sa.String, nullable=False),
        sa.Column("audience", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("last_used_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("hash", sa.String, primary_key=True),
        sa.Column("grant_id", sa.String, sa.ForeignKey("grants.id"), nullable=False, index=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("replaced_at", sa.BigInteger),
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)

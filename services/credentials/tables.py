"""The vault's tables. The schema itself is what `migrations/` says; a test compares the two.

Three columns are an envelope (vault.py): `key_id`, `wrapped_key`, `box`.
"""

from sqlalchemy import Index, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Row(SQLModel, registry=registry(metadata=MetaData())):
    """Base of the vault's tables: metadata of their own, since other services have tables too."""


class VaultRow(Row, table=True):
    """One row. `last_version` is the last one given to anything: a version never repeats, so that a gateway
    cannot take a credential made anew for the one that it has in memory. `key_id` names the master key that
    wraps what is new; empty before the first start. `check_value` is of an earlier version (legacy.py)."""

    __tablename__ = "vault"
    id: int = Field(primary_key=True)
    last_version: int
    check_value: bytes | None
    key_id: str


class MasterKeyRow(Row, table=True):
    """A master key that wraps something, and an envelope of a known text, which tells whether the key that we
    were given under that id is the right one."""

    __tablename__ = "master_keys"
    id: str = Field(primary_key=True)
    wrapped_key: bytes
    box: bytes
    used_since: str


class ProviderRow(Row, table=True):
    """How the credentials of a server work (domain.Provider). The envelope holds its secret, such as that of
    an OAuth client, and binds the rest, so that nobody can redirect a credential in the database."""

    __tablename__ = "providers"
    slug: str = Field(primary_key=True)
    kind: str
    layout: str
    settings: str
    version: int
    key_id: str
    wrapped_key: bytes
    box: bytes
    changed_at: str
    changed_by: str


class AccountRow(Row, table=True):
    """A credential (domain.Account). `refresh_holder` renews it until `refresh_until` (Unix seconds), if it
    is not empty."""

    __tablename__ = "accounts"
    __table_args__ = (
        Index("accounts_slug", "slug", "user_id"),
        Index("accounts_user_id", "user_id"),
        Index("accounts_refresh_at", "refresh_at"),
        Index("accounts_key_id", "key_id"),
    )
    id: str = Field(primary_key=True)
    slug: str
    user_id: str
    kind: str
    label: str
    origin: str
    version: int
    sealed_version: int
    state: str
    reason: str
    chosen: bool
    expires_at: float
    refresh_at: float
    refresh_holder: str
    refresh_until: float
    key_id: str
    wrapped_key: bytes
    box: bytes
    created_at: str
    created_by: str
    changed_at: str
    changed_by: str


class EarlierRow(Row, table=True):
    """A credential as version 0.1 kept it. It becomes an account at the next start (legacy.py)."""

    __tablename__ = "credentials"
    slug: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    header: str  # empty for one that goes into the environment
    template: str
    origin: str
    envelope: bytes
    version: int
    changed_at: str
    changed_by: str
    environment: str

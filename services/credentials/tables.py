"""The vault's tables. The schema itself is what `migrations/` says; a test compares the two."""

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Row(SQLModel, registry=registry(metadata=MetaData())):
    """Base of the vault's tables: metadata of their own, since other services have tables too."""


class VaultRow(Row, table=True):
    """One row. `last_version` is the last one given to any credential: a version never repeats, so that a
    gateway cannot take a credential made anew for the one that it has in memory. `check_value` tells the
    right master key."""

    __tablename__ = "vault"
    id: int = Field(primary_key=True)
    last_version: int
    check_value: bytes | None


class CredentialRow(Row, table=True):
    """A credential; `envelope` holds the key, encrypted (vault.py), `origin` where it may be sent."""

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

"""The tables. Times are Unix seconds; tokens, codes and session cookies are kept as hashes only."""

from sqlalchemy import JSON, BigInteger, Column, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Base(SQLModel, registry=registry()):
    """Own metadata: the services of embedded mode live in one process, each with its database."""


class UserRow(Base, table=True):
    __tablename__ = "users"

    id: str = Field(primary_key=True)
    email: str
    email_key: str = Field(unique=True)
    name: str
    role: str
    active: bool
    password_hash: str
    tokens_valid_from: int = Field(sa_type=BigInteger)
    version: int
    created_at: int = Field(sa_type=BigInteger)
    joined_at: int | None = Field(default=None, sa_type=BigInteger)


class SessionRow(Base, table=True):
    __tablename__ = "sessions"

    id: str = Field(primary_key=True)
    secret_hash: str = Field(unique=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    created_at: int = Field(sa_type=BigInteger)
    expires_at: int = Field(sa_type=BigInteger)
    ended_at: int | None = Field(default=None, sa_type=BigInteger)
    address: str
    agent: str


class LinkRow(Base, table=True):
    """An unused one-time link. A used one is gone."""

    __tablename__ = "links"

    hash: str = Field(primary_key=True)
    purpose: str
    user_id: str = Field(foreign_key="users.id", index=True)
    created_at: int = Field(sa_type=BigInteger)
    expires_at: int = Field(sa_type=BigInteger)


class ClientRow(Base, table=True):
    __tablename__ = "clients"

    id: str = Field(primary_key=True)
    name: str
    redirect_uris: list[str] = Field(sa_column=Column(JSON, nullable=False))
    grant_types: list[str] = Field(sa_column=Column(JSON, nullable=False))
    auth_method: str
    secret_hash: str
    created_at: int = Field(sa_type=BigInteger)
    fresh_until: int | None = Field(default=None, sa_type=BigInteger)
    rights: str


class CodeRow(Base, table=True):
    __tablename__ = "codes"

    hash: str = Field(primary_key=True)
    grant_id: str
    user_id: str = Field(foreign_key="users.id")
    client_id: str
    client_name: str
    redirect_uri: str
    redirect_host: str
    audience: str
    scope: str
    code_challenge: str
    expires_at: int = Field(sa_type=BigInteger, index=True)
    used_at: int | None = Field(default=None, sa_type=BigInteger)


class DeviceCodeRow(Base, table=True):
    __tablename__ = "device_codes"

    hash: str = Field(primary_key=True)
    user_code: str = Field(unique=True)
    client_id: str
    client_name: str
    audience: str
    scope: str
    expires_at: int = Field(sa_type=BigInteger, index=True)
    polled_at: int = Field(sa_type=BigInteger)
    interval: int
    decision: str


class GrantRow(Base, table=True):
    __tablename__ = "grants"

    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    client_id: str = Field(index=True)
    client_name: str
    redirect_host: str
    audience: str
    scope: str
    created_at: int = Field(sa_type=BigInteger)
    last_used_at: int = Field(sa_type=BigInteger)
    revoked_at: int | None = Field(default=None, sa_type=BigInteger)


class RefreshTokenRow(Base, table=True):
    __tablename__ = "refresh_tokens"

    hash: str = Field(primary_key=True)
    grant_id: str = Field(foreign_key="grants.id", index=True)
    expires_at: int = Field(sa_type=BigInteger, index=True)
    replaced_at: int | None = Field(default=None, sa_type=BigInteger)


class RevocationRow(Base, table=True):
    """A grant or login session that was ended, for as long as tokens issued under it may be alive."""

    __tablename__ = "revocations"

    id: str = Field(primary_key=True)
    at: int = Field(sa_type=BigInteger, index=True)


class SigningKeyRow(Base, table=True):
    """A key pair as JWK, the `number`th. A retired one stays, without its private part."""

    __tablename__ = "signing_keys"

    kid: str = Field(primary_key=True)
    number: int = Field(unique=True)
    jwk: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: int = Field(sa_type=BigInteger)
    published_at: int | None = Field(default=None, sa_type=BigInteger)
    retired_at: int | None = Field(default=None, sa_type=BigInteger)


class SecretRow(Base, table=True):
    """A secret that the replicas of this service share."""

    __tablename__ = "secrets"

    name: str = Field(primary_key=True)
    value: str


class CeremonyRow(Base, table=True):
    """A step of signing in that one browser has begun and not finished. A finished one is gone."""

    __tablename__ = "ceremonies"

    hash: str = Field(primary_key=True)
    kind: str
    user_id: str  # empty while nobody knows whose it is
    data: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    attempts: int
    created_at: int = Field(sa_type=BigInteger)
    expires_at: int = Field(sa_type=BigInteger, index=True)


class IdentityRow(Base, table=True):
    """Whom the organization's OpenID provider means by a subject."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("issuer", "user_id", name="uq_identities_issuer_user_id"),)

    issuer: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    email: str
    created_at: int = Field(sa_type=BigInteger)
    last_used_at: int = Field(sa_type=BigInteger)


class TotpRow(Base, table=True):
    """A confirmed authenticator app. `last_step` is the newest time step (RFC 6238) whose code was used."""

    __tablename__ = "totp"

    user_id: str = Field(primary_key=True, foreign_key="users.id")
    sealed_secret: str
    last_step: int = Field(sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)


class RecoveryCodeRow(Base, table=True):
    __tablename__ = "recovery_codes"

    hash: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    used_at: int | None = Field(default=None, sa_type=BigInteger)


class PasskeyRow(Base, table=True):
    """A WebAuthn credential; id and COSE public key in base64url."""

    __tablename__ = "passkeys"

    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    public_key: str
    sign_count: int = Field(sa_type=BigInteger)
    name: str
    created_at: int = Field(sa_type=BigInteger)
    last_used_at: int | None = Field(default=None, sa_type=BigInteger)

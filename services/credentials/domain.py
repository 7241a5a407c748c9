"""Credentials: whose they are, what may be told of them, and what can go wrong. Nothing here does I/O."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from libs.common.control.entries import CredentialVersion
from libs.common.errors import BadRequest, Conflict, LockgateError, NotFound

LABEL_LENGTH = 200
REASON_LENGTH = 300

Kind: TypeAlias = Literal["api_key", "oauth"]
# attention: it is there, and its owner has to connect again; removed: it is nobody's any longer, and stays
# only until its provider was told.
State: TypeAlias = Literal["connected", "attention", "removed"]


class NoCredential(NotFound):
    type, title = "no-credential", "No credential is stored for this server"


class WrongOrigin(Conflict):
    """Sent there, the key would be known to somebody for whom it was not meant."""

    type, title = "credential-for-another-address", "The credential was stored for another address"


class NeedsAttention(Conflict):
    """It is there and no longer good: its owner has to connect again."""

    type, title = "credential-attention", "The credential has to be connected again"


class CredentialUnreadable(LockgateError):
    """What is stored was changed, moved to another record, or sealed with another master key."""

    status, type, title = 500, "credential-unreadable", "The stored credential cannot be opened"


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Whose credential it is: for the server `slug`, of `user` or of the whole organization."""

    slug: str
    user: str

    @property
    def key(self) -> str:
        """Its key in the control log."""
        return f"credential.{self.slug}.{self.user}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How the credentials of the server `slug` work, as an administrator set it: all but secrets.

    `layout` is the JSON of a `layout.Layout`, `settings` that of what only the kind `oauth` has; either may
    be empty for the usual one."""

    slug: str
    kind: Kind
    layout: str = ""
    settings: str = ""
    version: int
    changed_at: str  # ISO 8601, UTC
    changed_by: str  # e-mail of the administrator

    def identity(self) -> bytes:
        """What its envelope is bound to: all that decides where a credential goes."""
        return _identity("provider", self.slug, self.kind, self.layout, self.settings, self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What may be told about a stored credential: everything but the secret.

    Somebody may have several for one server; the `chosen` one is used. `version` grows with everything that
    a gateway has to know, `sealed_version` only when the secret is another.
    """

    id: str
    owner: Owner
    kind: Kind
    label: str = ""  # connected as whom
    origin: str  # where its server was when it was stored, as `destination_of` has it
    version: int
    sealed_version: int
    state: State = "connected"
    reason: str = ""  # why it needs attention, one sentence for its owner
    chosen: bool = True
    expires_at: float = 0.0  # Unix seconds; 0 where it does not, or is not known
    refresh_at: float = 0.0  # when it is to be renewed, in Unix seconds; 0 for never
    created_at: str  # ISO 8601, UTC
    created_by: str  # e-mail
    changed_at: str
    changed_by: str

    def entry(self) -> CredentialVersion:
        """What the control log says about it."""
        return CredentialVersion(
            version=self.version,
            slug=self.owner.slug,
            user=self.owner.user,
            origin=self.origin,
            attention=self.state == "attention",
        )

    def identity(self) -> bytes:
        """What its envelope is bound to: whose it is, where it may go, and which one of several it is."""
        owner = self.owner
        return _identity(
            "account", self.id, owner.slug, owner.user, self.kind, self.origin, self.sealed_version
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A credential to be stored. Its representation does not show the secret. Raises `BadRequest`."""

    kind: Kind
    secret: bytes = field(repr=False)
    origin: str
    label: str = ""
    expires_at: float = 0.0
    refresh_at: float = 0.0

    def __post_init__(self) -> None:
        if len(self.label) > LABEL_LENGTH or not self.label.isprintable():
            raise BadRequest(f"a label is one line of at most {LABEL_LENGTH} characters")


@dataclass(frozen=True, slots=True)
class Change:
    """What a write did to an account; `None` stands for absent. `owner` says whose entry in the control log
    is another now."""

    owner: Owner
    before: Account | None
    after: Account | None

    @property
    def happened(self) -> bool:
        return self.before != self.after


def encode_values(values: dict[str, str]) -> bytes:
    """The secret of an account of the kind `api_key`."""
    return msgspec.json.encode(values, order="deterministic")


def decode_values(secret: bytes) -> dict[str, str]:
    """The fields of an account of the kind `api_key`, by name."""
    return msgspec.json.decode(secret, type=dict[str, str])


def place(destination: str) -> str:
    """A destination (`destination_of`) in words. Of an earlier command nothing is known but a digest."""
    return "another command" if destination.startswith("stdio:") else destination


def _identity(*parts: str | int) -> bytes:
    """The record that an envelope belongs to, unambiguously."""
    return msgspec.json.encode(["lockgate", *parts])

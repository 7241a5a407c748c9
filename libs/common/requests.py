"""Requests that services make of each other over the bus: subjects and messages."""

import msgspec

OPEN_CREDENTIAL = "credentials.open"


class OpenCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway asks for the credential `credential.<slug>.<user>`, sealed to its `public_key`."""

    slug: str
    user: str
    public_key: str


class SealedCredential(msgspec.Struct, frozen=True, kw_only=True):
    """`box` opens (libs.common.sealed, context `credential_context`) to a JSON `Injection`."""

    version: int
    box: str


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """What a credential adds to a request upstream: header names and values."""

    headers: dict[str, str]


def credential_context(slug: str, user: str, version: int) -> str:
    """Binds a sealed credential to what it is for."""
    return f"credential.{slug}.{user}.{version}"

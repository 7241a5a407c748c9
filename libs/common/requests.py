"""Requests that services make of each other over the bus: subjects and messages."""

import msgspec

OPEN_CREDENTIAL = "credentials.open"


class OpenCredential(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks for the credential `credential.<slug>.<user>`, sealed to their `public_key`.

    `origin` (libs.common.control.entries.destination_of) is where they will send it, if they say so: a
    credential for another is refused then, whatever the one that answers knows of the server.
    """

    slug: str
    user: str
    public_key: str
    asker: str = "gateway"  # the service, for the record
    origin: str = ""


class SealedCredential(msgspec.Struct, frozen=True, kw_only=True):
    """`box` opens (libs.common.sealed, context `credential_context`) to a JSON `Injection`."""

    version: int
    box: str


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """What a credential adds: headers to a request upstream, or variables to the environment of a process."""

    headers: dict[str, str] = {}
    environment: dict[str, str] = {}


def credential_context(slug: str, user: str, version: int) -> str:
    """Binds a sealed credential to what it is for."""
    return f"credential.{slug}.{user}.{version}"

"""Credentials: a header or an environment variable that a server wants to see, made from a key that nobody
sees again."""

import re
from dataclasses import dataclass, field

from libs.common.control.entries import CredentialVersion, Server
from libs.common.environment import check_variable
from libs.common.errors import BadRequest, Conflict, LockgateError, NotFound
from libs.common.requests import Injection

PLACEHOLDER = "{key}"
KEY_LENGTH = 8192
TEMPLATE_LENGTH = 200
HEADER_LENGTH = 100

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

# Headers that belong to the connection, the message or the protocol, and so to the gateway.
_RESERVED = frozenset({
    "accept", "accept-charset", "accept-encoding", "accept-language", "connection", "content-disposition",
    "content-encoding", "content-language", "content-length", "content-location", "content-range",
    "content-type", "date", "expect", "forwarded", "host", "http2-settings", "keep-alive", "last-event-id",
    "max-forwards", "origin", "range", "referer", "te", "trailer", "trailers", "transfer-encoding", "upgrade",
    "via", "x-real-ip",
})  # fmt: skip
_RESERVED_PREFIXES = ("mcp-", "proxy-", "sec-", "access-control-", "if-", "x-forwarded-", "lockgate-")


class NoCredential(NotFound):
    type, title = "no-credential", "No credential is stored for this server"


class WrongOrigin(Conflict):
    """Sent there, the key would be known to somebody for whom it was not meant."""

    type, title = "credential-for-another-address", "The credential was stored for another address"


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


NOBODY = Owner("", "")  # before all others


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a key goes: into the header of that name, or the environment variable; the other is empty. Its
    value is `template` with the key in the place of `{key}`. Raises `BadRequest`."""

    header: str
    template: str
    environment: str = ""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.environment):
            raise BadRequest(
                "a key goes either into a header or into an environment variable: name one of them"
            )
        if len(self.template) > TEMPLATE_LENGTH or self.template.count(PLACEHOLDER) != 1:
            raise BadRequest(
                f"the template must contain {PLACEHOLDER} once, such as 'Bearer {PLACEHOLDER}', "
                f"and have at most {TEMPLATE_LENGTH} characters"
            )
        if self.environment:
            check_variable(self.environment)
            check_environment_value("template", self.template)
            return
        check_header(self.header)
        if not _VALUE.fullmatch(self.template):
            raise BadRequest("the template must be printable ASCII without white space at its ends")

    def check_key(self, key: str) -> None:
        """Raise `BadRequest` if `key` cannot stand there."""
        if self.environment:
            check_environment_value("key", key)
        elif not _VALUE.fullmatch(key):
            raise BadRequest(
                "the key holds a character that a header cannot carry: only printable ASCII, no line breaks, "
                "and no white space at its ends"
            )

    def check_fits(self, server: Server) -> None:
        """Raise `BadRequest` unless `server` takes keys there: stdio has an environment, HTTP has headers."""
        if server.transport == "stdio" and self.header:
            raise BadRequest(
                f"{server.slug} is a command and gets no headers: name the environment variable that it reads"
            )
        if server.transport != "stdio" and self.environment:
            raise BadRequest(f"{server.slug} is reached over HTTP and has no environment here: name a header")
        if self.environment in server.environment:
            raise BadRequest(
                f"{self.environment} is a plain setting of {server.slug} already: remove it there first"
            )

    def render(self, key: str) -> Injection:
        """What to add. A header's name is in lower case, as HTTP does not care."""
        value = self.template.replace(PLACEHOLDER, key)
        if self.environment:
            return Injection(environment={self.environment: value})
        return Injection(headers={self.header.lower(): value})

    def __str__(self) -> str:
        return (
            f"{self.environment}={self.template}" if self.environment else f"{self.header}: {self.template}"
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """A key and where it goes. Its representation does not show the key. Raises `BadRequest`."""

    placement: Placement
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.key:
            raise BadRequest("the key is empty")
        if len(self.key) > KEY_LENGTH:
            raise BadRequest(f"the key has more than {KEY_LENGTH} characters")
        self.placement.check_key(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What may be told about a stored credential: everything but the key."""

    owner: Owner
    placement: Placement
    origin: str  # where its server was when it was stored, as `destination_of` has it
    version: int
    changed_at: str  # ISO 8601, UTC
    changed_by: str  # e-mail of the administrator

    def entry(self) -> CredentialVersion:
        """What the control log says about it."""
        return CredentialVersion(
            version=self.version, slug=self.owner.slug, user=self.owner.user, origin=self.origin
        )


def place(destination: str) -> str:
    """A destination (`destination_of`) in words. Of an earlier command nothing is known but a digest."""
    return "another command" if destination.startswith("stdio:") else destination


@dataclass(frozen=True, slots=True)
class Change:
    """What a write did; `None` stands for absent."""

    before: Credential | None
    after: Credential | None

    @property
    def happened(self) -> bool:
        return self.before != self.after


def check_header(name: str) -> str:
    """`name` if a credential may set that header. Raises `BadRequest`."""
    if len(name) > HEADER_LENGTH or not _TOKEN.fullmatch(name):
        raise BadRequest(f"{name[:80]!r} is no name of a header")
    lower = name.lower()
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
        raise BadRequest(f"the header {name} belongs to the connection or the protocol, not to a key")
    return name


def check_environment_value(name: str, value: str) -> None:
    """Raise `BadRequest` if `value` cannot stand in an environment (POSIX.1-2024, section 8.1)."""
    if "\0" in value or not _is_encodable(value):
        raise BadRequest(f"the {name} holds a character that an environment variable cannot carry")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def default_template(header: str) -> str:
    """The usual template for `header`: RFC 6750 for Authorization, else the bare key."""
    return f"Bearer {PLACEHOLDER}" if header.lower() == "authorization" else PLACEHOLDER

"""Credentials: a header that a server upstream wants to see, made from a key that nobody sees again."""

import re
from dataclasses import dataclass, field

from libs.common.control.entries import CredentialVersion
from libs.common.errors import BadRequest, Conflict, LockgateError, NotFound

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
    """Where a key goes: `header: template`, with the key in the place of `{key}`. Raises `BadRequest`."""

    header: str
    template: str

    def __post_init__(self) -> None:
        check_header(self.header)
        if len(self.template) > TEMPLATE_LENGTH or self.template.count(PLACEHOLDER) != 1:
            raise BadRequest(
                f"the template must contain {PLACEHOLDER} once, such as 'Bearer {PLACEHOLDER}', "
                f"and have at most {TEMPLATE_LENGTH} characters"
            )
        if not _VALUE.fullmatch(self.template):
            raise BadRequest("the template must be printable ASCII without white space at its ends")

    def render(self, key: str) -> dict[str, str]:
        """The header to send. The name is in lower case, as HTTP does not care."""
        return {self.header.lower(): self.template.replace(PLACEHOLDER, key)}


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
        if not _VALUE.fullmatch(self.key):
            raise BadRequest(
                "the key holds a character that a header cannot carry: only printable ASCII, no line breaks, "
                "and no white space at its ends"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What may be told about a stored credential: everything but the key."""

    owner: Owner
    placement: Placement
    origin: str  # of its server's URL when it was stored, as `origin_of` has it
    version: int
    changed_at: str  # ISO 8601, UTC
    changed_by: str  # e-mail of the administrator

    def entry(self) -> CredentialVersion:
        """What the control log says about it."""
        return CredentialVersion(
            version=self.version, slug=self.owner.slug, user=self.owner.user, origin=self.origin
        )


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


def default_template(header: str) -> str:
    """The usual template for `header`: RFC 6750 for Authorization, else the bare key."""
    return f"Bearer {PLACEHOLDER}" if header.lower() == "authorization" else PLACEHOLDER

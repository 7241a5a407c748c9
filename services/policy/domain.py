"""Servers, groups and the organization's switch: what they are and which values they may have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

from libs.common.control import entries
from libs.common.control.entries import Access, AuthType, ServerAccess, Transport
from libs.common.errors import BadRequest, Conflict, LockgateError, NotFound

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAME_LENGTH = 100
URL_LENGTH = 2000
REASON_LENGTH = 500
TOOL_NAME_LENGTH = 256
TOOLS_PER_SERVER = 2000

# What the default group may use of a server that is being added.
InitialAccess: TypeAlias = Literal["allow", "deny", "none"]

T = TypeVar("T")


class UnknownServer(NotFound):
    type, title = "unknown-server", "There is no such server"


class UnknownGroup(NotFound):
    type, title = "unknown-group", "There is no such group"


class ServerExists(Conflict):
    type, title = "server-exists", "There is a server with this slug already"


class Changed(LockgateError):
    """The version named by `If-Match` is not the present one (RFC 9110, section 13.1.1)."""

    status, type, title = 412, "changed-meanwhile", "Somebody else changed this in the meantime"


@dataclass(frozen=True, slots=True)
class Precondition:
    """What has to be there for a write: `version` (`If-Match`), or nothing at all (`If-None-Match: *`)."""

    version: int | None = None
    absent: bool = False

    def check(self, present: int | None) -> None:
        """Raise `Changed` or `ServerExists` unless `present`, the version that is there, meets it."""
        if self.absent and present is not None:
            raise ServerExists
        if self.version is not None and self.version != present:
            raise Changed("Look at what is there now, then change it again.")


ANYTHING = Precondition()


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as its server describes it; the description is for people to read."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What an administrator says about a server. Timeouts in seconds. Raises `BadRequest` for bad values."""

    name: str
    url: str
    transport: Transport = "streamable_http"
    auth: AuthType = "none"
    connect_timeout: float = 5.0
    response_timeout: float = 120.0

    def __post_init__(self) -> None:
        check_name(self.name)
        check_url(self.url)
        if self.transport != "streamable_http":
            raise BadRequest(f"transport {self.transport!r} is not supported yet; use streamable_http")
        if self.auth not in {"none", "api_key"}:
            raise BadRequest(f"auth {self.auth!r} is not supported yet; use none or api_key")
        check_seconds("connect_timeout", self.connect_timeout, 0.1, 60)
        check_seconds("response_timeout", self.response_timeout, 1, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A registered server. `version` grows with every change and never repeats, not even for its slug."""

    slug: str
    definition: Definition
    enabled: bool = True
    reason: str = ""
    tools: tuple[Tool, ...] = ()
    version: int

    def entry(self) -> entries.Server:
        """What the control log says about it."""
        definition = self.definition
        return entries.Server(
            version=self.version,
            slug=self.slug,
            name=definition.name,
            url=definition.url,
            transport=definition.transport,
            enabled=self.enabled,
            reason=self.reason,
            auth=definition.auth,
            tools=[tool.name for tool in self.tools],
            connect_timeout=definition.connect_timeout,
            response_timeout=definition.response_timeout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A permission group and what it may use, by slug of the server."""

    id: str
    name: str
    servers: Mapping[str, ServerAccess] = field(default_factory=dict)
    version: int

    def entry(self) -> entries.Group:
        """What the control log says about it."""
        return entries.Group(version=self.version, id=self.id, name=self.name, servers=dict(self.servers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """The switch for everybody and everything."""

    enabled: bool = True
    reason: str = ""
    version: int

    def entry(self) -> entries.Org:
        """What the control log says about it."""
        return entries.Org(version=self.version, enabled=self.enabled, reason=self.reason)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What a write did: `None` stands for absent. `keys` are those of the control log that it concerns, the
    one that names it first; they are given too when nothing changed, since a request may be repeated in order
    to complete the first one."""

    before: T | None
    after: T | None
    keys: tuple[str, ...]

    @property
    def happened(self) -> bool:
        return self.before != self.after


def check_slug(slug: str) -> str:
    """`slug` if it can name a server. Raises `BadRequest`."""
    if not SLUG.fullmatch(slug):
        raise BadRequest(
            f"{slug[:80]!r} is no slug: up to 63 lower-case letters, digits and hyphens, "
            "beginning with a letter or digit"
        )
    return slug


def check_name(name: str) -> str:
    """`name` if it can stand on a page. Raises `BadRequest`."""
    if not name.strip() or len(name) > NAME_LENGTH or not name.isprintable():
        raise BadRequest(f"a name has 1 to {NAME_LENGTH} printable characters")
    return name


def check_reason(reason: str) -> str:
    """`reason` if it is short enough to be shown to callers. Raises `BadRequest`."""
    if len(reason) > REASON_LENGTH or not reason.isprintable():
        raise BadRequest(f"a reason has at most {REASON_LENGTH} printable characters")
    return reason


def check_url(url: str) -> str:
    """`url` if an upstream can be at it: http or https, a host, no user, password or fragment (RFC 3986)."""
    if len(url) > URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise BadRequest(f"the URL must be at most {URL_LENGTH} ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port != 0
    except ValueError as error:
        raise BadRequest(f"the URL cannot be read: {error}") from error
    if parts.scheme not in {"http", "https"}:
        raise BadRequest("the URL must begin with http:// or https://")
    if not parts.hostname or not port_is_fine:
        raise BadRequest("the URL must name a host, such as https://mcp.example.com/mcp")
    if "@" in parts.netloc:
        raise BadRequest("the URL must not hold a user or password: give the server a credential instead")
    if "#" in url:
        raise BadRequest("the URL must not have a fragment (#)")
    return url


def check_seconds(name: str, value: float, least: float, most: float) -> None:
    """Raise `BadRequest` unless `value` lies between the two."""
    if not least <= value <= most:  # NaN is not between them either
        raise BadRequest(f"{name} must be between {least:g} and {most:g} seconds")


def check_tools(names: list[str]) -> list[str]:
    """`names` without repetitions if each can name a tool. Raises `BadRequest`."""
    if len(names) > TOOLS_PER_SERVER:
        raise BadRequest(f"a server has at most {TOOLS_PER_SERVER} tools here")
    for name in names:
        if not name or len(name) > TOOL_NAME_LENGTH or not name.isprintable():
            raise BadRequest(f"{name[:80]!r} cannot be the name of a tool")
    return list(dict.fromkeys(names))


def chosen(default: Access, ticked: list[str], known: list[str]) -> ServerAccess:
    """Access to exactly the `ticked` ones of the `known` tools; `default` is for tools that appear later."""
    wanted = set(ticked)
    verdicts: dict[str, Access] = {tool: "allow" if tool in wanted else "deny" for tool in known}
    return ServerAccess(
        default=default, tools={tool: verdict for tool, verdict in verdicts.items() if verdict != default}
    )


def is_loopback(url: str) -> bool:
    """Whether `url` leads to this machine itself."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")

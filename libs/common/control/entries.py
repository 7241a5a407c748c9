"""What the control log says. A key is `<kind>` or `<kind>.<name>[.<name>]`; a value is one JSON object.

`version` is the version of the owner's row: it grows with every change of that row, so that a reader of
the log can tell which state of the database an entry stands for.
"""

import hashlib
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

Access: TypeAlias = Literal["allow", "deny"]
Role: TypeAlias = Literal["admin", "auditor", "member"]
AuthType: TypeAlias = Literal["none", "api_key", "oauth"]
Transport: TypeAlias = Literal["streamable_http", "sse", "stdio"]
# Whose processes of a stdio server: everybody's, each user's, or each session's.
Processes: TypeAlias = Literal["shared", "user", "session"]
# "always" translates even where a client could speak with the upstream as it is.
Bridge: TypeAlias = Literal["auto", "always"]

# The `<user>` of a credential that the whole organization uses.
ORGANIZATION = "organization"
DEFAULT_GROUP = "default"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of every entry. Unknown fields are ignored, so that versions can share a log in a rollout."""

    version: int


class Org(Entry, frozen=True, kw_only=True):
    """Key `org`, written by policy: the switch for the whole organization. No entry means off."""

    enabled: bool = True
    reason: str = ""


class Keys(Entry, frozen=True, kw_only=True):
    """Key `keys`, written by auth: public keys (JWK, RFC 7517) that verify access and console tokens."""

    issuer: str
    keys: list[dict[str, Any]]


class Server(Entry, frozen=True, kw_only=True):
    """Key `server.<slug>`, written by policy: a registered server and how to reach its upstream."""

    slug: str
    name: str
    url: str = ""  # empty for stdio
    transport: Transport = "streamable_http"
    bridge: Bridge = "auto"
    enabled: bool = True
    reason: str = ""
    auth: AuthType = "none"
    tools: list[str] = []
    connect_timeout: float = 5.0  # seconds to a connection
    response_timeout: float = 120.0  # seconds to the first byte of an answer
    idle_timeout: float = 60.0  # seconds between bytes of an answer; event streams may be silent for ever
    # Of stdio servers only:
    command: list[str] = []  # the program and its arguments
    environment: dict[str, str] = {}  # settings in plain text, never secrets
    processes: Processes = "shared"
    idle_stop: float = 600.0  # seconds after which a process that nobody uses is stopped


class ServerAccess(msgspec.Struct, frozen=True, kw_only=True):
    """What a group may use of one server: `default` for everything that is not named.

    Resources are named by URI, or by the beginning of one with `*` behind it; the longest that fits counts.
    """

    default: Access = "allow"
    tools: dict[str, Access] = {}
    prompts: dict[str, Access] = {}
    resources: dict[str, Access] = {}


class Group(Entry, frozen=True, kw_only=True):
    """Key `group.<id>`, written by policy. A server that `servers` does not name cannot be used."""

    id: str
    name: str
    servers: dict[str, ServerAccess] = {}


class Member(Entry, frozen=True, kw_only=True):
    """Key `member.<user>`, written by policy: the user's group. Without one it is the default group."""

    user: str
    group: str


class User(Entry, frozen=True, kw_only=True):
    """Key `user.<id>`, written by auth. Tokens issued before `tokens_valid_from` (Unix seconds) are void."""

    id: str
    email: str
    name: str = ""
    role: Role = "member"
    active: bool = True
    tokens_valid_from: int = 0


class Revoked(Entry, frozen=True, kw_only=True):
    """Key `revoked.<grant>`, written by auth, kept for one access-token lifetime. `at` is Unix seconds."""

    grant: str
    at: int


class CredentialVersion(Entry, frozen=True, kw_only=True):
    """Key `credential.<slug>.<user>`, written by credentials: that one exists, its version, and the origin
    for which it was stored. It must not be sent to any other."""

    slug: str
    user: str
    origin: str = ""  # as `destination_of` has it; empty is that of no server

    def is_for(self, server: Server) -> bool:
        """Whether it may be sent to where `server` is now."""
        return bool(self.origin) and self.origin == destination_of(server)


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """Key `replica.<id>`, written by that gateway replica once a second and whenever it applied a change."""

    id: str
    revision: int  # everything up to here is applied
    applied_at: str  # when it was, ISO 8601
    lease: float  # seconds
    on_stale: Literal["refuse", "serve"] = "refuse"


AnyEntry: TypeAlias = Org | Keys | Server | Group | Member | User | Revoked | CredentialVersion | Replica

KINDS: dict[str, type[AnyEntry]] = {
    "org": Org,
    "keys": Keys,
    "server": Server,
    "group": Group,
    "member": Member,
    "user": User,
    "revoked": Revoked,
    "credential": CredentialVersion,
    "replica": Replica,
}


SINGLETONS = frozenset({"org", "keys"})  # kinds of which there is one entry

_KIND_OF = {cls: kind for kind, cls in KINDS.items()}
# The fields that name an entry among its kind, in the order in which they stand in the key.
_NAMED_BY: dict[str, tuple[str, ...]] = {
    "server": ("slug",),
    "group": ("id",),
    "member": ("user",),
    "user": ("id",),
    "revoked": ("grant",),
    "credential": ("slug", "user"),
    "replica": ("id",),
}


def key_of(entry: AnyEntry) -> str:
    """The key under which `entry` stands in the log."""
    kind = _KIND_OF[type(entry)]
    return ".".join([kind, *(getattr(entry, field) for field in _NAMED_BY.get(kind, ()))])


def destination_of(server: Server) -> str:
    """Where a credential for `server` goes: the origin of its URL, or, for stdio, a name for its command.

    The settings of its environment are part of that: one of them may say where the command sends the key.
    """
    if server.transport != "stdio":
        return origin_of(server.url)
    program = [server.command, sorted(server.environment.items())]
    digest = hashlib.sha256(msgspec.json.encode(program)).hexdigest()
    return f"stdio:{digest}" if server.command else ""


_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """The origin of `url` (RFC 6454), always with its port: `https://crm.example.com:443`.

    Empty when it has none: not http or https, no host, or not to be read.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{_PORTS[parts.scheme] if port is None else port}"

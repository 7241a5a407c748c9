"""What the control log says. A key is `<kind>` or `<kind>.<name>[.<name>]`; a value is one JSON object.

`version` is the version of the owner's row: it grows with every change of that row, so that a reader of
the log can tell which state of the database an entry stands for.
"""

import hashlib
from functools import lru_cache
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

# How a tool is held that appears at a server later, or changes: see `Server`.
NewTools: TypeAlias = Literal["allow", "review"]
Pinning: TypeAlias = Literal["enforce", "off"]
# Why a tool waits for an administrator: it is not what was approved, or nobody has looked at it.
Held: TypeAlias = Literal["changed", "new"]
Effect: TypeAlias = Literal["allow", "deny"]
RuleScope: TypeAlias = Literal["organization", "group", "user"]
QuotaOf: TypeAlias = Literal["user", "group", "server", "tool"]

# The `<user>` of a credential that the whole organization uses.
ORGANIZATION = "organization"
DEFAULT_GROUP = "default"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of every entry. Unknown fields are ignored, so that versions can share a log in a rollout."""

    version: int


class Switched(Entry, frozen=True, kw_only=True):
    """Fields of entries that have a switch. `until` (ISO 8601) is when policy, and nobody else, will switch
    on again what is off; empty when somebody has to."""

    enabled: bool = True
    reason: str = ""
    until: str = ""


class Off(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that is switched off; the fields are those of `Switched`."""

    reason: str = ""
    until: str = ""


class Org(Switched, frozen=True, kw_only=True):
    """Key `org`, written by policy: the switch for the whole organization. No entry means off."""


class Keys(Entry, frozen=True, kw_only=True):
    """Key `keys`, written by auth: public keys (JWK, RFC 7517) that verify access and console tokens."""

    issuer: str
    keys: list[dict[str, Any]]


class Server(Switched, frozen=True, kw_only=True):
    """Key `server.<slug>`, written by policy: a registered server and how to reach its upstream.

    `tools` maps each known tool to the digest of its definition that was approved
    (libs.common.decision.pins), empty where only its name is known. `quarantined` ones changed since, or are
    new and wait for review. Tools that are in neither are new: `new_tools` says how they are held. With
    `pinning` off none is held.
    """

    slug: str
    name: str
    url: str = ""  # empty for stdio
    transport: Transport = "streamable_http"
    bridge: Bridge = "auto"
    auth: AuthType = "none"
    tools: dict[str, str] = {}
    quarantined: dict[str, Held] = {}
    tools_off: dict[str, Off] = {}
    new_tools: NewTools = "allow"
    pinning: Pinning = "enforce"
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


class Group(Switched, frozen=True, kw_only=True):
    """Key `group.<id>`, written by policy. A server that `servers` does not name cannot be used."""

    id: str
    name: str
    servers: dict[str, ServerAccess] = {}


class Member(Switched, frozen=True, kw_only=True):
    """Key `member.<user>`, written by policy: the user's group and switch. Without one it is the default
    group, and on."""

    user: str
    group: str


class Client(Switched, frozen=True, kw_only=True):
    """Key `client.<id>`, written by policy where an OAuth client is switched off. `id` is `client_key` of its
    client id, which may be a URL and so no part of a key."""

    id: str
    client_id: str


class Rule(Entry, frozen=True, kw_only=True):
    """Key `rule.<id>`, written by policy: a verdict on the uses for which `condition` holds, see
    libs.common.decision.rules. `scope_id` names the group or user of the scope. `servers` and `tools` narrow
    it to these; empty lists to nothing. `message` is for the caller."""

    id: str
    name: str
    effect: Effect = "deny"
    priority: int = 0
    scope: RuleScope = "organization"
    scope_id: str = ""
    servers: list[str] = []
    tools: list[str] = []
    condition: str = ""  # CEL; empty always holds
    message: str = ""
    enabled: bool = True


class Quota(Entry, frozen=True, kw_only=True):
    """Key `quota.<id>`, written by policy: how many calls of tools may be made in a minute and a day (UTC).

    `of` says whose calls are counted together: those of a user, of a group's members, to a server, or to a
    tool (`<slug>/<tool>`). `subject` names that one; empty: each of them has the limit for itself. `servers`
    narrows what is counted; empty to nothing.
    """

    id: str
    name: str
    of: QuotaOf
    subject: str = ""
    servers: list[str] = []
    per_minute: int | None = None
    per_day: int | None = None


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
    attention: bool = False  # it is no longer good: its owner has to connect again

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


AnyEntry: TypeAlias = (
    Org
    | Keys
    | Server
    | Group
    | Member
    | Client
    | Rule
    | Quota
    | User
    | Revoked
    | CredentialVersion
    | Replica
)

KINDS: dict[str, type[AnyEntry]] = {
    "org": Org,
    "keys": Keys,
    "server": Server,
    "group": Group,
    "member": Member,
    "client": Client,
    "rule": Rule,
    "quota": Quota,
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
    "client": ("id",),
    "rule": ("id",),
    "quota": ("id",),
    "user": ("id",),
    "revoked": ("grant",),
    "credential": ("slug", "user"),
    "replica": ("id",),
}


def key_of(entry: AnyEntry) -> str:
    """The key under which `entry` stands in the log."""
    kind = _KIND_OF[type(entry)]
    return ".".join([kind, *(getattr(entry, field) for field in _NAMED_BY.get(kind, ()))])


@lru_cache(4096)
def client_key(client_id: str) -> str:
    """How the OAuth client `client_id` is named in keys of the log: the beginning of its SHA-256."""
    return hashlib.sha256(client_id.encode()).hexdigest()[:32]


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

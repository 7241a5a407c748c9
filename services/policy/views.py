"""What the API takes and gives, as OpenAPI describes it."""

from dataclasses import asdict
from typing import Self

import msgspec
from pydantic import BaseModel, ConfigDict

from libs.common.control.entries import Access, AuthType, Bridge, Processes, ServerAccess, Transport
from libs.common.control.owner import Receipt
from libs.common.requests import ProcessState
from services.policy.definition import Definition, InitialAccess
from services.policy.domain import Group, Organization, Server
from services.policy.features import KINDS, check_names
from services.policy.names import check_reason


class _Body(BaseModel):
    """Unknown fields are refused: a misspelt one would silently do nothing."""

    model_config = ConfigDict(extra="forbid")


class ServerBody(_Body):
    """A server's definition; times in seconds. One over `streamable_http` or `sse` has a `url`; one over
    `stdio` is a process of `command` (the program and its arguments, without a shell) with `environment`,
    which is for settings: secrets are credentials. `processes` says who shares one; one that nobody has used
    for `idle_stop` is stopped. `default_access` is what the default group gets when the server is created."""

    name: str
    url: str = ""
    transport: Transport = "streamable_http"
    bridge: Bridge = "auto"
    auth: AuthType = "none"
    connect_timeout: float = 5.0
    response_timeout: float = 120.0
    idle_timeout: float = 60.0
    command: list[str] = []
    environment: dict[str, str] = {}
    processes: Processes = "shared"
    idle_stop: float = 600.0
    default_access: InitialAccess = "none"

    def definition(self) -> Definition:
        """Raises `BadRequest` for values that a server cannot have."""
        values = self.model_dump(exclude={"default_access"})
        return Definition(**values | {"command": tuple(self.command)})


class SwitchBody(_Body):
    """`reason` is shown to those whose calls are refused."""

    enabled: bool
    reason: str = ""

    def checked_reason(self) -> str:
        """The reason to keep: none for what is switched on. Raises `BadRequest`."""
        return "" if self.enabled else check_reason(self.reason.strip())


class ToolsBody(_Body):
    """Names of tools, for a server that does not tell them."""

    tools: list[str]


class PromptsBody(_Body):
    """Names of prompts, for a server that does not tell them."""

    prompts: list[str]


class ResourcesBody(_Body):
    """URIs of resources, or the beginnings of URIs with `*` behind them."""

    resources: list[str]


class AccessBody(_Body):
    """`default` is for whatever is not named. Resources are named by URI, or by the beginning of one with `*`
    behind it; the longest that fits counts."""

    default: Access = "allow"
    tools: dict[str, Access] = {}
    prompts: dict[str, Access] = {}
    resources: dict[str, Access] = {}

    def access(self) -> ServerAccess:
        """Raises `BadRequest`."""
        for kind in KINDS:
            check_names(kind, getattr(self, kind))
        return ServerAccess(**self.model_dump())


class GroupBody(_Body):
    name: str


class Versioned(BaseModel):
    """`version` is also the entity tag."""

    version: int


class FeatureView(BaseModel):
    name: str
    description: str


class ServerView(Versioned):
    """A server and what it is known to offer. `mcp_url` is what people give to their clients."""

    slug: str
    name: str
    mcp_url: str
    url: str
    transport: Transport
    bridge: Bridge
    auth: AuthType
    enabled: bool
    reason: str
    connect_timeout: float
    response_timeout: float
    idle_timeout: float
    command: list[str]
    environment: dict[str, str]
    processes: Processes
    idle_stop: float
    tools: list[FeatureView]
    prompts: list[FeatureView]
    resources: list[FeatureView]

    @classmethod
    def of(cls, server: Server, public_url: str, **more: object) -> Self:
        values: dict[str, object] = {
            "slug": server.slug,
            "mcp_url": mcp_url(public_url, server.slug),
            "enabled": server.enabled,
            "reason": server.reason,
            "version": server.version,
        }
        offered = {kind: [asdict(feature) for feature in known] for kind, known in server.features}
        return cls.model_validate(values | asdict(server.definition) | offered | more)


class AccessView(BaseModel):
    default: Access
    tools: dict[str, Access]
    prompts: dict[str, Access]
    resources: dict[str, Access]


class GroupView(Versioned):
    """A group and what it may use, by slug of the server; what is not named it may not use."""

    id: str
    name: str
    servers: dict[str, AccessView]

    @classmethod
    def of(cls, group: Group, **more: object) -> Self:
        servers = {slug: msgspec.structs.asdict(access) for slug, access in group.servers.items()}
        values: dict[str, object] = {"id": group.id, "name": group.name, "version": group.version}
        return cls.model_validate(values | {"servers": servers} | more)


class OrganizationView(Versioned):
    enabled: bool
    reason: str

    @classmethod
    def of(cls, organization: Organization, **more: object) -> Self:
        values: dict[str, object] = {
            "enabled": organization.enabled,
            "reason": organization.reason,
            "version": organization.version,
        }
        return cls.model_validate(values | more)


class ServerChanged(ServerView):
    receipt: Receipt


class GroupChanged(GroupView):
    receipt: Receipt


class OrganizationChanged(OrganizationView):
    receipt: Receipt


class Deleted(BaseModel):
    receipt: Receipt


class ProcessView(BaseModel):
    """A process of a stdio server, or the last one where none runs. `user` is whose alone it is, empty for
    everybody's; `errors` are the last lines that it wrote on standard error."""

    state: ProcessState
    user: str
    pid: int | None
    started: str
    ending: str
    retry_in: float
    errors: list[str]


class ReplicaProcesses(BaseModel):
    """What runs at a gateway replica; `enabled`: it runs commands at all."""

    replica: str
    enabled: bool
    processes: list[ProcessView]


class ProcessPage(BaseModel):
    """Of the replicas that answered."""

    items: list[ReplicaProcesses]


class ServerPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[ServerView]
    next: str | None


class GroupPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[GroupView]
    next: str | None


def mcp_url(public_url: str, slug: str) -> str:
    """The URL that people give to their clients."""
    return f"{public_url}/mcp/{slug}"

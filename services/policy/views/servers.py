"""Servers and their processes."""

from dataclasses import asdict
from typing import Self

from msgspec import structs
from pydantic import BaseModel, Field

from libs.common.control.entries import AuthType, Bridge, Held, NewTools, Pinning, Processes, Transport
from libs.common.control.owner import Receipt
from libs.common.requests import ProcessState
from services.policy.definition import Definition, InitialAccess
from services.policy.domain import Server
from services.policy.views.base import Body, Switched


class ServerBody(Body):
    """A server's definition; times in seconds. One over `streamable_http` or `sse` has a `url`; one over
    `stdio` is a process of `command` (the program and its arguments, without a shell) with `environment`,
    which is for settings: secrets are credentials. `processes` says who shares one; one that nobody has used
    for `idle_stop` is stopped. With `pinning` a tool whose definition changes is held until it is approved,
    and with `new_tools` on `review` one that appears later is, too. `default_access` is what the default
    group gets when the server is created."""

    name: str
    url: str = ""
    transport: Transport = "streamable_http"
    bridge: Bridge = "auto"
    auth: AuthType = "none"
    connect_timeout: float = 5.0
    response_timeout: float = 120.0
    idle_timeout: float = 60.0
    command: list[str] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    processes: Processes = "shared"
    idle_stop: float = 600.0
    new_tools: NewTools = "allow"
    pinning: Pinning = "enforce"
    default_access: InitialAccess = "none"

    def definition(self) -> Definition:
        """Raises `BadRequest` for values that a server cannot have."""
        values = self.model_dump(exclude={"default_access"})
        return Definition(**values | {"command": tuple(self.command)})


class ToolsBody(Body):
    """Names of tools, for a server that does not tell them."""

    tools: list[str]


class PromptsBody(Body):
    """Names of prompts, for a server that does not tell them."""

    prompts: list[str]


class ResourcesBody(Body):
    """URIs of resources, or the beginnings of URIs with `*` behind them."""

    resources: list[str]


class FeatureView(BaseModel):
    name: str
    description: str


class OffView(BaseModel):
    """Why a tool is switched off, and until when."""

    reason: str
    until: str


class ServerView(Switched):
    """A server and what it is known to offer. `mcp_url` is what people give to their clients."""

    slug: str
    name: str
    mcp_url: str
    url: str
    transport: Transport
    bridge: Bridge
    auth: AuthType
    connect_timeout: float
    response_timeout: float
    idle_timeout: float
    command: list[str]
    environment: dict[str, str]
    processes: Processes
    idle_stop: float
    new_tools: NewTools
    pinning: Pinning
    tools: list[FeatureView]
    prompts: list[FeatureView]
    resources: list[FeatureView]
    tools_off: dict[str, OffView]
    quarantined: dict[str, Held]

    @classmethod
    def of(cls, server: Server, public_url: str, **more: object) -> Self:
        values: dict[str, object] = {
            "slug": server.slug,
            "mcp_url": mcp_url(public_url, server.slug),
            "quarantined": {tool: pin.held for tool, pin in server.pins.items() if pin.held},
            "tools_off": {tool: structs.asdict(off) for tool, off in server.tools_off.items()},
        } | server.switched()
        offered = {kind: [asdict(feature) for feature in known] for kind, known in server.features}
        return cls.model_validate(values | asdict(server.definition) | offered | more)


class ServerChanged(ServerView):
    receipt: Receipt


class ServerPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[ServerView]
    next: str | None


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


def mcp_url(public_url: str, slug: str) -> str:
    """The URL that people give to their clients."""
    return f"{public_url}/mcp/{slug}"

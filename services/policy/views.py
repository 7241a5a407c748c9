"""What the API takes and gives, as OpenAPI describes it."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from libs.common.control.entries import Access, ServerAccess
from libs.common.control.owner import Receipt
from services.policy.domain import (
    Definition,
    Group,
    InitialAccess,
    Organization,
    Server,
    check_reason,
    check_tools,
)


class _Body(BaseModel):
    """Unknown fields are refused: a misspelt one would silently do nothing."""

    model_config = ConfigDict(extra="forbid")


class ServerBody(_Body):
    """A server's definition. `default_access` is what the default group gets when the server is created."""

    name: str
    url: str
    transport: str = "streamable_http"
    auth: str = "none"
    connect_timeout: float = 5.0
    response_timeout: float = 120.0
    default_access: InitialAccess = "none"

    def definition(self) -> Definition:
        """Raises `BadRequest` for values that a server cannot have."""
        return Definition(**self.model_dump(exclude={"default_access"}))


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

    def names(self) -> list[str]:
        """Raises `BadRequest`."""
        return check_tools(self.tools)


class AccessBody(_Body):
    """`default` is for every tool that `tools` does not name."""

    default: Access = "allow"
    tools: dict[str, Access] = {}

    def access(self) -> ServerAccess:
        """Raises `BadRequest`."""
        check_tools(list(self.tools))
        return ServerAccess(default=self.default, tools=self.tools)


class GroupBody(_Body):
    name: str


class Versioned(BaseModel):
    """`version` is also the entity tag."""

    version: int


class ToolView(BaseModel):
    name: str
    description: str


class ServerView(Versioned):
    """A server. `mcp_url` is what people give to their clients."""

    slug: str
    name: str
    mcp_url: str
    url: str
    transport: str
    auth: str
    enabled: bool
    reason: str
    connect_timeout: float
    response_timeout: float
    tools: list[ToolView]

    @classmethod
    def of(cls, server: Server, public_url: str, **more: object) -> Self:
        definition = server.definition
        values: dict[str, object] = {
            "slug": server.slug,
            "name": definition.name,
            "mcp_url": mcp_url(public_url, server.slug),
            "url": definition.url,
            "transport": definition.transport,
            "auth": definition.auth,
            "enabled": server.enabled,
            "reason": server.reason,
            "connect_timeout": definition.connect_timeout,
            "response_timeout": definition.response_timeout,
            "tools": [{"name": tool.name, "description": tool.description} for tool in server.tools],
            "version": server.version,
        }
        return cls.model_validate(values | more)


class AccessView(BaseModel):
    default: Access
    tools: dict[str, Access]


class GroupView(Versioned):
    """A group and what it may use, by slug of the server; what is not named it may not use."""

    id: str
    name: str
    servers: dict[str, AccessView]

    @classmethod
    def of(cls, group: Group, **more: object) -> Self:
        servers = {
            slug: {"default": access.default, "tools": access.tools} for slug, access in group.servers.items()
        }
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

"""Policy's tables, and their rows as values of the domain. The schema itself is what `migrations/` says; a
test compares the two."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import JSON, Column, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from libs.common.control.entries import Member
from services.policy.domain import Definition, Organization, Server, Tool


class Row(SQLModel, registry=registry(metadata=MetaData())):
    """Base of policy's tables: metadata of their own, since other services have tables too."""


class Counter(Row, table=True):
    """One row: the last version given to any row. Versions never repeat, even if a row is made anew."""

    __tablename__ = "counter"
    id: int = Field(primary_key=True)
    value: int


class OrganizationRow(Row, table=True):
    """One row: the organization's switch."""

    __tablename__ = "organization"
    id: int = Field(primary_key=True)
    enabled: bool
    reason: str
    version: int


class ServerRow(Row, table=True):
    """A registered server. `tools` is a list of `{"name", "description"}`; timeouts in seconds."""

    __tablename__ = "servers"
    slug: str = Field(primary_key=True)
    name: str
    url: str
    transport: str
    auth: str
    enabled: bool
    reason: str
    tools: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    connect_timeout: float
    response_timeout: float
    version: int


class GroupRow(Row, table=True):
    """A permission group."""

    __tablename__ = "groups"
    id: str = Field(primary_key=True)
    name: str
    version: int


class AccessRow(Row, table=True):
    """What a group may use of a server; no row is no access. `tools` maps a name to `allow` or `deny`."""

    __tablename__ = "access"
    group_id: str = Field(primary_key=True, foreign_key="groups.id")
    server_slug: str = Field(primary_key=True, foreign_key="servers.slug", index=True)
    default: str
    tools: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class MemberRow(Row, table=True):
    """Which group a user is in, unless it is the default group."""

    __tablename__ = "members"
    user_id: str = Field(primary_key=True)
    group_id: str = Field(foreign_key="groups.id", index=True)
    version: int


def server_row(slug: str, definition: Definition, version: int) -> ServerRow:
    columns = asdict(definition)
    return ServerRow(slug=slug, enabled=True, reason="", tools=[], version=version, **columns)


def define(row: ServerRow, definition: Definition) -> None:
    for column, value in asdict(definition).items():
        setattr(row, column, value)


def server_of(row: ServerRow) -> Server:
    return Server(
        slug=row.slug,
        definition=Definition(
            name=row.name,
            url=row.url,
            transport=row.transport,  # type: ignore[arg-type]
            auth=row.auth,  # type: ignore[arg-type]
            connect_timeout=row.connect_timeout,
            response_timeout=row.response_timeout,
        ),
        enabled=row.enabled,
        reason=row.reason,
        tools=tuple(Tool(tool["name"], tool["description"]) for tool in row.tools),
        version=row.version,
    )


def organization_of(row: OrganizationRow) -> Organization:
    return Organization(enabled=row.enabled, reason=row.reason, version=row.version)


def member_of(row: MemberRow) -> Member:
    return Member(version=row.version, user=row.user_id, group=row.group_id)

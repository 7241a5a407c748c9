"""Policy's tables, and their rows as values of the domain. The schema itself is what `migrations/` says; a
test compares the two."""

from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import JSON, Column, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from libs.common.control.entries import Member, ServerAccess
from services.policy.definition import Definition
from services.policy.domain import Organization, Server
from services.policy.features import KINDS, Feature, Features


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
    """A registered server. What it offers are lists of `{"name", "description"}`; times are in seconds."""

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
    bridge: str
    idle_timeout: float
    command: list[str] = Field(sa_column=Column(JSON, nullable=False))
    environment: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    processes: str
    idle_stop: float
    prompts: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    resources: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))


class GroupRow(Row, table=True):
    """A permission group."""

    __tablename__ = "groups"
    id: str = Field(primary_key=True)
    name: str
    version: int


class AccessRow(Row, table=True):
    """What a group may use of a server; no row is no access. `tools`, `prompts` and `resources` map a name to
    `allow` or `deny`."""

    __tablename__ = "access"
    group_id: str = Field(primary_key=True, foreign_key="groups.id")
    server_slug: str = Field(primary_key=True, foreign_key="servers.slug", index=True)
    default: str
    tools: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    prompts: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    resources: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class MemberRow(Row, table=True):
    """Which group a user is in, unless it is the default group."""

    __tablename__ = "members"
    user_id: str = Field(primary_key=True)
    group_id: str = Field(foreign_key="groups.id", index=True)
    version: int


def server_row(slug: str, definition: Definition, version: int) -> ServerRow:
    row = ServerRow(slug=slug, enabled=True, reason="", version=version)  # type: ignore[call-arg]
    define(row, definition)
    offer(row, Features())
    return row


def define(row: ServerRow, definition: Definition) -> None:
    for column, value in asdict(definition).items():
        setattr(row, column, list(value) if isinstance(value, tuple) else value)


def offer(row: ServerRow, features: Features) -> None:
    for kind, offered in features:
        setattr(row, kind, [asdict(feature) for feature in offered])


def server_of(row: ServerRow) -> Server:
    columns = {column.name: getattr(row, column.name) for column in fields(Definition)}
    offered = {kind: tuple(Feature(**feature) for feature in getattr(row, kind)) for kind in KINDS}
    return Server(
        slug=row.slug,
        definition=Definition(**columns | {"command": tuple(row.command)}),
        enabled=row.enabled,
        reason=row.reason,
        features=Features(**offered),
        version=row.version,
    )


def grant(row: AccessRow, access: ServerAccess) -> None:
    row.default = access.default
    row.tools, row.prompts, row.resources = dict(access.tools), dict(access.prompts), dict(access.resources)


def access_of(row: AccessRow) -> ServerAccess:
    return ServerAccess(
        default=row.default,  # type: ignore[arg-type]
        tools=row.tools,
        prompts=row.prompts,
        resources=row.resources,
    )


def organization_of(row: OrganizationRow) -> Organization:
    return Organization(enabled=row.enabled, reason=row.reason, version=row.version)


def member_of(row: MemberRow) -> Member:
    return Member(version=row.version, user=row.user_id, group=row.group_id)

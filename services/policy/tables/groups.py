"""Groups, what they may use, and who is in them."""

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field

from libs.common.control.entries import ServerAccess
from services.policy.tables.row import Row


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
    """Which group a user is in. Without a row it is the default group."""

    __tablename__ = "members"
    user_id: str = Field(primary_key=True)
    group_id: str = Field(foreign_key="groups.id", index=True)
    version: int


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

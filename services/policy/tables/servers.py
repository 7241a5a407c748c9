"""Registered servers."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field

from libs.common.control.entries import Off
from services.policy.definition import Definition
from services.policy.domain import Server
from services.policy.features import KINDS, Feature, Features
from services.policy.pins import Pin
from services.policy.tables.row import Row


class ServerRow(Row, table=True):
    """A registered server. What it offers are lists of `{"name", "description"}`; times are in seconds."""

    __tablename__ = "servers"
    slug: str = Field(primary_key=True)
    name: str
    url: str
    transport: str
    auth: str
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
    new_tools: str
    pinning: str


def server_row(slug: str, definition: Definition, version: int) -> ServerRow:
    row = ServerRow(slug=slug, version=version)  # type: ignore[call-arg]
    define(row, definition)
    offer(row, Features())
    return row


def define(row: ServerRow, definition: Definition) -> None:
    for column, value in asdict(definition).items():
        setattr(row, column, list(value) if isinstance(value, tuple) else value)


def offer(row: ServerRow, features: Features) -> None:
    for kind, offered in features:
        setattr(row, kind, [asdict(feature) for feature in offered])


def server_of(
    row: ServerRow, off: Off | None, tools_off: Mapping[str, Off], pins: Mapping[str, Pin]
) -> Server:
    columns = {column.name: getattr(row, column.name) for column in fields(Definition)}
    offered = {kind: tuple(Feature(**feature) for feature in getattr(row, kind)) for kind in KINDS}
    return Server(
        slug=row.slug,
        definition=Definition(**columns | {"command": tuple(row.command)}),
        off=off,
        tools_off=tools_off,
        pins=pins,
        features=Features(**offered),
        version=row.version,
    )

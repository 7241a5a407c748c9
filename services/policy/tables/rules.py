"""Rules and quotas. The columns are the fields of their entries in the control log."""

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field

from services.policy.tables.row import Row


class RuleRow(Row, table=True):
    """As `libs.common.control.entries.Rule`."""

    __tablename__ = "rules"
    id: str = Field(primary_key=True)
    name: str
    effect: str
    priority: int
    scope: str
    scope_id: str
    servers: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    tools: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    condition: str
    message: str
    enabled: bool
    version: int


class QuotaRow(Row, table=True):
    """As `libs.common.control.entries.Quota`. One limit may be absent."""

    __tablename__ = "quotas"
    id: str = Field(primary_key=True)
    name: str
    of: str
    subject: str
    servers: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    per_minute: int | None = None
    per_day: int | None = None
    version: int

"""The organization."""

from sqlmodel import Field

from services.policy.tables.row import Row


class OrganizationRow(Row, table=True):
    """One row."""

    __tablename__ = "organization"
    id: int = Field(primary_key=True)
    version: int

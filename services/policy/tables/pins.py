"""What is approved of tools."""

from sqlmodel import Field

from services.policy.tables.row import Row


class PinRow(Row, table=True):
    """The pin of a tool. The definitions are canonical (libs.common.decision.pins); empty where they were too
    long to be kept."""

    __tablename__ = "pins"
    server_slug: str = Field(primary_key=True, foreign_key="servers.slug")
    tool: str = Field(primary_key=True)
    digest: str
    definition: str
    offered: str
    offered_definition: str
    since: str
    rejected: bool
    version: int

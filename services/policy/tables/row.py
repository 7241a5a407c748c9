"""What policy's tables have in common."""

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Row(SQLModel, registry=registry(metadata=MetaData())):
    """Base of policy's tables: metadata of their own, since other services have tables too."""


class Counter(Row, table=True):
    """One row: the last version given to any row. Versions never repeat, even if a row is made anew."""

    __tablename__ = "counter"
    id: int = Field(primary_key=True)
    value: int

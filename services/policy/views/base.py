"""What bodies and answers have in common."""

from pydantic import BaseModel, ConfigDict

from libs.common.control.owner import Receipt


class Body(BaseModel):
    """Unknown fields are refused: a misspelt one would silently do nothing."""

    model_config = ConfigDict(extra="forbid")


class Versioned(BaseModel):
    """`version` is also the entity tag."""

    version: int


class Switched(Versioned):
    """What can be switched off. `until`, ISO 8601 in UTC, is when it comes on again by itself; empty for one
    that somebody has to switch on."""

    enabled: bool
    reason: str
    until: str


class Deleted(BaseModel):
    receipt: Receipt

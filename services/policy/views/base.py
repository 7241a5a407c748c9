"""What bodies and answers have in common."""

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

from libs.common.control.owner import Receipt


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie in the years 1 to 9999 of UTC") from None


Moment: TypeAlias = Annotated[AwareDatetime, AfterValidator(_in_utc)]  # a time with its zone


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

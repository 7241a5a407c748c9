"""Lists paged by key, and times as the API writes them."""

from datetime import UTC, datetime
from typing import Annotated, Protocol, TypeVar

from fastapi import Query

from libs.common.clock import iso

After = Annotated[str, Query(max_length=64, description="Key of the last item of the page before.")]
Limit = Annotated[int, Query(ge=1, le=200)]


class Keyed(Protocol):
    id: str


T = TypeVar("T", bound=Keyed)


def following(items: list[T], limit: int) -> str | None:
    """The `after` of the next page; None on the last one."""
    return items[-1].id if len(items) == limit else None


def time_of(seconds: int) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))

"""Calls and events as the service shows them, filters over them, and the cursor that pages through them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias, get_args

from libs.common.clock import iso
from libs.common.control.entries import User
from libs.common.errors import BadRequest
from libs.common.records import Status

STATUSES: tuple[str, ...] = get_args(Status)
PAGE = 30
MAX_PAGE = 200

Methods: TypeAlias = Literal["calls", "all"]


class BadCursor(BadRequest):
    """`after` is not a cursor of ours."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place of a row in the order of all lists: newest first, by (time, id). Written `<time>_<id>`."""

    time: datetime
    id: str

    def __str__(self) -> str:
        return f"{iso(self.time)}_{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor in `text`. Raises `BadCursor`."""
        moment, separator, row = text.partition("_")
        try:
            return cls(utc(datetime.fromisoformat(moment)), row) if separator and row else _refuse(text)
        except (ValueError, OverflowError):
            return _refuse(text)


def _refuse(text: str) -> Cursor:
    raise BadCursor(f"after: {text!r} is not the `next` of an earlier answer")


def utc(moment: datetime) -> datetime:
    """`moment` in UTC; without a zone it is taken to be UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFilter:
    """Which calls to show; empty means any. `since` is inclusive, `until` is not.

    Without `method`, `methods` chooses between tool calls with whatever was refused or failed ("calls"), and
    the protocol's own traffic too ("all").
    """

    owner: str = ""  # only calls of the user with this id, whatever `user` says
    user: str = ""  # an id, or a part of an e-mail address in any case
    server: str = ""  # a part of the slug in any case
    tool: str = ""  # a part of the name in any case
    status: str = ""
    method: str = ""
    methods: Methods = "calls"
    since: datetime | None = None
    until: datetime | None = None


def visible_to(user: User) -> str:
    """The `owner` that `user` is held to: members see their own calls only."""
    return "" if user.role in ("admin", "auditor") else user.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call without its payloads, as the lists show it. Fields as in `libs.common.records.CallRecord`."""

    id: str
    time: str
    status: str
    server: str
    method: str
    tool: str
    user: str
    email: str
    group: str
    grant: str
    client_id: str
    client_name: str
    address: str
    session: str
    protocol: str
    http_status: int
    error_code: int
    reason: str
    rule: str
    revision: int
    detail: str
    duration_us: int
    first_byte_us: int
    input_bytes: int
    input_sha256: str
    output_bytes: int
    output_sha256: str
    replica: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FullCall(Call):
    """A call with its input and output as recorded: JSON, cut at the record limit (then there is a hash)."""

    input: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthEventRow:
    """A row of `auth_events`; fields as in `libs.common.records.AuthEvent`."""

    id: str
    time: str
    event: str
    outcome: str
    reason: str
    user: str
    email: str
    grant: str
    client_id: str
    client_name: str
    address: str
    server: str
    detail: str
    replica: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminEventRow:
    """A row of `admin_events`; fields as in `libs.common.records.AdminEvent`."""

    id: str
    time: str
    event: str
    actor: str
    email: str
    subject: str
    before: str
    after: str
    revision: int
    detail: str
    replica: str
    seq: int

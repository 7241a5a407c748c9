"""Every query of the service. Values are always bound parameters; only constants become SQL."""

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from libs.common.clock import iso, now
from libs.common.errors import NotFound
from libs.common.records import Table
from services.activity.clickhouse import ClickHouse
from services.activity.domain import AdminEventRow, AuthEventRow, Call, CallFilter, Cursor, FullCall

AnyRow = TypeVar("AnyRow", Call, FullCall, AuthEventRow, AdminEventRow)

BEFORE = "time <= {at:DateTime64(6, 'UTC')} AND (time, id) < ({at:DateTime64(6, 'UTC')}, {after:String})"
# What matters without being asked for: tool calls, and whatever was refused or failed.
_CALLS_ONLY = "(method = 'tools/call' OR status IN ('denied', 'failed'))"


# Characters of a text column in a list; one call has them in full. Payloads have a limit of their own, states
# before and after a change are documents, and what the order is made of stays as it is.
LISTED = 512
_LISTED = {"before": 50_000, "after": 50_000}
_WHOLE = ("id", "time")
SUGGESTED = 256  # bytes; longer names are not suggested in the filter


class Page(Generic[AnyRow]):
    """Rows, newest first, and the cursor of what follows; None at the end."""

    def __init__(self, rows: list[AnyRow], limit: int) -> None:
        self.rows: list[AnyRow] = rows[:limit]
        self.next: str | None = None
        if len(rows) > limit:
            last = self.rows[-1]
            self.next = str(Cursor(datetime.fromisoformat(last.time), last.id))


class RecordStore:
    """What the consumer needs: inserting, and how far each replica has come."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    async def insert(self, table: Table, lines: bytes) -> None:
        """Insert JSON lines of one month, all or none. Raises `Unacceptable` or `Unavailable`."""
        await self._clickhouse.insert(table, lines)

    async def positions(self, table: Table, replicas: Sequence[str]) -> dict[str, int]:
        """The newest `seq` of each of `replicas` that is a row of `table` or a dead letter."""
        rows = await self._clickhouse.read_own_writes(
            f"""
            SELECT replica, max(position) AS position FROM (
                SELECT replica, max(seq) AS position FROM {table}
                WHERE replica IN {{replicas:Array(String)}} GROUP BY replica
                UNION ALL
                SELECT replica, max(seq) AS position FROM dead_letters
                WHERE `table` = {{table:String}} AND replica IN {{replicas:Array(String)}} GROUP BY replica
            ) GROUP BY replica
            """,  # noqa: S608 - a literal type
            {"table": table, "replicas": list(replicas)},
        )
        return {row["replica"]: row["position"] for row in rows}

    async def add_dead_letter(self, table: Table, replica: str, seq: int, line: bytes, error: str) -> None:
        """Put aside a line that cannot become a row, with the reason."""
        letter = {
            "time": iso(now()),
            "table": table,
            "replica": replica,
            "seq": seq,
            "line": line.decode(errors="backslashreplace"),
            "error": error,
        }
        await self._clickhouse.insert("dead_letters", msgspec.json.encode(letter))


class ActivityStore:
    """What people look at."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    async def calls(self, filter_: CallFilter, after: Cursor | None, limit: int) -> Page[Call]:
        """Calls that match, newest first, without payloads; texts are cut at `LISTED` characters."""
        return Page(await self._list("tool_calls", Call, _conditions(filter_), after, limit), limit)

    async def calls_with_payloads(
        self, filter_: CallFilter, after: Cursor | None, limit: int, excerpt: int
    ) -> Page[FullCall]:
        """As `calls`, with the first `excerpt` characters of input and output."""
        where = _conditions(filter_)
        return Page(await self._list("tool_calls", FullCall, where, after, limit, excerpt=excerpt), limit)

    async def call(self, call: str, owner: str) -> FullCall:
        """One call in full. Raises `NotFound`, also for a call that is not `owner`'s, if one is given."""
        where = _conditions(CallFilter(owner=owner, methods="all")).and_("id = {id:String}", id=call)
        rows = await self._list("tool_calls", FullCall, where, None, 1, full=True)
        if not rows:
            raise NotFound("There is no such call, or it is not one of yours.")
        return rows[0]

    async def auth_events(self, after: Cursor | None, limit: int) -> Page[AuthEventRow]:
        """Logins, grants, refused tokens; newest first."""
        return Page(await self._list("auth_events", AuthEventRow, Where(), after, limit), limit)

    async def admin_events(self, after: Cursor | None, limit: int) -> Page[AdminEventRow]:
        """Changes by administrators and of the vault; newest first."""
        return Page(await self._list("admin_events", AdminEventRow, Where(), after, limit), limit)

    async def choices(self, since: datetime) -> dict[str, list[str]]:
        """Servers and tools that were called since, for the filter's suggestions."""
        rows = await self._clickhouse.read(
            """
            SELECT groupUniqArrayIf(200)(server, length(server) <= {longest:UInt32}) AS servers,
                groupUniqArrayIf(500)(tool, length(tool) BETWEEN 1 AND {longest:UInt32}) AS tools
            FROM calls_per_minute WHERE minute >= {since:DateTime('UTC')} AND method = 'tools/call'
            """,
            {"since": since, "longest": SUGGESTED},
        )
        return {name: sorted(values) for name, values in rows[0].items()}

    async def _list(
        self,
        table: Table,
        row: type[AnyRow],
        where: "Where",
        after: Cursor | None,
        limit: int,
        *,
        excerpt: int = 0,
        full: bool = False,
    ) -> list[AnyRow]:
        """One more than `limit` rows, so that the caller knows whether there are more.

        The keys are found first, so that the payloads of a page are all that is read of them.
        """
        if after:
            where = where.and_(BEFORE, at=parameter(after.time), after=after.id)
        if excerpt:
            where = where.and_(excerpt=excerpt)
        order = "ORDER BY time DESC, id DESC LIMIT {limit:UInt32}"
        keys = f"SELECT time, id FROM {table} {where} {order}"  # noqa: S608 - constants of this file
        rows = await self._clickhouse.read(
            f"SELECT {_columns(row, excerpt, full=full)} FROM {table} WHERE (time, id) IN ({keys}) {order}",  # noqa: S608
            {**where.values, "limit": limit + 1},
        )
        return [row(**{**values, "time": iso(values["time"])}) for values in rows]


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions, all of which must hold, and the values bound in them."""

    conditions: tuple[str, ...] = ()
    values: dict[str, object] = field(default_factory=dict)

    def and_(self, condition: str = "", **values: object) -> "Where":
        conditions = (*self.conditions, condition) if condition else self.conditions
        return Where(conditions, {**self.values, **values})

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self.conditions)}" if self.conditions else ""


def _columns(row: type[AnyRow], excerpt: int, *, full: bool) -> str:
    """What to select. Unless `full`, texts are cut by the database, so that a page of them stays small."""
    return ", ".join(f"`{column.name}`" if full else _cut(column, excerpt) for column in fields(row))


def _cut(column: Field[Any], excerpt: int) -> str:
    name = f"`{column.name}`"
    if column.name in {"input", "output"}:
        return f"substringUTF8({name}, 1, {{excerpt:UInt32}}) AS {name}" if excerpt else name
    if column.type is not str or column.name in _WHOLE:
        return name
    return f"substringUTF8({name}, 1, {_LISTED.get(column.name, LISTED)}) AS {name}"


def _conditions(filter_: CallFilter) -> Where:
    where = Where()
    for name, condition in _MATCHES.items():
        if value := getattr(filter_, name):
            where = where.and_(condition, **{name: value})
    if filter_.since:
        where = where.and_("time >= {since:DateTime64(6, 'UTC')}", since=parameter(filter_.since))
    if filter_.until:
        where = where.and_("time < {until:DateTime64(6, 'UTC')}", until=parameter(filter_.until))
    if filter_.methods == "calls" and not filter_.method:
        where = where.and_(_CALLS_ONLY)
    return where


# What a person may type in part and in any case is looked for inside the text; ids are compared as a whole.
_MATCHES = {
    "owner": "`user` = {owner:String}",
    "user": "(`user` = {user:String} OR positionCaseInsensitiveUTF8(email, {user:String}) > 0)",
    "server": "positionCaseInsensitiveUTF8(server, {server:String}) > 0",
    "tool": "positionCaseInsensitiveUTF8(tool, {tool:String}) > 0",
    "status": "status = {status:String}",
    "method": "method = {method:String}",
}


def parameter(moment: datetime) -> str:
    """As ClickHouse reads a DateTime64 parameter; the client would cut a datetime to whole seconds."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")

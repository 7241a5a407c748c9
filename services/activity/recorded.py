"""Answers policy's question for calls as they were recorded (libs.common.requests.RECORDED_CALLS)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from libs.common.bus import Bus
from libs.common.clock import iso
from libs.common.errors import BadRequest
from libs.common.requests import RECORDED_CALLS, AskRecordedCalls, RecordedCall, RecordedCalls
from services.activity.clickhouse import ClickHouse
from services.activity.domain import Cursor, utc
from services.activity.store import BEFORE, Where, parameter

PAGE = 500
INPUT_BYTES = 64 * 1024
ANSWER_BYTES = 900_000  # a message of the bus has at most 1 MiB

_COLUMNS = (
    "id",
    "time",
    "user",
    "email",
    "client_id",
    "client_name",
    "server",
    "method",
    "tool",
    "status",
    "reason",
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Serves the question. The replicas of the service share the work."""

    bus: Bus
    clickhouse: ClickHouse

    async def start(self) -> None:
        await self.bus.serve(RECORDED_CALLS, AskRecordedCalls, self.calls, at_once=2)

    async def stop(self) -> None:
        """The bus ends the subscription when it stops."""

    async def calls(self, query: AskRecordedCalls) -> RecordedCalls:
        """A page. It is shorter than asked for where inputs are long."""
        limit = max(1, min(query.limit, PAGE))
        where = _conditions(query)
        order = "ORDER BY time DESC, id DESC LIMIT {limit:UInt32}"
        columns = ", ".join(f"`{name}`" for name in _COLUMNS)
        rows = await self.clickhouse.read(
            f"""
            SELECT {columns}, input_sha256 != '' OR length(input) > {{longest:UInt32}} AS cut,
                if(cut, '', input) AS params
            FROM tool_calls WHERE (time, id) IN (SELECT time, id FROM tool_calls {where} {order}) {order}
            """,  # noqa: S608 - constants of this file
            {**where.values, "limit": limit + 1, "longest": INPUT_BYTES},
        )
        return _page([_call(row) for row in rows], limit)


def _call(row: dict[str, Any]) -> RecordedCall:
    texts = {name: row[name] for name in _COLUMNS}
    return RecordedCall(**texts | {"time": iso(row["time"]), "input": row["params"], "cut": bool(row["cut"])})


def _page(calls: list[RecordedCall], limit: int) -> RecordedCalls:
    taken: list[RecordedCall] = []
    size = 0
    for call in calls[:limit]:
        size += len(msgspec.json.encode(call)) + 1
        if taken and size > ANSWER_BYTES:
            break
        taken.append(call)
    if len(taken) == len(calls):
        return RecordedCalls(calls=taken)
    last = taken[-1]
    return RecordedCalls(calls=taken, next=str(Cursor(datetime.fromisoformat(last.time), last.id)))


def _conditions(query: AskRecordedCalls) -> Where:
    try:
        since = utc(datetime.fromisoformat(query.since))
    except ValueError as error:
        raise BadRequest(f"since: {query.since[:40]!r} is no time in ISO 8601") from error
    where = Where().and_("time >= {since:DateTime64(6, 'UTC')}", since=parameter(since))
    where = where.and_("method IN {methods:Array(String)}", methods=query.methods)
    if query.servers:
        where = where.and_("server IN {servers:Array(String)}", servers=query.servers)
    if query.after:
        after = Cursor.parse(query.after)
        where = where.and_(BEFORE, at=parameter(after.time), after=after.id)
    return where

"""Lands lines in ClickHouse, each exactly once, in order per replica, whatever happens in between.

The position of a replica is `max(seq)` in ClickHouse, rows and dead letters together. It is read when a
replica is first met and again after an insert whose outcome is not known; what it covers is skipped.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from libs.common.errors import Unavailable
from libs.common.records import Table
from services.activity.clickhouse import Unacceptable
from services.activity.lines import Gap, Line, Message, chunks, gap_before
from services.activity.store import RecordStore

log = structlog.get_logger(__name__)

BACKOFF = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)  # seconds before each next attempt; the last one stays


@dataclass(slots=True)
class Counts:
    """What was landed since this process started."""

    lines: int = 0
    inserts: int = 0
    dead_letters: int = 0
    missing_lines: int = 0
    retries: int = 0
    gaps: list[Gap] = field(default_factory=list)


class Ingest:
    """Turns messages into rows. One at a time: the position of a replica has one writer."""

    def __init__(self, store: RecordStore) -> None:
        self.counts = Counts()
        self._store = store
        self._positions: dict[tuple[Table, str], int] = {}

    async def land(self, table: Table, messages: Sequence[Message]) -> None:
        """Return when every line of `messages`, in stream order, is a row of `table` or a dead letter.

        Never gives up and never skips: while ClickHouse is away this waits.
        """
        attempt = 0
        while True:
            try:
                await self._land(table, messages)
                return
            except Unavailable as error:
                self._forget(table, messages)
                self.counts.retries += 1
                delay = BACKOFF[min(attempt, len(BACKOFF) - 1)]
                log.warning("insert_postponed", table=table, error=str(error), seconds=delay)
                await asyncio.sleep(delay)
                attempt += 1

    async def _land(self, table: Table, messages: Sequence[Message]) -> None:
        await self._find_positions(table, {message.replica for message in messages})
        waiting: list[Line] = []
        reached = dict(self._positions)  # where each replica will be once `waiting` has landed
        for message in messages:
            key = (table, message.replica)
            if message.last <= reached[key]:
                continue
            if gap := gap_before(message, reached[key]):
                self._report(gap)
            lines = message.lines()
            if lines is None:
                await self._land_lines(table, waiting)
                waiting = []
                await self._bury(table, Line(message.replica, message.last, message.data), _WRONG_NUMBER)
            else:
                waiting += [line for line in lines if line.seq > reached[key]]
            reached[key] = message.last
        await self._land_lines(table, waiting)

    async def _land_lines(self, table: Table, lines: Sequence[Line]) -> None:
        for chunk in chunks(lines):
            await self._insert(table, chunk)

    async def _insert(self, table: Table, lines: Sequence[Line]) -> None:
        """Insert `lines` as one. What ClickHouse does not understand is halved until it is one line."""
        blank = next((line for line in lines if not line.data.strip()), None)
        try:
            if blank and len(lines) == 1:  # ClickHouse would take it for nothing at all
                raise Unacceptable("an empty line")
            if not blank:
                await self._store.insert(table, b"\n".join(line.data for line in lines))
                self._advance(table, lines)
                return
        except Unacceptable as error:
            if len(lines) == 1:
                await self._bury(table, lines[0], str(error))
                return
        middle = len(lines) // 2
        await self._insert(table, lines[:middle])
        await self._insert(table, lines[middle:])

    async def _bury(self, table: Table, line: Line, error: str) -> None:
        log.error("dead_letter", table=table, replica=line.replica, seq=line.seq, error=error[:500])
        await self._store.add_dead_letter(table, line.replica, line.seq, line.data, error)
        self._positions[table, line.replica] = line.seq
        self.counts.dead_letters += 1

    # -- positions --------------------------------------------------------------------------------

    async def _find_positions(self, table: Table, replicas: set[str]) -> None:
        unknown = [replica for replica in replicas if (table, replica) not in self._positions]
        if unknown:
            found = await self._store.positions(table, unknown)
            self._positions.update({(table, replica): found.get(replica, 0) for replica in unknown})

    def _advance(self, table: Table, lines: Sequence[Line]) -> None:
        for line in lines:
            self._positions[table, line.replica] = line.seq
        self.counts.lines += len(lines)
        self.counts.inserts += 1

    def _forget(self, table: Table, messages: Sequence[Message]) -> None:
        for message in messages:
            self._positions.pop((table, message.replica), None)

    def _report(self, gap: Gap) -> None:
        if gap in self.counts.gaps:
            return  # the same attempt once more
        self.counts.gaps.append(gap)
        self.counts.missing_lines += gap.last - gap.first + 1
        log.error("lines_missing", table=gap.table, replica=gap.replica, first=gap.first, last=gap.last)


_WRONG_NUMBER = "the number of lines is not what the message's headers say"

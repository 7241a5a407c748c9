"""Ships finished journal lines to the stream ACTIVITY: in order, each once, many lines to a message.

Each publish carries the sequence that the subject's last message must have, so a retry can neither double
nor overtake. Where the shipper stands is what the last message of its subject says, which the activity
service leaves in the stream for that purpose; what ClickHouse already has, the consumer skips.
"""

import asyncio
import contextlib
from dataclasses import replace
from itertools import groupby

import nats.errors
import structlog
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from libs.common.bus import Bus
from libs.common.journal import Journal, Line, Position, shorten
from libs.common.lifecycle import cancel
from libs.common.records import FIRST_SEQ, LAST_SEQ, STREAM, SUBJECTS, TABLES, Table, subject_of
from libs.common.settings import Settings

log = structlog.get_logger(__name__)

READ_BYTES = 1024 * 1024
RETRY_AFTER = 0.5  # seconds
LAST_WORDS = 2.0  # seconds to ship what is left when stopping
HEADROOM = 4096  # bytes of a message left for headers

_BUS_ERRORS = (APIError, nats.errors.Error, TimeoutError, OSError)


async def ensure_stream(bus: Bus, settings: Settings) -> None:
    """Create the stream if it is not there. A full stream refuses new messages: the journals then hold."""
    try:
        await bus.js.stream_info(STREAM)
    except NotFoundError:
        await bus.js.add_stream(
            api.StreamConfig(
                name=STREAM,
                subjects=[SUBJECTS],
                retention=api.RetentionPolicy.LIMITS,
                discard=api.DiscardPolicy.NEW,
                storage=api.StorageType.FILE,
                num_replicas=settings.nats_replicas,
                max_bytes=settings.activity_stream_bytes,
                duplicate_window=0,
            )
        )


class Shipper:
    """Follows one journal. It never gives up: what cannot be shipped now stays in the journal."""

    def __init__(self, bus: Bus, journal: Journal, settings: Settings) -> None:
        self._bus, self._journal, self._settings = bus, journal, settings
        self._last: dict[Table, tuple[int, int]] = {}  # table -> (seq shipped, sequence in the stream)
        self._position = Position()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        self._position = self._journal.begin()
        self._task = asyncio.create_task(self._run(), name="shipper")

    async def stop(self) -> None:
        """Ship what is there if that goes quickly, then stop."""
        self._stopping = True  # ends it where the cancellation is lost to an acknowledgement (see `cancel`)
        await cancel(self._task)
        if not self._bus.connected:
            return
        with contextlib.suppress(*_BUS_ERRORS):
            async with asyncio.timeout(LAST_WORDS):
                await self._find_all()  # the cancelled publish may have arrived
                while await self._ship():
                    pass

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await ensure_stream(self._bus, self._settings)
                await self._find_all()
                while not self._stopping:
                    if not await self._ship():
                        await self._journal.wait()
            except _BUS_ERRORS as error:
                log.warning("shipping_failed", error=repr(error), backlog=self._journal.backlog)
                await asyncio.sleep(RETRY_AFTER)
            except Exception:  # whatever it is: the journal holds, and is tried again
                log.exception("shipping_failed")
                await asyncio.sleep(RETRY_AFTER)

    async def _find_all(self) -> None:
        self._last = {table: await self._find(table) for table in TABLES}

    async def _find(self, table: Table) -> tuple[int, int]:
        """What the stream has of this journal: the last `seq`, and the sequence of the message it came in."""
        try:
            message = await self._bus.js.get_last_msg(STREAM, subject_of(table, self._journal.replica))
        except NotFoundError:
            return 0, 0
        return int((message.headers or {})[LAST_SEQ]), message.seq or 0

    async def _ship(self) -> bool:
        """Ship what can be read now. Returns whether the position moved."""
        lines, position = self._journal.read(self._position, READ_BYTES)
        for table, of_table in groupby(lines, key=lambda line: line.table):
            most = self._bus.client.max_payload - HEADROOM
            waiting = [_fitting(line, most) for line in of_table if line.seq > self._last[table][0]]
            for batch in _batches(waiting, most):
                await self._publish(table, batch)
        moved = position != self._position
        self._position = position
        self._journal.release(position)
        return moved

    async def _publish(self, table: Table, batch: list[Line]) -> None:
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(self._last[table][1]),
            FIRST_SEQ: str(batch[0].seq),
            LAST_SEQ: str(batch[-1].seq),
        }
        ack = await self._bus.js.publish(
            subject_of(table, self._journal.replica),
            b"\n".join(line.data for line in batch),
            stream=STREAM,
            headers=headers,
        )
        self._last[table] = (batch[-1].seq, ack.seq)


def _fitting(line: Line, max_bytes: int) -> Line:
    """`line`, cut if this server takes less in a message than lines may have: nothing may block the rest."""
    return line if len(line.data) <= max_bytes else replace(line, data=shorten(line.data, max_bytes))


def _batches(lines: list[Line], max_bytes: int) -> list[list[Line]]:
    """`lines` in order, in batches that each fit into a message of `max_bytes`."""
    batches: list[list[Line]] = []
    size = 0
    for line in lines:
        if not batches or size + len(line.data) + 1 > max_bytes:
            batches.append([])
            size = 0
        batches[-1].append(line)
        size += len(line.data) + 1
    return batches

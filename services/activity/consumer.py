"""From the stream ACTIVITY into ClickHouse: takes batches, lands them, purges what has landed."""

import asyncio
from collections.abc import Sequence
from itertools import groupby

import structlog
from nats.aio.msg import Msg

from libs.common.clock import elapsed
from libs.common.errors import LockgateError
from libs.common.lifecycle import cancel
from services.activity.feed import BATCH_MESSAGES, BUS_ERRORS, Feed
from services.activity.ingest import Ingest
from services.activity.lines import Message, NotOurs, parse

log = structlog.get_logger(__name__)

FLUSH_EVERY = 0.2  # seconds between inserts when little comes: visible soon, and not a part per call
PURGE_EVERY = 3.0  # seconds
REOPEN_AFTER = 0.5  # seconds


class Consumer:
    """Runs until stopped, through failures of NATS and ClickHouse. `problem` says what is wrong, or None."""

    def __init__(self, feed: Feed, ingest: Ingest) -> None:
        self.problem: str | None = "the stream has not been opened yet"
        self.not_ours = 0
        self._feed, self._ingest = feed, ingest
        self._task: asyncio.Task[None] | None = None
        self._landed: dict[str, int] = {}  # subject -> stream sequence of its last landed message
        self._purged: dict[str, int] = {}
        self._purged_at = elapsed()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="activity-consumer")

    async def stop(self) -> None:
        """Stop where it is. What is not in ClickHouse stays in the stream."""
        await cancel(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except (*BUS_ERRORS, LockgateError) as error:
                self.problem = f"the stream of records cannot be read: {error!r}"
                log.warning("activity_feed_lost", error=repr(error))
            except Exception:
                self.problem = "the consumer failed; see the log"
                log.exception("activity_consumer_failed")
            finally:
                await self._feed.close()
            await asyncio.sleep(REOPEN_AFTER)

    async def _follow(self) -> None:
        # Another stream may be behind the name now: sequences of the former one must not purge it.
        self._landed.clear()
        self._purged.clear()
        await self._feed.open()
        self.problem = None
        while True:
            batch = await self._feed.batch()
            taken_at = elapsed()
            await self._land(batch)
            await self._purge()
            if batch and len(batch) < BATCH_MESSAGES:
                await asyncio.sleep(max(0.0, FLUSH_EVERY - (elapsed() - taken_at)))

    async def _land(self, batch: Sequence[Msg]) -> None:
        messages = [message for raw in batch if (message := self._parsed(raw))]
        # Stable: order matters within a table and replica, and stays.
        by_table = sorted(messages, key=lambda message: message.table)
        for table, of_table in groupby(by_table, key=lambda message: message.table):
            landing = list(of_table)
            await self._ingest.land(table, landing)
            self._landed.update({message.subject: message.stream_seq for message in landing})

    def _parsed(self, raw: Msg) -> Message | None:
        sequence = raw.metadata.sequence
        assert sequence is not None
        try:
            return parse(raw.subject, raw.headers, raw.data, sequence.stream)
        except NotOurs as error:
            self.not_ours += 1
            log.error("message_not_ours", subject=raw.subject, stream_seq=sequence.stream, error=str(error))
            return None

    async def _purge(self) -> None:
        """Now and then, delete what has landed, all but each subject's last message: its shipper reads it."""
        if elapsed() - self._purged_at < PURGE_EVERY:
            return
        self._purged_at = elapsed()
        for subject, stream_seq in self._landed.items():
            if self._purged.get(subject) == stream_seq:
                continue
            try:
                await self._feed.purge(subject, stream_seq)
                self._purged[subject] = stream_seq
            except BUS_ERRORS as error:
                log.warning("purge_postponed", subject=subject, error=repr(error))
                return

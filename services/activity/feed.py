"""The stream's messages, in order, from the oldest on.

An ephemeral pull consumer without acknowledgements, whose position nobody keeps: where to go on is in
ClickHouse. One pull request stays open, so the server sends what comes at once, and never more than was asked
for. A consumer that is lost, stuck or skips something is given up; the next begins at the oldest again.
"""

import contextlib
import json

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api
from nats.js.errors import APIError

from libs.common.bus import Bus
from libs.common.errors import LockgateError
from libs.common.records import STREAM, SUBJECTS
from libs.common.settings import Settings
from libs.common.shipper import ensure_stream

log = structlog.get_logger(__name__)

BATCH_MESSAGES = 256
BATCH_BYTES = 8 * 1024 * 1024
EXPIRES = 5.0  # seconds that a pull request stays open
HEARTBEAT = 1.0  # seconds between the server's signs of life while one is open
SILENCE = 3.5  # seconds without one after which the consumer counts as lost
ABANDONED = 300.0  # seconds after which the server forgets a consumer that nobody asks

BUS_ERRORS = (APIError, nats.errors.Error, TimeoutError, OSError)

# How the server says that a pull request is over and the consumer is well.
_END_OF_REQUEST = ("Request Timeout", "No Messages", "Batch Completed", "Message Size Exceeds MaxBytes")
HEARTBEAT_STATUS = "100"
_NANOSECONDS = 1_000_000_000


class FeedLost(LockgateError):
    """The consumer cannot be relied on any more; open a new one."""


class Feed:
    """Open it, take batches until it raises, close it, begin again."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._bus, self._settings = bus, settings
        self._sub: Subscription | None = None
        self._consumer = ""
        self._inbox = ""
        self._requests = 0
        self._seen = 0  # messages of this consumer
        self._expected = 0  # messages that the newest pull request may still bring
        self.pending = 0  # messages in the stream behind the newest that we have

    async def open(self) -> None:
        """Start at the oldest message. Raises one of `BUS_ERRORS` or a `LockgateError`."""
        await ensure_stream(self._bus, self._settings)
        self._seen = self._expected = 0
        self._inbox = self._bus.client.new_inbox()
        self._sub = await self._bus.client.subscribe(f"{self._inbox}.*")
        info = await self._bus.js.add_consumer(
            STREAM,
            api.ConsumerConfig(
                filter_subject=SUBJECTS,
                deliver_policy=api.DeliverPolicy.ALL,
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=ABANDONED,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        self._consumer = info.name
        self.pending = info.num_pending or 0

    async def close(self) -> None:
        sub, self._sub = self._sub, None
        consumer, self._consumer = self._consumer, ""
        if sub is None or self._bus.client.is_closed:
            return
        with contextlib.suppress(*BUS_ERRORS):
            await sub.unsubscribe()
            if consumer and self._bus.connected:
                await self._bus.js.delete_consumer(STREAM, consumer)

    async def batch(self) -> list[Msg]:
        """The next messages: waits for one, takes what else is there. Empty when nothing came for a while.

        Raises `FeedLost`, or one of `BUS_ERRORS`.
        """
        assert self._sub is not None
        messages: list[Msg] = []
        size = 0
        while len(messages) < BATCH_MESSAGES and size < BATCH_BYTES:
            if messages and not self._sub.pending_msgs:
                break
            message = await self._next(self._sub)
            if message is None:
                if not messages and not self._expected:
                    return []
                continue
            messages.append(message)
            size += len(message.data)
        return messages

    async def _next(self, sub: Subscription) -> Msg | None:
        """The next message, or None when what came was a sign of life."""
        if self._expected <= 0:
            await self._ask()
        try:
            message = await sub.next_msg(timeout=SILENCE)
        except nats.errors.TimeoutError:
            raise FeedLost("the stream's consumer is silent") from None
        if not message.reply.startswith("$JS.ACK."):
            self._on_status(message)
            return None
        self._check_order(message)
        self._expected -= 1
        return message

    async def _ask(self) -> None:
        request = {
            "batch": BATCH_MESSAGES,
            "max_bytes": BATCH_BYTES,
            "expires": int(EXPIRES * _NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT * _NANOSECONDS),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{self._consumer}"
        self._requests += 1
        await self._bus.client.publish(subject, json.dumps(request).encode(), self._answers_to_newest)
        self._expected = BATCH_MESSAGES

    @property
    def _answers_to_newest(self) -> str:
        """Where the newest request is answered: what is said about an older one must not be taken for it."""
        return f"{self._inbox}.{self._requests}"

    def _on_status(self, message: Msg) -> None:
        headers = message.headers or {}
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == HEARTBEAT_STATUS or message.subject != self._answers_to_newest:
            return
        if description not in _END_OF_REQUEST:
            raise FeedLost(f"the stream's consumer ended: {status} {description}".rstrip())
        self._expected = 0

    def _check_order(self, message: Msg) -> None:
        sequence = message.metadata.sequence
        assert sequence is not None
        self._seen += 1
        if sequence.consumer != self._seen:
            raise FeedLost(f"message {self._seen} of the consumer was lost on the way")
        self.pending = message.metadata.num_pending

    async def purge(self, subject: str, before: int) -> None:
        """Delete the messages of `subject` before the one with the stream sequence `before`."""
        await self._bus.js.purge_stream(STREAM, subject=subject, seq=before)

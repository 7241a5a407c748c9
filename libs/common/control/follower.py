"""Follows the control log: every change in order, and an honest word on how far it is complete.

The consumer is our own, on a plain subscription, for two reasons: the sequence of each message is part of the
rule by which it counts (progress.py), and a lost or stuck consumer must be noticed and replaced within
seconds.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from libs.common.bus import Bus
from libs.common.clock import elapsed
from libs.common.control.progress import Progress
from libs.common.control.tables import Tables
from libs.common.errors import Unavailable
from libs.common.lifecycle import cancel
from libs.common.settings import Settings

log = structlog.get_logger(__name__)

BUCKET = "CONTROL"
STREAM = f"KV_{BUCKET}"
SUBJECT = f"$KV.{BUCKET}."

HEARTBEAT = 1.0  # seconds between the server's signs of life on an idle consumer
SILENCE = 3.5  # seconds without one after which the consumer counts as lost
RETRY_AFTER = 0.25  # seconds
# Deletions leave markers for an hour; a reader away for longer than this reads everything anew.
RESUME_WITHIN = 30 * 60.0
MARKER_TTL = 3600.0

_NO_MESSAGE = 10037  # NATS: the stream is there, and empty

# (key, value or None when it was removed, revision)
OnChange = Callable[[str, bytes | None, int], None]
OnApplied = Callable[[int], None]


async def ensure_bucket(bus: Bus, replicas: int) -> None:
    """Create the bucket if it is not there. History of one: the log says what is, not what was."""
    config = api.StreamConfig(
        name=STREAM,
        subjects=[f"{SUBJECT}>"],
        max_msgs_per_subject=1,
        num_replicas=replicas,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=True,
        allow_msg_ttl=True,
        subject_delete_marker_ttl=MARKER_TTL,  # an expired heartbeat is a deletion that readers hear of
        max_msg_size=1024 * 1024,
    )
    try:
        try:
            await bus.js.stream_info(STREAM)
        except NotFoundError:
            await bus.js.add_stream(config)
    except (APIError, nats.errors.Error, TimeoutError) as error:
        raise Unavailable(f"the control log cannot be opened: {error!r}") from error


class Follower:
    """Keeps `tables` equal to the log."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.tables = Tables()
        self.heard: dict[str, float] = {}  # replica -> when its last entry arrived, by `elapsed()`
        self._bus, self._settings = bus, settings
        self._on_change: list[OnChange] = []
        self.replaced_at = float("-inf")  # when another log was found in place of the one that we read
        self._on_applied: list[OnApplied] = []
        self._on_anew: list[Callable[[], None]] = []
        self._waiters: set[asyncio.Event] = set()
        self._sub: Subscription | None = None
        self._consumer: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._inquiry: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._born: datetime | None = None  # when the log that we read was created
        self._generation = 0  # of the consumer; what a replaced one still delivers is not for us
        self._progress = Progress()
        self._consumer_seq = 0  # position within the present consumer
        self._last_sign = elapsed()
        self._lost = False
        bus.on_return(self.restart)  # a server that restarted has forgotten its consumers

    def subscribe(self, on_change: OnChange) -> None:
        """Call `on_change(key, value, revision)` after each entry. It must not raise or block."""
        self._on_change.append(on_change)

    def on_applied(self, callback: OnApplied) -> None:
        """Call `callback(applied)` when the tables are complete up to a new revision, after `on_change` was
        called for every entry up to there. It must not raise or block."""
        self._on_applied.append(callback)

    def on_anew(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when all that was read is void, and the log is read from its beginning."""
        self._on_anew.append(callback)

    async def start(self, timeout: float = 30.0) -> None:
        """Read the whole bucket, then follow it. Returns when the tables are complete."""
        await ensure_bucket(self._bus, self._settings.nats_replicas)
        self._task = asyncio.create_task(self._run(), name="control-follower")
        await self.wait_for(lambda: self.complete, timeout)

    async def stop(self) -> None:
        await cancel(self._task)
        await self._unsubscribe()

    @property
    def applied(self) -> int:
        """The revision up to which the tables are complete."""
        return self._progress.applied

    @property
    def complete(self) -> bool:
        """Whether the whole bucket has been read once."""
        return self._progress.complete

    async def wait_for(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait until `condition()` holds, looked at after every entry. Raises `Unavailable` in time."""
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    event.clear()
                    await event.wait()
        except TimeoutError:
            raise Unavailable("the control log does not answer in time") from None
        finally:
            self._waiters.discard(event)

    @property
    def born(self) -> datetime | None:
        """When the log that is read was created, by its server's clock: the name of that log."""
        return self._born

    async def present_log(self) -> datetime | None:
        """The name of the log that is there now. If it is not the one that we read, that will be read anew.

        Raises what a request to JetStream raises.
        """
        created = (await self._bus.js.stream_info(STREAM)).created
        if created != self._born:
            self.restart()
        return created

    def restart(self) -> None:
        """Replace the consumer: something that should have arrived did not."""
        self._lost = True
        self._wake.set()

    # -- the consumer -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._open()
                await self._watch_over()
            except (APIError, nats.errors.Error, TimeoutError, OSError) as error:
                log.warning("control_follow_failed", error=repr(error))
                await asyncio.sleep(RETRY_AFTER)
            except Exception:  # whatever it is: without us the lease runs out and calls are refused
                log.exception("control_follow_failed")
                await asyncio.sleep(RETRY_AFTER)

    async def _watch_over(self) -> None:
        """Return when the consumer has to be replaced."""
        while not self._lost and elapsed() - self._last_sign < SILENCE:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT / 2):
                    await self._wake.wait()

    async def _open(self) -> None:
        await self._unsubscribe()
        away = elapsed() - self._last_sign
        info = await self._bus.js.stream_info(STREAM)
        # A log created at another time, or shorter than what we have seen, is another log: believe nothing
        # of the old one.
        replaced = info.created != self._born or info.state.last_seq < self._progress.delivered
        anew = not self.complete or replaced or away > RESUME_WITHIN
        if replaced and self._born:
            self.replaced_at = elapsed()
        if anew:
            self._start_anew()
        self._born = info.created
        self._generation += 1
        self._consumer_seq, self._lost = 0, False
        inbox = self._bus.client.new_inbox()
        self._sub = await self._bus.client.subscribe(inbox, cb=partial(self._on_message, self._generation))
        config = api.ConsumerConfig(
            deliver_subject=inbox,
            filter_subject=f"{SUBJECT}>",
            deliver_policy=api.DeliverPolicy.ALL if anew else api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=None if anew else self._progress.delivered + 1,
            ack_policy=api.AckPolicy.NONE,
            max_deliver=1,
            idle_heartbeat=HEARTBEAT,
            flow_control=True,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=30.0,
        )
        consumer = await self._bus.js.add_consumer(STREAM, config)
        self._consumer = consumer.name
        self._last_sign = elapsed()
        if not consumer.num_pending:  # it may stay silent
            self._inquire()

    def _start_anew(self) -> None:
        # Keep the object: others hold it. The lease is not renewed before the log is read again.
        fresh = Tables()
        for name in Tables.__slots__:
            setattr(self.tables, name, getattr(fresh, name))
        self.heard.clear()
        self._progress = Progress()
        for callback in self._on_anew:
            callback()

    async def _unsubscribe(self) -> None:
        await cancel(self._inquiry)
        sub, self._sub = self._sub, None
        consumer, self._consumer = self._consumer, None
        if sub is None:
            return
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await sub.unsubscribe()
            if consumer:
                await self._bus.js.delete_consumer(STREAM, consumer)

    async def _on_message(self, generation: int, message: Msg) -> None:
        if generation != self._generation:
            return
        self._last_sign = elapsed()
        if not message.subject.startswith(SUBJECT):
            await self._on_status(message)
            return
        meta = message.metadata
        assert meta.sequence is not None
        seq, consumer_seq = meta.sequence.stream, meta.sequence.consumer
        if consumer_seq != self._consumer_seq + 1:  # lost between server and us
            self.restart()
            return
        self._consumer_seq = consumer_seq
        key = message.subject[len(SUBJECT) :]
        value = None if is_deletion(message.headers) else message.data
        self.tables.apply(key, value)
        if key.startswith("replica."):
            self._hear(key.removeprefix("replica."), value is None)
        before = self.applied
        self._progress.deliver(seq)
        for on_change in self._on_change:
            on_change(key, value, seq)
        self._advance(before)
        if not meta.num_pending:  # as far as the server knows now; sooner the answer would be of no use
            self._inquire()

    async def _on_status(self, message: Msg) -> None:
        """An idle heartbeat, or a flow-control question, which wants an empty answer."""
        self._inquire()
        if message.reply:
            await self._bus.client.publish(message.reply)

    # -- holes ------------------------------------------------------------------------------------

    def _inquire(self) -> None:
        """Find out where the log ends, if that is what is needed to know that nothing is missing."""
        if self._progress.must_ask and (self._inquiry is None or self._inquiry.done()):
            self._inquiry = asyncio.create_task(self._find_end(), name="control-end")

    async def _find_end(self) -> None:
        progress, generation = self._progress, self._generation
        try:
            while progress.must_ask:
                progress.ask()
                end = await self._end()
                if generation != self._generation or self._lost:
                    return  # the answer may be about another log
                before = self.applied
                progress.answer(end)
                self._advance(before)
        except (APIError, nats.errors.Error, TimeoutError, OSError) as error:
            log.warning("control_end_unknown", error=repr(error))
        finally:
            progress.forget()

    async def _end(self) -> int:
        """The sequence of the last message in the log, asked of its leader."""
        try:
            return (await self._bus.js.get_last_msg(STREAM, f"{SUBJECT}>")).seq or 0
        except NotFoundError as error:
            if error.err_code != _NO_MESSAGE:
                raise
            return 0

    def _advance(self, before: int) -> None:
        if self.applied > before:
            for on_applied in self._on_applied:
                on_applied(self.applied)
        self._notify()

    def _hear(self, replica: str, deleted: bool) -> None:
        if deleted:
            self.heard.pop(replica, None)
        else:
            self.heard[replica] = self._last_sign

    def _notify(self) -> None:
        for event in self._waiters:
            event.set()


def is_deletion(headers: Mapping[str, str] | None) -> bool:
    """Whether a message with these headers says that its key is gone: deleted, or expired."""
    headers = headers or {}
    return headers.get("KV-Operation") in {"DEL", "PURGE"} or "Nats-Marker-Reason" in headers

"""The counts of all replicas together: counters of JetStream (NATS ADR-49), one subject for each.

A message with `Nats-Incr` adds to the counter of its subject, and its acknowledgement holds the sum; so to
tell and to ask are one. A message whose acknowledgement did not come is sent again under the same
`Nats-Msg-Id`, which NATS counts once. Streams forget a window by themselves, some time after its end.
"""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import nats.errors
import structlog
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from libs.common.bus import Bus
from libs.common.clock import elapsed, now
from libs.common.errors import Unavailable
from libs.common.ids import new_id
from libs.common.lifecycle import cancel
from libs.common.requests import QuotaWindow
from services.gateway.quotas.counter import Counter
from services.gateway.quotas.limits import SECONDS, began, count_of

log = structlog.get_logger(__name__)

EXCHANGE = 0.25  # seconds after which what was counted here is told, and what was asked is asked again
ANSWER_WITHIN = 1.0  # seconds
IDLE = 10.0  # seconds without a call after which a count that NATS has is not kept here
AT_ONCE = 64  # exchanges under way together

STREAMS: dict[QuotaWindow, str] = {"minute": "QUOTA_MINUTE", "day": "QUOTA_DAY"}
PREFIX = "QUOTA"
# Beyond the window, for clocks that differ and for retries.
_MAX_AGE = {window: seconds + 3600.0 for window, seconds in SECONDS.items()}
_DUPLICATES_WITHIN = 120.0

_NO_MESSAGE = 10037  # NATS: the stream is there, and has nothing of this subject
_BUS_ERRORS = (APIError, nats.errors.Error, TimeoutError, OSError)


def wall_clock() -> float:
    """Unix seconds."""
    return now().timestamp()


class Ledger:
    """Holds the counters that are in use here, and exchanges them with NATS."""

    def __init__(self, bus: Bus, replicas: int, clock: Callable[[], float] = wall_clock) -> None:
        """`replicas` of each stream; `clock` tells the time of day in Unix seconds."""
        self._bus, self._replicas, self.clock = bus, replicas, clock
        self._counters: dict[tuple[QuotaWindow, int, str], Counter] = {}
        self._dirty: set[Counter] = set()
        self._id, self._sent = new_id(), 0
        self._failing_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises `Unavailable` when the streams cannot be made."""
        await self._open()
        self._task = asyncio.create_task(self._run(), name="quota-ledger")

    async def stop(self) -> None:
        """Stop, and tell what is not told yet."""
        await cancel(self._task)
        if self._bus.connected:
            with contextlib.suppress(*_BUS_ERRORS, Unavailable):
                async with asyncio.timeout(ANSWER_WITHIN):
                    await self._tell_all()

    @property
    def failing(self) -> float:
        """For how many seconds NATS has not answered; 0 while it does."""
        return elapsed() - self._failing_since if self._failing_since is not None else 0.0

    def counter(self, window: QuotaWindow, quota: str, of: str, who: str) -> Counter:
        """The count of the present window."""
        start, count = began(window, self.clock()), count_of(quota, of, who)
        counter = self._counters.get((window, start, count))
        if counter is None:
            subject = f"{PREFIX}.{window}.{start}.{count}"
            counter = Counter(window, subject, start + SECONDS[window])
            self._counters[window, start, count] = counter
        return counter

    def count(self, counter: Counter, calls: int) -> None:
        """Add `calls`, which may be negative, here; NATS is told soon."""
        counter.unsent += calls
        counter.used = elapsed()
        self._dirty.add(counter)

    def is_fresh(self, counter: Counter) -> bool:
        """Whether NATS was asked lately, so that other replicas can hardly have counted anything since."""
        return elapsed() - counter.asked < EXCHANGE

    async def settle(self, counter: Counter, since: float) -> bool:
        """Tell all that was counted before `since` (by `elapsed()`) and learn the sum. False if NATS does not
        answer: then what was counted stays counted, and is told later."""
        if self._failing_since is not None or not self._bus.connected:
            self._failed("not connected")
            return False
        async with counter.lock:
            if self._failing_since is not None:
                return False  # one waits for an answer in vain, not all in turn
            try:
                if counter.sending:
                    await self._exchange(counter)  # an earlier message, which had no answer
                    await self._exchange(counter)
                elif counter.asked <= since:
                    await self._exchange(counter)
            except _BUS_ERRORS as error:
                self._failed(repr(error))
                return False
        return True

    # -- with NATS --------------------------------------------------------------------------------

    async def _exchange(self, counter: Counter) -> None:
        """Tell what is not told, if there is something, and learn the sum."""
        self._sent += 1
        counter.send(f"{self._id}-{self._sent}")
        asked, value = elapsed(), None
        if counter.sending:
            headers = {"Nats-Incr": f"{counter.sending:+d}", "Nats-Msg-Id": counter.sending_id}
            ack = await self._bus.js.publish(counter.subject, headers=headers, timeout=ANSWER_WITHIN)
            value = ack.val  # none for a message that had come already
        counter.learn(await self._read(counter) if value is None else int(value), asked)
        if not counter.untold:
            self._dirty.discard(counter)

    async def _read(self, counter: Counter) -> int:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                message = await self._bus.js.get_last_msg(STREAMS[counter.window], counter.subject)
        except NotFoundError as error:
            if error.err_code != _NO_MESSAGE:
                raise
            return 0
        return value_of(message)

    async def _open(self) -> None:
        """Make the streams that are not there."""
        for window, name in STREAMS.items():
            config = api.StreamConfig(
                name=name,
                subjects=[f"{PREFIX}.{window}.>"],
                allow_msg_counter=True,
                allow_direct=True,
                max_msgs_per_subject=1,
                max_age=_MAX_AGE[window],
                duplicate_window=_DUPLICATES_WITHIN,
                num_replicas=self._replicas,
                storage=api.StorageType.FILE,
            )
            try:
                try:
                    await self._bus.js.stream_info(name)
                except NotFoundError:
                    await self._bus.js.add_stream(config)
            except _BUS_ERRORS as error:
                detail = "the counts of quotas cannot be opened (they need NATS 2.12 or newer)"
                raise Unavailable(f"{detail}: {error!r}") from error

    # -- in the background ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EXCHANGE)
            try:
                if self._failing_since is not None:
                    await self._probe()
                self._forget()
                await self._tell_all()
            except (*_BUS_ERRORS, Unavailable) as error:
                self._failed(repr(error))
            except Exception:  # whatever it is: calls are counted here, and soon refused for want of the sum
                log.exception("quota_exchange_failed")

    async def _probe(self) -> None:
        """Find out whether NATS counts again: a stream may be readable that takes no message."""
        await self._open()
        for window in STREAMS:
            probe = f"{PREFIX}.{window}.probe"
            await self._bus.js.publish(probe, headers={"Nats-Incr": "0"}, timeout=ANSWER_WITHIN)
        self._failing_since = None
        log.info("quota_exchange_again")

    async def _tell_all(self) -> None:
        dirty = list(self._dirty)
        for first in range(0, len(dirty), AT_ONCE):
            since = elapsed()
            settled = [self.settle(counter, since) for counter in dirty[first : first + AT_ONCE]]
            if not all(await asyncio.gather(*settled)):
                return

    def _forget(self) -> None:
        """Let go of windows that have ended, and of counts that nobody uses and NATS has."""
        wall, moment = self.clock(), elapsed()
        for key, counter in list(self._counters.items()):
            if counter.ends + IDLE < wall or (not counter.untold and counter.used + IDLE < moment):
                del self._counters[key]
                self._dirty.discard(counter)

    def _failed(self, error: str) -> None:
        if self._failing_since is None:
            self._failing_since = elapsed()
            log.warning("quota_exchange_failed", error=error)


class _Value(msgspec.Struct):
    val: str


def value_of(message: api.RawStreamMsg) -> int:
    """The sum in a counter's newest message: `{"val":"10"}` (NATS ADR-49)."""
    return int(msgspec.json.decode(message.data or b"", type=_Value).val)

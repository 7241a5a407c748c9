"""The connections to upstreams: kept, limited, and not tried by callers while an upstream is down."""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import structlog

from libs.common.clock import elapsed
from libs.common.lifecycle import cancel
from services.gateway.breaker import Breaker
from services.gateway.connection import IDLE_FOR, Connection, UpstreamFailed
from services.gateway.dialing import Dialer, Origin, explain, is_ours, tls_context

log = structlog.get_logger(__name__)

QUEUE = 256  # who may wait for a connection at the limit
STREAMS_SHARE = 0.75  # of the connections, so that open streams leave some to calls
PROBE_TIMEOUT = 5.0  # seconds
PATIENCE = 300.0  # seconds after which an upstream that nobody asks for is not probed any longer


@dataclass(frozen=True, slots=True)
class Outage:
    """An upstream that is taken to be down."""

    server: str
    origin: str
    since: datetime
    why: str


class Pool:
    """The connections of one server to its origin."""

    def __init__(
        self, origin: Origin, limit: int, tls: ssl.SSLContext | None = None, server: str = ""
    ) -> None:
        self.origin, self.server = origin, server
        self._limit = limit
        self._idle: list[Connection] = []
        self._count = 0
        self._streams = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._dialer = Dialer(origin, tls)
        self._unreachable, self._silent = Breaker(), Breaker()
        self._prober: asyncio.Task[None] | None = None
        self._asked = 0.0
        self._stopped = False

    # -- connections ------------------------------------------------------------------------------

    def take(self) -> Connection | None:
        """An idle connection, the one used last."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and elapsed() - connection.idle_since < connection.idle_for:
                return connection
            self.discard(connection)
        return None

    async def connect(self, timeout: float) -> Connection:
        """A new connection, or, at the limit, the next one that is free; `timeout` is for either.

        Raises `UpstreamFailed`.
        """
        self._check_reachable()
        if self._count < self._limit:
            self._count += 1
        elif connection := await self._turn(timeout):
            if not connection.closed:
                return connection
            connection.close()  # its place is ours
        try:
            self._check_reachable()
            return await self._dial(timeout)
        except BaseException:
            self._leave_place()
            raise

    def put(self, connection: Connection) -> None:
        if not connection.reusable or self._stopped:
            self.discard(connection)
        elif not self._hand_over(connection):
            connection.idle_since = elapsed()
            self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        connection.close()
        self._leave_place()

    def enter_stream(self) -> None:
        """A stream that is meant to last begins. Raises `UpstreamFailed` when there are too many."""
        limit = max(1, int(self._limit * STREAMS_SHARE))
        if self._streams >= limit:
            raise UpstreamFailed("upstream_busy", f"{limit} streams to it are open, which is the most")
        self._streams += 1

    def leave_stream(self) -> None:
        self._streams -= 1

    def close_idle(self, older_than: float | None = None) -> None:
        """Close connections that have been idle for `older_than` seconds; by default, for too long."""
        moment = elapsed()
        for connection in list(self._idle):
            limit = connection.idle_for if older_than is None else older_than
            if connection.closed or moment - connection.idle_since >= limit:
                self._idle.remove(connection)
                self.discard(connection)

    async def stop(self) -> None:
        self._stopped = True
        await cancel(self._prober)
        self.close_idle(older_than=0)

    async def _turn(self, timeout: float) -> Connection | None:
        """Wait for a connection that somebody gives back, or for the place of one (None)."""
        busy = UpstreamFailed("upstream_busy", f"all {self._limit} connections to it are in use")
        if len(self._waiters) >= QUEUE:
            raise busy
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except BaseException as error:
            if not waiter.done() or waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
            elif given := waiter.result():  # it came together with the end of our patience
                self.put(given)
            else:
                self._leave_place()
            if isinstance(error, TimeoutError):
                raise busy from error
            raise

    def _hand_over(self, connection: Connection | None) -> bool:
        """Give a connection, or the place of one, to who has waited longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _leave_place(self) -> None:
        if not self._hand_over(None):
            self._count -= 1

    async def _dial(self, timeout: float) -> Connection:
        try:
            async with asyncio.timeout(timeout):
                connection = await self._dialer.dial()
        except TimeoutError as error:
            failure = UpstreamFailed("upstream_unreachable", f"no connection within {timeout:g} s")
            self._not_reached(failure)
            raise failure from error
        except (OSError, UnicodeError) as error:
            failure = UpstreamFailed("upstream_unreachable", explain(error))
            if not is_ours(error):
                self._not_reached(failure)
            raise failure from error
        if self._unreachable.succeeded():
            self._log_back()
        return connection

    # -- when it is down --------------------------------------------------------------------------

    def check_answering(self) -> None:
        """Raise `UpstreamFailed` if it is not known to answer, but for one call now and then that tries."""
        if not self._silent.open:
            return
        if self._silent.trial_in:
            raise self._down(self._silent)
        self._silent.begin_trial()

    def answered(self) -> None:
        """It has begun an answer, whatever it says."""
        if self._silent.failures and self._silent.succeeded():
            self._log_back()

    def did_not_answer(self, why: str) -> None:
        """It was given up on while it was silent."""
        if self._silent.failed(why):
            self._log_down(self._silent)

    def outages(self) -> Iterator[Outage]:
        origin = f"{self.origin.scheme}://{self.origin.host}:{self.origin.port}"
        for breaker in (self._unreachable, self._silent):
            if breaker.open and breaker.since:
                yield Outage(self.server, origin, breaker.since, breaker.why)

    def _check_reachable(self) -> None:
        if self._unreachable.open:
            self._asked = elapsed()
            raise self._down(self._unreachable)

    def _not_reached(self, failure: UpstreamFailed) -> None:
        if self._unreachable.failed(failure.detail):
            self._log_down(self._unreachable)
            self._asked = elapsed()
            if not self._stopped and (self._prober is None or self._prober.done()):
                self._prober = asyncio.create_task(self._probe(), name="upstream-prober")

    async def _probe(self) -> None:
        """Connect now and then, so that nobody has to be the one who tries."""
        breaker = self._unreachable
        while breaker.open:
            await asyncio.sleep(breaker.trial_in)
            breaker.begin_trial()
            if elapsed() - self._asked > PATIENCE:
                breaker.ease()
                return
            try:
                connection = await self._dial(PROBE_TIMEOUT)
            except UpstreamFailed:
                continue
            connection.close()

    @staticmethod
    def _down(breaker: Breaker) -> UpstreamFailed:
        since = breaker.since.strftime("%Y-%m-%d %H:%M:%S UTC") if breaker.since else "just now"
        detail = f"it has been down since {since} and is tried every few seconds: {breaker.why}"
        return UpstreamFailed("upstream_down", detail)

    def _log_down(self, breaker: Breaker) -> None:
        log.warning("upstream_down", server=self.server, origin=self.origin, why=breaker.why)

    def _log_back(self) -> None:
        log.info("upstream_back", server=self.server, origin=self.origin)


class Pools:
    """A pool for each server, made when first needed. A slow or dead one has no effect on another, even on
    the same origin. `limit` is that of each."""

    def __init__(self, limit: int, tls: ssl.SSLContext | None = None) -> None:
        self._limit = limit
        self._tls = tls
        self._pools: dict[tuple[Origin, str], Pool] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def pool(self, origin: Origin, server: str = "") -> Pool:
        pool = self._pools.get((origin, server))
        if pool is None:
            if self._tls is None:
                self._tls = tls_context()
            tls = self._tls if origin.scheme == "https" else None
            pool = self._pools[origin, server] = Pool(origin, self._limit, tls, server)
        return pool

    def outages(self) -> list[Outage]:
        """What is taken to be down now."""
        return [outage for pool in self._pools.values() for outage in pool.outages()]

    async def start(self) -> None:
        self._sweeper = asyncio.create_task(self._sweep(), name="upstream-sweeper")

    async def stop(self) -> None:
        await cancel(self._sweeper)
        for pool in list(self._pools.values()):
            await pool.stop()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(IDLE_FOR)
            for pool in self._pools.values():
                pool.close_idle()

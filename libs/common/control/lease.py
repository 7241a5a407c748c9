"""A gateway replica's proof that it has applied everything committed before a known moment.

The replica writes `replica.<id>` and waits until the log is applied up to its own write. The log is ordered
and a write needs a quorum, so everything that was committed before the write was *sent* is then applied; the
proof is good for `lease` seconds from that moment, on a clock that runs on through suspension.
"""

import asyncio
import contextlib

import msgspec
import nats.errors
import structlog
from nats.js.errors import APIError

from libs.common.bus import Bus
from libs.common.clock import elapsed, iso, now
from libs.common.control.entries import Replica, key_of
from libs.common.control.follower import MARKER_TTL, SUBJECT, Follower
from libs.common.control.proof import Proof
from libs.common.lifecycle import cancel

log = structlog.get_logger(__name__)

BEAT = 1.0  # seconds between two heartbeats
RETRY_AFTER = 0.25
UNSEEN = 2.0  # a write acknowledged this long ago and still not delivered: the consumer is stuck


class Lease:
    """Writes the heartbeats of one replica and knows until when its tables may be trusted."""

    def __init__(self, bus: Bus, follower: Follower, replica: Replica) -> None:
        self._bus, self._follower, self._entry = bus, follower, replica
        self._proof = Proof()
        self._changed = asyncio.Event()
        self._newest_change = 0
        self._applied_at = iso(now())
        self._task: asyncio.Task[None] | None = None
        follower.subscribe(self._on_change)
        follower.on_applied(self._on_applied)
        follower.on_anew(self._void)

    @property
    def valid(self) -> bool:
        """Whether the replica may decide now."""
        return elapsed() < self._proof.since + self._entry.lease

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="lease")

    async def stop(self) -> None:
        """Stop, and say goodbye, so that no receipt waits for this replica. Deciding must have ended."""
        await cancel(self._task)
        self._void()
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        with contextlib.suppress(APIError, nats.errors.Error, TimeoutError, OSError):
            await self._bus.js.publish(
                SUBJECT + key_of(self._entry), headers=headers, msg_ttl=MARKER_TTL, timeout=1
            )

    def _void(self) -> None:
        """What was proven, or is on its way, proves nothing of the log that is read now."""
        self._proof = Proof()

    def _on_change(self, key: str, _: bytes | None, revision: int) -> None:
        if not key.startswith("replica."):
            self._newest_change = revision

    def _on_applied(self, applied: int) -> None:
        self._proof.apply(applied)
        if self._entry.revision < self._newest_change <= applied:
            self._applied_at = iso(now())
            self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            began = elapsed()
            try:
                await self._beat()
            except (APIError, nats.errors.Error, TimeoutError, OSError) as error:
                log.warning("heartbeat_failed", error=repr(error))
                await asyncio.sleep(RETRY_AFTER)
            except Exception:  # whatever it is: without heartbeats the lease runs out and calls are refused
                log.exception("heartbeat_failed")
                await asyncio.sleep(RETRY_AFTER)
            unseen = self._proof.unseen
            if unseen and elapsed() - min(unseen.values()) > UNSEEN:
                log.warning("heartbeat_unseen", revisions=sorted(unseen))
                unseen.clear()
                self._follower.restart()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, BEAT - (elapsed() - began))):
                    await self._changed.wait()

    async def _beat(self) -> None:
        applied, proof = self._follower.applied, self._proof
        self._entry = msgspec.structs.replace(self._entry, revision=applied, applied_at=self._applied_at)
        sent = elapsed()
        # A replica that dies is forgotten in time. One that decides without a proof must not be: it may live.
        ttl = MARKER_TTL if self._entry.on_stale == "refuse" else None
        ack = await self._bus.js.publish(
            SUBJECT + key_of(self._entry), msgspec.json.encode(self._entry), msg_ttl=ttl, timeout=2
        )
        if ack.seq <= applied or await self._follower.present_log() != self._follower.born:
            # It stands before what we have read, or in a log of another name: its revision tells us nothing.
            log.error("control_log_replaced", written=ack.seq, applied=applied)
            self._follower.restart()
        else:
            proof.acknowledge(ack.seq, sent, self._follower.applied)

"""A service's part of the control log: it writes there what its tables say, and waits for the receipt.

Writing is level-triggered. Whatever happened, `publish` and `reconcile` read what the database says *now* and
write where the log differs, under compare-and-swap: a slow writer cannot put an old state over a newer one,
and a write that was lost (a crash between commit and log, NATS away) is made up for later.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import nats.errors
import structlog
from nats.js.errors import APIError, NotFoundError

from libs.common.bus import Bus
from libs.common.clock import elapsed, iso, now
from libs.common.control.entries import SINGLETONS, AnyEntry, Replica
from libs.common.control.follower import (
    MARKER_TTL,
    STREAM,
    SUBJECT,
    Follower,
    ensure_bucket,
    is_deletion,
)
from libs.common.errors import Unavailable
from libs.common.lifecycle import cancel
from libs.common.settings import Settings

log = structlog.get_logger(__name__)

RECONCILE_EVERY = 30.0  # seconds, when nothing says that it is due
RETRY_AFTER = 1.0  # seconds
SLICE = 500  # entries that are compared before others have their turn
ATTEMPTS = 8  # of one compare-and-swap before giving up until the next reconciliation
DRIFT = 0.02  # how much faster our clock may run than a replica's
MARGIN = 0.25  # seconds on top

# The entries that the given keys should have, by key; a key that should not exist is left out.
# `None` asks for all entries that the service owns.
Desired = Callable[[Collection[str] | None], Awaitable[Mapping[str, AnyEntry]]]

_WRONG_SEQUENCE = (10071, 10164)  # NATS: the expected last sequence is not the last one
_BUS_ERRORS = (APIError, nats.errors.Error, TimeoutError, OSError)


# `applied`: it decides by the new state. `lease_expired`: it has not reported, and the last proof it can have
# has run out, so it refuses every call until it has caught up. `pending`: neither yet.
Standing = Literal["applied", "lease_expired", "pending"]


@dataclass(frozen=True, slots=True)
class ReplicaReceipt:
    """How a change stands at one gateway replica, and since when it is `applied`."""

    replica: str
    state: Standing
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Answer to a change: from `revision` on every replica decides by it, if `complete`."""

    revision: int
    complete: bool
    replicas: list[ReplicaReceipt] = field(default_factory=list)
    detail: str = ""

    @property
    def status(self) -> int:
        """HTTP status of the answer: 200, or 202 while something is pending."""
        return 200 if self.complete else 202


def expiry(lease: float) -> float:
    """Seconds on our clock after which a lease that a replica had has run out on the replica's."""
    return lease * (1 + DRIFT) + MARGIN


def standing(
    replica: Replica, heard: float, revision: int, acknowledged: float, moment: float
) -> Standing | None:
    """How the change `revision` stands at `moment` at a replica last heard of at `heard`.

    Times by `elapsed()`. `None`: it is without a lease since before the change was acknowledged.
    """
    if replica.revision >= revision:
        return "applied"
    if replica.on_stale == "serve":  # its silence proves nothing
        return "pending"
    if heard + expiry(replica.lease) < acknowledged:
        return None
    return "lease_expired" if moment >= acknowledged + expiry(replica.lease) else "pending"


class Owner:
    """Keeps the entries whose kind is in `kinds` equal to what `desired` says."""

    def __init__(
        self, bus: Bus, follower: Follower, settings: Settings, kinds: Collection[str], desired: Desired
    ):
        self._bus, self._follower, self._settings = bus, follower, settings
        self._kinds, self._desired = frozenset(kinds), desired
        self._log: dict[str, tuple[int, bytes | None]] = {}  # key -> revision, value
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        bus.on_return(self._due.set)
        follower.subscribe(self._on_change)
        self._log_id = 0  # of the log that we know, which may be lost and another take its place
        follower.on_anew(self._forget)

    async def start(self) -> None:
        """Reconcile once, then when NATS is back, after a write that failed, and periodically.

        The follower must have started.
        """
        await self.reconcile()
        self._task = asyncio.create_task(self._run(), name="control-owner")

    async def stop(self) -> None:
        await cancel(self._task)

    async def publish(self, *keys: str) -> Receipt:
        """Bring `keys` to what the database says, and wait until it holds on every replica.

        Call it after the commit. It never raises for a bus that is away: the receipt says what is pending.
        """
        try:
            revision = 0
            for key in keys:  # there may be thousands: others, such as a switch, get in between
                async with self._lock:
                    revision = max(revision, await self._bring(key))
        except (*_BUS_ERRORS, Unavailable) as error:
            log.warning("control_write_failed", keys=keys, error=repr(error))
            self._due.set()
            return Receipt(
                0, False, detail="the control log cannot be written now; this will be completed later"
            )
        return await self.receipt(revision)

    async def reconcile(self) -> int:
        """Bring the whole part to what the database says. Returns the number of entries written.

        Raises `Unavailable` for those that could not be, after all others were.
        """
        await ensure_bucket(self._bus, self._settings.nats_replicas)
        differing = await self._differing(await self._desired(None))
        async with self._lock:
            await self._bring_all(differing)
        if differing:
            log.info("control_reconciled", entries=len(differing))
        return len(differing)

    async def _bring_all(self, keys: Collection[str]) -> None:
        """`org` and `keys` last: without them nothing is admitted, so a log that is being written anew admits
        nothing before all that forbids something is there."""
        failed: list[str] = []
        for key in sorted(keys, key=lambda key: key in SINGLETONS):
            if failed and key in SINGLETONS and key not in self._log:
                failed.append(key)
                continue
            try:
                await self._bring(key)
            except (*_BUS_ERRORS, Unavailable) as error:
                log.warning("control_write_failed", keys=[key], error=repr(error))
                failed.append(key)
                if not self._bus.connected:
                    break
        if failed:
            raise Unavailable(f"not in the control log yet: {', '.join(failed[:5])}")

    async def receipt(self, revision: int) -> Receipt:
        """Wait until every live replica has applied `revision`, or cannot be deciding without it."""
        acknowledged = elapsed()
        try:
            there = await self._follower.present_log()
        except _BUS_ERRORS:
            return Receipt(revision, False, detail="written, and not yet confirmed by every replica")
        leases = [replica.lease for replica in self._follower.tables.replicas.values()]
        allowance = expiry(max([self._settings.lease, *leases]))

        def known() -> bool:
            # A log that took another's place does not name those who still have a lease from that one.
            others_expired = elapsed() >= self._follower.replaced_at + allowance
            return self._follower.born == there and self._follower.applied >= revision and others_expired

        def settled() -> bool:
            return known() and all(r.state != "pending" for r in self._states(revision, acknowledged))

        # A little longer than the longest expiry: the last look must not fall just before it.
        with contextlib.suppress(Unavailable):
            await self._follower.wait_for(settled, allowance + 0.05)
        states = self._states(revision, acknowledged)
        complete = known() and all(r.state != "pending" for r in states)
        return Receipt(revision, complete, states, "" if complete else "not yet confirmed by every replica")

    def _states(self, revision: int, acknowledged: float) -> list[ReplicaReceipt]:
        moment, states = elapsed(), []
        for name, replica in sorted(self._follower.tables.replicas.items()):
            heard = self._follower.heard.get(name, acknowledged)
            state = standing(replica, heard, revision, acknowledged, moment)
            at = {"applied": replica.applied_at, "lease_expired": iso(now())}.get(state or "")
            if state:
                states.append(ReplicaReceipt(name, state, at))
        return states

    # -- writing ----------------------------------------------------------------------------------

    def _on_change(self, key: str, value: bytes | None, revision: int) -> None:
        if key.partition(".")[0] not in self._kinds or revision < self._log.get(key, (0, None))[0]:
            return
        if value is None:
            self._log.pop(key, None)
        else:
            self._log[key] = (revision, value)

    async def _differing(self, desired: Mapping[str, AnyEntry]) -> list[str]:
        """The keys whose entries are not as `desired`. What it finds may be out of date: to bring a key, both
        sides are looked at again. But it is about one log from beginning to end, or it begins again: of a log
        that was lost halfway it would else name `org`, and not what was compared before."""
        while True:
            log_id, differing = self._log_id, []
            for number, key in enumerate(desired.keys() | self._log.keys(), 1):
                if number % SLICE == 0:  # a large organization's log takes half a second
                    await asyncio.sleep(0)
                if self._differs(key, desired.get(key)):
                    differing.append(key)
            if log_id == self._log_id:
                return differing

    def _forget(self) -> None:
        """The log was lost, and has to be written again."""
        self._log.clear()
        self._log_id += 1

    def _differs(self, key: str, entry: AnyEntry | None) -> bool:
        return self._log.get(key, (0, None))[1] != _encoded(entry)

    async def _bring(self, key: str) -> int:
        """Bring `key` to what the database says now. Returns the revision at which that stands.

        The log is looked at before the database: then the write can only succeed if nobody has written the
        key since, and what was read is at least as new as everything that was written before.
        """
        for _ in range(ATTEMPTS):
            revision, value = self._log.get(key, (0, None))
            entry = (await self._desired([key])).get(key)
            if value == _encoded(entry):
                if entry is not None or (newest := await self._newest(key))[1] is None:
                    return revision if entry is not None else newest[0]
                self._log[key] = newest  # it is there, and has not reached us yet
                continue
            try:
                return await self._swap(key, entry, revision)
            except APIError as error:
                if error.err_code not in _WRONG_SEQUENCE:
                    raise
            self._log[key] = await self._newest(key)  # another replica of this service wrote it
        raise Unavailable(f"{key} is being written by somebody else all the time")

    async def _swap(self, key: str, entry: AnyEntry | None, expected: int) -> int:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        value = _encoded(entry)
        if value is None:
            headers |= {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        ttl = MARKER_TTL if value is None else None
        ack = await self._bus.js.publish(SUBJECT + key, value or b"", headers=headers, msg_ttl=ttl)
        self._log[key] = (ack.seq, value)
        return int(ack.seq)

    async def _newest(self, key: str) -> tuple[int, bytes | None]:
        try:
            message = await self._bus.js.get_last_msg(STREAM, SUBJECT + key)
        except NotFoundError:
            return 0, None
        return message.seq or 0, None if is_deletion(message.headers) else message.data

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECONCILE_EVERY):
                    await self._due.wait()
            self._due.clear()
            try:
                await self.reconcile()
            except (*_BUS_ERRORS, Unavailable) as error:
                log.warning("control_reconcile_failed", error=repr(error))
                await asyncio.sleep(RETRY_AFTER)
                self._due.set()
            except Exception:
                log.exception("control_reconcile_failed")


def _encoded(entry: AnyEntry | None) -> bytes | None:
    return msgspec.json.encode(entry) if entry else None

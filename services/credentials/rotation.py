"""Wraps every record with another master key, while the service goes on serving.

Only the wrapped data keys are written anew: no secret is decrypted and no version changes, so that no gateway
notices. It goes on where it was interrupted, since what is left to do is what the records themselves say.
Several replicas may be at it at once; each record is swapped by compare-and-swap.
"""

import asyncio

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from libs.common.bus import Bus
from libs.common.clock import iso, now
from libs.common.control.entries import User
from libs.common.errors import BadRequest, Conflict, LockgateError
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.lifecycle import cancel
from libs.common.records import AdminEvent
from services.credentials.store.keys import MasterKeys, RotationState

log = structlog.get_logger(__name__)

BATCH = 200  # records; a batch is one short transaction
LOOK_AGAIN = 60.0  # seconds
WHO_KNOWS = "credentials.master_keys"
WITHIN = 1.0  # seconds for the other replicas to answer


class WhoKnows(msgspec.Struct, frozen=True):
    """Which master keys do you have? Asked of every replica of this service."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    replica: str
    keys: list[str]  # ids


class Rotation:
    """The rotation of one vault's master key, as this replica carries it out."""

    def __init__(self, bus: Bus, master_keys: MasterKeys, known: list[str], journal: Journal) -> None:
        self._bus, self._master_keys, self._known, self._journal = bus, master_keys, known, journal
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._bus.serve(WHO_KNOWS, WhoKnows, self._answer, everyone=True)
        self._task = asyncio.create_task(self._run(), name="master-key-rotation")

    async def stop(self) -> None:
        await cancel(self._task)

    @property
    def known(self) -> list[str]:
        """The ids of the master keys that this replica was given."""
        return self._known

    async def state(self) -> RotationState:
        return await asyncio.to_thread(self._master_keys.state)

    async def begin(self, admin: User, key_id: str) -> RotationState:
        """Wrap everything with that key from now on. Raises `BadRequest`, `Conflict` when a replica does not
        have the key, and `Unavailable`."""
        if key_id not in self._known:
            raise BadRequest(
                "There is no such master key here. Name it in LOCKGATE_CREDENTIALS_MORE_KEYS at every "
                f"replica of the credentials service first. Known are: {', '.join(self._known)}"
            )
        replicas = await self._bus.gather(WHO_KNOWS, WhoKnows(), Known, within=WITHIN)
        without = sorted(other.replica for other in replicas if key_id not in other.keys)
        if without:
            raise Conflict(
                f"{', '.join(without)} of the credentials service does not have this key yet, and could not "
                "open what it wraps. Name it in LOCKGATE_CREDENTIALS_MORE_KEYS there first."
            )
        before = await self.state()
        if await asyncio.to_thread(self._master_keys.use, key_id):
            self._record("master_key_rotation_started", admin.id, admin.email, before.key_id, key_id)
        self._wake.set()
        return await self.state()

    async def _answer(self, _: WhoKnows) -> Known:
        return Known(replica=self._journal.replica, keys=self._known)

    async def _run(self) -> None:
        while True:
            try:
                await self._rewrap_all()
            except (LockgateError, SQLAlchemyError) as error:
                log.warning("master_key_rotation_interrupted", error=str(error))
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_AGAIN)
            except TimeoutError:
                continue

    async def _rewrap_all(self) -> None:
        """Until nothing is left that can be done. Raises `LockgateError`, `SQLAlchemyError`."""
        while records := await asyncio.to_thread(self._master_keys.pending, BATCH):
            if not await asyncio.to_thread(self._master_keys.rewrap, records):
                log.error("master_key_rotation_stuck", records=[identifier for _, identifier, _ in records])
                return
        for retired in await asyncio.to_thread(self._master_keys.retire):
            log.info("master_key_rotation_finished", retired=retired)
            self._record("master_key_rotation_finished", "lockgate", "", retired, (await self.state()).key_id)

    def _record(self, event: str, actor: str, email: str, before: str, after: str) -> None:
        record = AdminEvent(
            id=new_id(), time=iso(now()), event=event, actor=actor, email=email,
            subject="master_key", before=before, after=after,
        )  # fmt: skip
        self._journal.append(record)

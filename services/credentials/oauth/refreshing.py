"""When access tokens are renewed: ahead of their expiry, and when a gateway asks because an upstream refused
one. One refresh at a time per account: within this process by a task that all join, across replicas by a
lease (leases.py)."""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError

from libs.common.errors import Conflict, LockgateError, Unavailable
from libs.common.lifecycle import Tasks, cancel
from services.credentials.domain import Account, NeedsAttention, NoCredential, Owner
from services.credentials.oauth.domain import ProviderFailed
from services.credentials.oauth.leases import RENEW_EVERY, Leases
from services.credentials.oauth.renewal import Renewal
from services.credentials.oauth.telling import Telling
from services.credentials.store.accounts import Accounts

log = structlog.get_logger(__name__)

OURSELVES = "credentials"  # who refreshes ahead of expiry, for the record
AT_ONCE = 16
LOOK_EVERY = 2.0  # seconds
OTHERS_WITHIN = 30.0  # seconds for which another replica may be at it
ASKED_AGAIN = 20.0  # seconds for which a token that is not expired is not renewed just because it is refused
LONGEST_PAUSE = 60.0  # seconds between tries while the provider fails


class NotRenewable(Conflict):
    type, title = "not-renewable", "This credential cannot be renewed by itself"


@dataclass(slots=True)
class Rest:
    """An account whose refresh failed: not again before `until`."""

    failures: int
    until: float
    error: LockgateError


class Refreshing:
    """A part of the service (libs.common.lifecycle)."""

    def __init__(self, accounts: Accounts, leases: Leases, renewal: Renewal, telling: Telling) -> None:
        self._accounts, self._leases, self._renewal, self._telling = accounts, leases, renewal, telling
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks()
        self._rests: dict[str, Rest] = {}
        self._asked: dict[str, float] = {}  # account -> when a gateway last had it renewed
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._watch = asyncio.create_task(self._run(), name="credential-refreshing")

    async def stop(self) -> None:
        """What a provider was asked for is waited for, and stored."""
        await cancel(self._watch)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OTHERS_WITHIN):
                await self._tasks.join()
        await self._tasks.cancel()

    # -- asked for --------------------------------------------------------------------------------

    async def newer(self, owner: Owner, seen: int, asker: str) -> int:
        """The newest version of the credential of `owner`, newer than `seen` if that can be. When this
        returns, the control log has it too.

        Raises `NoCredential`, `NeedsAttention`, `NotRenewable`, `ProviderFailed`.
        """
        account = await asyncio.to_thread(self._accounts.chosen, owner)
        if account.state == "connected" and account.version <= seen:
            if account.kind != "oauth":
                raise NotRenewable(f"What is stored for {owner.slug} is a key. Enter the right one.")
            if not self._asked_lately(account):
                await self.renew(account, asker)
                account = await asyncio.to_thread(self._accounts.chosen, owner)
        if account.state != "connected":
            raise NeedsAttention(account.reason)
        await self._telling.known(account)
        return account.version

    async def renew(self, account: Account, asker: str = OURSELVES) -> None:
        """Renew what `account` holds, or wait until whoever is at it has. Raises as `Renewal.renew`."""
        rest = self._rests.get(account.id)
        if rest and rest.until > time.monotonic():
            raise rest.error.with_traceback(None)  # each raise would add to it
        await asyncio.shield(self._flight(account, asker))

    def _asked_lately(self, account: Account) -> bool:
        """Whether this account was renewed on demand a moment ago: then another token will not help."""
        now = time.monotonic()
        expired = 0 < account.expires_at <= time.time()
        if expired or account.id in self._flights or account.id in self._rests:
            return False
        if now - self._asked.get(account.id, -ASKED_AGAIN) < ASKED_AGAIN:
            return True
        self._asked = {known: at for known, at in self._asked.items() if now - at < ASKED_AGAIN}
        self._asked[account.id] = now
        return False

    # -- ahead of expiry --------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                wait = await self._look()
            except Exception:
                log.exception("refreshing_failed")
                wait = LOOK_EVERY
            await asyncio.sleep(wait)

    async def _look(self) -> float:
        """Begin what is due. Returns seconds until the next look."""
        free = AT_ONCE - len(self._flights)
        for account_id in await asyncio.to_thread(self._leases.due, free) if free > 0 else []:
            with contextlib.suppress(NoCredential):
                account = await asyncio.to_thread(self._accounts.account, account_id)
                self._flight(account, OURSELVES)
        soonest = await asyncio.to_thread(self._leases.next_due)
        return LOOK_EVERY if soonest is None else min(LOOK_EVERY, max(0.1, soonest))

    # -- one at a time ----------------------------------------------------------------------------

    def _flight(self, account: Account, asker: str) -> "asyncio.Task[None]":
        """The task that renews the account: the one that does so already, or a new one."""
        if running := self._flights.get(account.id):
            return running
        task = self._tasks.spawn(self._take_turn(account, asker), name=f"refresh-{account.id}")
        self._flights[account.id] = task
        task.add_done_callback(lambda done: self._landed(account, done))
        return task

    def _landed(self, account: Account, task: "asyncio.Task[None]") -> None:
        del self._flights[account.id]
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._rests.pop(account.id, None)
        else:
            unexpected = None if isinstance(error, LockgateError) else error
            log.warning(
                "credential_not_refreshed",
                credential=account.owner.key,
                error=str(error) if unexpected is None else type(error).__name__,
                exc_info=unexpected,
            )

    async def _take_turn(self, account: Account, asker: str) -> None:
        """Refresh when no other replica does, unless it has done so then."""
        deadline = time.monotonic() + OTHERS_WITHIN
        while not await asyncio.to_thread(self._leases.take, account.id):
            await asyncio.sleep(0.1)
            now = await asyncio.to_thread(self._accounts.account, account.id)
            if now.sealed_version != account.sealed_version or now.state != "connected":
                return
            if time.monotonic() > deadline:
                raise ProviderFailed("it does not answer another replica of this service")
        keeper = asyncio.create_task(self._hold(account.id), name=f"lease-{account.id}")
        try:
            await self._renewal.renew(account, asker)
        except Exception as error:
            await self._rest(account, error)
            raise
        finally:
            await cancel(keeper)
            await asyncio.to_thread(self._leases.release, account.id)

    async def _hold(self, account_id: str) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY)
            try:
                await asyncio.to_thread(self._leases.renew, account_id)
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", error=type(error).__name__)

    async def _rest(self, account: Account, error: Exception) -> None:
        known = self._rests.get(account.id)
        failures = known.failures + 1 if known else 1
        pause = min(LONGEST_PAUSE, 2.0 ** (failures - 1))
        told = (
            error if isinstance(error, LockgateError) else Unavailable("the credential cannot be renewed now")
        )
        self._rests[account.id] = Rest(failures, time.monotonic() + pause, told)
        await asyncio.to_thread(self._leases.postpone, account.id, pause)

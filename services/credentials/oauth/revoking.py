"""Telling providers that what was removed here is not needed any more (RFC 7009), then forgetting it."""

import asyncio
import time
from datetime import datetime

import structlog

from libs.common.clock import now
from libs.common.lifecycle import cancel
from services.credentials.domain import Account, Change, CredentialUnreadable, NoCredential
from services.credentials.oauth import endpoints
from services.credentials.oauth.domain import Connection
from services.credentials.oauth.leases import Leases
from services.credentials.oauth.renewal import Renewal
from services.credentials.oauth.telling import Telling
from services.credentials.store.accounts import Accounts

log = structlog.get_logger(__name__)

LOOK_EVERY = 2.0  # seconds
TRIED_FOR = 24 * 3600.0  # seconds for which a provider that does not answer is asked again
SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 3600.0  # seconds between tries; between, as long as it was tried so far
AT_ONCE = 20
ACTOR = "credentials"


class Revoking:
    """A part of the service (libs.common.lifecycle): works off the accounts that were removed."""

    def __init__(self, accounts: Accounts, leases: Leases, renewal: Renewal, telling: Telling) -> None:
        self._accounts, self._leases, self._renewal, self._telling = accounts, leases, renewal, telling
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="credential-revoking")

    async def stop(self) -> None:
        await cancel(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self.work_off()
            except Exception:
                log.exception("revoking_failed")
            await asyncio.sleep(LOOK_EVERY)

    async def work_off(self) -> None:
        """Revoke what was removed and is to be tried now."""
        due = await asyncio.to_thread(self._accounts.removed, time.time())
        for start in range(0, len(due), AT_ONCE):
            await asyncio.gather(*map(self._settle, due[start : start + AT_ONCE]))

    async def _settle(self, account: Account) -> None:
        if not await asyncio.to_thread(self._leases.take, account.id):
            return  # another replica does it
        try:
            told = await self._try(account)
            age = _age(account)
            if told is None and age < TRIED_FOR:
                pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, age))
                await asyncio.to_thread(self._leases.postpone, account.id, pause)
                return
            await asyncio.to_thread(self._accounts.forget, account.id)
            detail = told or "its provider did not answer for a day"
            await self._telling.tell(
                "credential_revoked", Change(account.owner, account, None), ACTOR, detail
            )
        finally:
            await asyncio.to_thread(self._leases.release, account.id)

    async def _revoke(self, account: Account) -> str | None:
        """What became of it, for the record; None if it has to be tried again."""
        try:
            _, secret = await asyncio.to_thread(self._accounts.open, account.id)
        except CredentialUnreadable:
            return "it could not be opened, so its provider was not told"
        except NoCredential:
            return "it was forgotten already"
        connection, web = await self._renewal.current(account, Connection.decode(secret))
        if not connection.revocation_endpoint:
            return "its provider offers no revocation"
        return "revoked at its provider" if await endpoints.revoke(web, connection) else None

    async def _try(self, account: Account) -> str | None:
        """The same; whatever goes wrong is this account's matter alone."""
        try:
            return await self._revoke(account)
        except Exception as error:
            log.warning("credential_not_revoked", account=account.id, error=type(error).__name__)
            return None


def _age(account: Account) -> float:
    """Seconds since it was removed."""
    removed_at = datetime.fromisoformat(account.changed_at)
    return (now() - removed_at).total_seconds()

"""What becomes of the credentials of people who were removed: they are deleted, and revoked where their
provider offers that (oauth/revoking.py)."""

import asyncio
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from libs.common.control.entries import ORGANIZATION
from libs.common.control.follower import Follower
from libs.common.errors import LockgateError
from libs.common.lifecycle import cancel
from services.credentials.changes import LOCKGATE, Changes
from services.credentials.domain import Owner
from services.credentials.store.accounts import Accounts

log = structlog.get_logger(__name__)

LOOK_EVERY = 600.0  # seconds; a removal that was not seen as it happened is noticed then


class Leavers:
    """A part of the service (libs.common.lifecycle). The follower must have started."""

    def __init__(self, follower: Follower, accounts: Accounts, changes: Changes) -> None:
        self._follower, self._accounts, self._changes = follower, accounts, changes
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        follower.subscribe(self._on_change)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="credential-leavers")

    async def stop(self) -> None:
        await cancel(self._task)

    def _on_change(self, key: str, value: bytes | None, _: int) -> None:
        if value is None and key.startswith("user."):
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
            except (LockgateError, SQLAlchemyError) as error:
                log.warning("leavers_not_removed_yet", error=type(error).__name__)
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_EVERY)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        stored = await asyncio.to_thread(self._accounts.users)
        for user in sorted(stored - {ORGANIZATION}):
            if self._is_gone(user):
                await self._remove(user)

    def _is_gone(self, user: str) -> bool:
        """Whether `user` was removed. In a log that was lost and is written anew, nobody is there at first:
        auth writes `keys` after everybody."""
        tables = self._follower.tables
        return self._follower.complete and tables.keys is not None and user not in tables.users

    async def _remove(self, user: str) -> None:
        accounts = await asyncio.to_thread(self._accounts.of_user, user)
        for slug in dict.fromkeys(account.owner.slug for account in accounts):
            owner = Owner(slug, user)
            write = partial(self._accounts.remove_all, owner)
            await self._changes.make_all(LOCKGATE, "credential_deleted", owner, write)
        log.info("credentials_of_leaver_deleted", user=user, accounts=len(accounts))

"""What becomes of the credentials of people who were removed: they are deleted, and revoked where their
provider offers that (oauth/revoking.py)."""

import asyncio
from functools import partial

import structlog

from libs.common.bus import Bus
from libs.common.control.departures import Departures
from libs.common.control.entries import ORGANIZATION
from libs.common.control.follower import Follower
from services.credentials.changes import LOCKGATE, Changes
from services.credentials.domain import Owner
from services.credentials.store.accounts import Accounts

log = structlog.get_logger(__name__)


def departures(bus: Bus, accounts: Accounts, changes: Changes, follower: Follower) -> Departures:
    """Each change is an `admin_events` record."""

    def kept() -> set[str]:
        return accounts.users() - {ORGANIZATION}

    async def forget(user: str) -> None:
        stored = await asyncio.to_thread(accounts.of_user, user)
        for slug in dict.fromkeys(account.owner.slug for account in stored):
            owner = Owner(slug, user)
            await changes.make_all(LOCKGATE, "credential_deleted", owner, partial(accounts.remove_all, owner))
        log.info("credentials_of_removed_user_deleted", user=user, accounts=len(stored))

    return Departures(bus, follower, kept, forget)

"""Links that an administrator hands to a person: to join, and to set a new password."""

import asyncio
from dataclasses import dataclass
from functools import partial

from libs.common.control.changes import Changes
from libs.common.control.entries import Role
from libs.common.control.entries import User as UserEntry
from libs.common.control.owner import Owner, Receipt
from libs.common.ids import new_secret
from services.auth.audit import Audit, auth_event, told_of_user
from services.auth.control import revoked_key, user_key
from services.auth.domain import (
    INVITATION_LIFETIME,
    RESET_LIFETIME,
    Link,
    LinkPurpose,
    User,
    checked_email,
)
from services.auth.keys import hash_of
from services.auth.passwords import Passwords
from services.auth.people import new_user
from services.auth.store import Store
from services.auth.store.database import unix_now

LIFETIMES: dict[LinkPurpose, int] = {"invitation": INVITATION_LIFETIME, "reset": RESET_LIFETIME}


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link as the administrator sees it, once."""

    user: User
    url: str
    expires_at: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Links:
    store: Store
    passwords: Passwords
    owner: Owner
    audit: Audit
    changes: Changes
    public_url: str

    # -- what administrators do -------------------------------------------------------------------

    async def invite(self, admin: UserEntry, email: str, name: str, role: Role) -> NewLink:
        """A new account, whose owner sets the password by the link. Raises `EmailTaken`, `BadEmail`."""
        user = new_user(checked_email(email), name, role)
        link, url = self._make("invitation", user.id)
        add = partial(self.store.users.add, user, "", link)
        _, receipt = await self.changes.make(admin, "user_invited", add, lambda _: told_of_user(None, user))
        return NewLink(user, url, link.expires_at, receipt)

    async def renew(self, admin: UserEntry, user_id: str, purpose: LinkPurpose) -> NewLink:
        """Another link to join, or one to set a new password; earlier ones are void. Raises `UnknownUser`,
        `Deactivated`, `AlreadyJoined`, `NotJoined`."""
        link, url = self._make(purpose, user_id)
        event = "user_invited" if purpose == "invitation" else "password_reset_offered"
        replace = partial(self.store.links.replace, link)
        user, receipt = await self.changes.make(admin, event, replace, lambda user: told_of_user(user, user))
        return NewLink(user, url, link.expires_at, receipt)

    def _make(self, purpose: LinkPurpose, user_id: str) -> tuple[Link, str]:
        secret, now = new_secret(), unix_now()
        link = Link(hash_of(secret), purpose, user_id, now, now + LIFETIMES[purpose])
        return link, f"{self.public_url}/login/{purpose}/{secret}"

    # -- what the person does ---------------------------------------------------------------------

    async def find(self, purpose: LinkPurpose, secret: str) -> User:
        """The person for whom a link is. Raises `BadLink`."""
        return await asyncio.to_thread(self.store.links.find, purpose, hash_of(secret))

    async def accept(self, secret: str, password: str, address: str) -> User:
        """Join, with this password. Raises `BadLink`, `WeakPassword`."""
        user, _ = await self._use("invitation", secret, password)
        self.audit.journal.append(auth_event("joined", user=user, address=address))
        return user

    async def reset(self, secret: str, password: str, address: str) -> Receipt:
        """Set a new password, which ends all logins and grants. Raises `BadLink`, `WeakPassword`."""
        user, ended = await self._use("reset", secret, password)
        self.audit.journal.append(auth_event("password_reset", user=user, address=address))
        return await self.owner.publish(user_key(user.id), *map(revoked_key, ended))

    async def _use(self, purpose: LinkPurpose, secret: str, password: str) -> tuple[User, list[str]]:
        await self.find(purpose, secret)  # before the work of hashing
        password_hash = await self.passwords.hash(password)
        return await asyncio.to_thread(self.store.links.use, purpose, hash_of(secret), password_hash)

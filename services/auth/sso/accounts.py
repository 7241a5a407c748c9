"""The account of somebody who has signed in at the provider, as it should be from now on.

An account belongs to an issuer and a subject (OpenID Connect Core 1.0, section 5.7). The e-mail address,
which may be given to somebody else one day, only makes the connection the first time.
"""

import asyncio
from dataclasses import dataclass

import structlog

from libs.common.bus import Bus
from libs.common.bus import Refused as RefusedOnBus
from libs.common.clock import iso, now
from libs.common.control.entries import DEFAULT_GROUP
from libs.common.control.follower import Follower
from libs.common.control.owner import Owner
from libs.common.errors import Unavailable
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AdminEvent
from libs.common.requests import ASSIGN_GROUP, AssignedGroup, AssignGroup
from services.auth.audit import auth_event, told_of_user
from services.auth.control import user_key
from services.auth.domain import LastAdministrator, User
from services.auth.people import joined, new_user
from services.auth.settings import AuthSettings
from services.auth.sso.domain import Identity, Person, Refused
from services.auth.store import Store
from services.auth.store.database import unix_now

log = structlog.get_logger(__name__)

BY_PROVIDER = "sso"  # who acts, in the record of what the provider decides


@dataclass(frozen=True, slots=True)
class Accounts:
    store: Store
    settings: AuthSettings
    bus: Bus
    follower: Follower
    owner: Owner
    journal: Journal

    async def of(self, person: Person, address: str) -> User:
        """The user, with the role and group that the provider says. Raises `Refused`, and `Unavailable` when
        the group cannot be set: nobody comes in with more than they may."""
        user = await asyncio.to_thread(self.store.identities.find, person.issuer, person.subject)
        user = user or await self._connect(person, address)
        if not user.active:
            raise Refused(
                "inactive",
                "Your account here is deactivated. An administrator can activate it.",
                person.email,
            )
        user = await self._with_role(user, person)
        await self._assign_group(user, person)
        await asyncio.to_thread(self.store.identities.touch, person.issuer, person.subject, person.email)
        return user

    # -- the first time ---------------------------------------------------------------------------

    async def _connect(self, person: Person, address: str) -> User:
        """The account that has the address, or a new one."""
        found = await asyncio.to_thread(self.store.users.by_email, person.email)
        if found is None and self.settings.auth_oidc_join == "member":
            return await self._join(person, address)
        if found is None:
            raise Refused(
                "sso_not_a_member",
                f"Nobody with the address {person.email} has an account here. Ask an administrator to invite "
                "you.",
                person.email,
            )
        if not found[0].active:
            return found[0]
        return await self._link(found[0], person, address)

    async def _link(self, user: User, person: Person, address: str) -> User:
        linked = await asyncio.to_thread(self.store.identities.link, _identity(person, user.id))
        if linked is None:
            raise Refused(
                "sso_other_identity",
                "The account with your address belongs to another identity of your organization’s sign-in "
                "service. An administrator can disconnect that one.",
                person.email,
            )
        self.journal.append(
            auth_event("identity_linked", user=user, address=address, detail=f"to {person.issuer}")
        )
        return linked

    async def _join(self, person: Person, address: str) -> User:
        user = joined(new_user(person.email, person.name, person.role or "member"))
        if not await asyncio.to_thread(self.store.identities.join, user, _identity(person, user.id)):
            again = await asyncio.to_thread(self.store.identities.find, person.issuer, person.subject)
            if again is None:
                raise Unavailable("Somebody else is changing this account at this moment.")
            return again  # the same person, in another tab
        receipt = await self.owner.publish(user_key(user.id))
        self._record("user_created", None, user, person, receipt.revision)
        self.journal.append(auth_event("joined", user=user, address=address, detail=f"by {person.issuer}"))
        return user

    # -- each time --------------------------------------------------------------------------------

    async def _with_role(self, user: User, person: Person) -> User:
        """The last administrator stays one, whatever the provider says: somebody has to be able to set right
        what is wrong there."""
        if person.role is None or person.role == user.role:
            return user
        change = self.store.users.change
        try:
            before, after, _ = await asyncio.to_thread(
                change, user.id, name=None, role=person.role, active=None
            )
        except LastAdministrator:
            log.warning("sso_last_administrator_kept", user=user.id, role=person.role)
            return user
        receipt = await self.owner.publish(user_key(user.id))
        self._record("user_changed", before, after, person, receipt.revision)
        return after

    async def _assign_group(self, user: User, person: Person) -> None:
        """Groups are policy's: it is asked where the control log says something else than the provider."""
        if person.groups is None or self._is_in(user.id, person.groups):
            return
        query = AssignGroup(user=user.id, email=user.email, groups=list(person.groups), source=person.issuer)
        try:
            await self.bus.request(ASSIGN_GROUP, query, AssignedGroup, timeout=10.0)
        except RefusedOnBus as error:
            log.error("sso_group_refused", user=user.id, error=str(error))
            raise Unavailable("Your permission group cannot be set now.") from error

    def _is_in(self, user_id: str, wanted: tuple[str, ...]) -> bool:
        """Whether the user is in the first of these groups that exists, by id or name; the default
        without."""
        tables = self.follower.tables
        by_name = {group.name: group.id for group in tables.groups.values()}
        chosen = next(
            (found for name in wanted if (found := name if name in tables.groups else by_name.get(name))),
            DEFAULT_GROUP,
        )
        member = tables.members.get(user_id)
        return chosen == (member.group if member else DEFAULT_GROUP)

    def _record(self, event: str, before: User | None, after: User, person: Person, revision: int) -> None:
        told = told_of_user(before, after)
        self.journal.append(
            AdminEvent(
                id=new_id(),
                time=iso(now()),
                event=event,
                actor=BY_PROVIDER,
                subject=told.keys[0],
                before=told.before,
                after=told.after,
                revision=revision,
                detail=f"by {person.issuer}",
            )
        )


def _identity(person: Person, user_id: str) -> Identity:
    at = unix_now()
    return Identity(person.issuer, person.subject, user_id, person.email, at, at)

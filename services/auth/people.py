"""What happens to people's accounts. Each change is committed, written to the control log, recorded, and only
then answered: it holds on every replica when the caller hears of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import structlog

from libs.common.control.changes import Changes, Told
from libs.common.control.entries import Role
from libs.common.control.entries import User as UserEntry
from libs.common.control.owner import Owner, Receipt
from libs.common.ids import new_id
from libs.common.records import AuthEvent
from services.auth.audit import Audit, auth_event, told_of_user
from services.auth.control import revoked_key, user_key
from services.auth.domain import (
    EmailTaken,
    Grant,
    Session,
    User,
    WrongPassword,
    checked_email,
    generate_password,
)
from services.auth.passwords import Passwords
from services.auth.settings import AuthSettings
from services.auth.store import Store
from services.auth.store.database import unix_now

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FirstAdministrator:
    """The account that the first start made. Show `password` once if it was `generated`; never log it."""

    email: str
    password: str
    generated: bool


@dataclass(frozen=True, slots=True)
class People:
    store: Store
    passwords: Passwords
    owner: Owner
    audit: Audit
    changes: Changes

    # -- what administrators do -------------------------------------------------------------------

    async def add(
        self, admin: UserEntry, email: str, name: str, role: Role, password: str | None
    ) -> tuple[User, str | None, Receipt]:
        """A new account; with its password if that was generated. Raises `EmailTaken`, `BadEmail`,
        `WeakPassword`."""
        user = joined(new_user(checked_email(email), name, role))
        generated = None if password else generate_password()
        password_hash = await self.passwords.hash(password or generated or "")
        add = partial(self.store.users.add, user, password_hash)
        _, receipt = await self.changes.make(admin, "user_created", add, lambda _: told_of_user(None, user))
        return user, generated, receipt

    async def change(
        self,
        admin: UserEntry,
        user_id: str,
        *,
        name: str | None = None,
        role: Role | None = None,
        active: bool | None = None,
    ) -> tuple[User, Receipt]:
        """Raises `UnknownUser`, `LastAdministrator`."""
        change = partial(self.store.users.change, user_id, name=name, role=role, active=active)
        changed, receipt = await self.changes.make(admin, "user_changed", change, lambda c: told_of_user(*c))
        return changed[1], receipt

    async def delete(self, admin: UserEntry, user_id: str) -> tuple[User, Receipt]:
        """End everything of a user and forget them. Raises `UnknownUser`, `LastAdministrator`."""
        delete = partial(self.store.users.delete, user_id)
        (user, _), receipt = await self.changes.make(
            admin, "user_deleted", delete, lambda d: told_of_user(d[0], None, d[1])
        )
        return user, receipt

    async def end_all(self, admin: UserEntry, user_id: str) -> tuple[User, Receipt]:
        """Sign somebody out everywhere: end all logins and grants. Raises `UnknownUser`."""
        end = partial(self.store.users.sign_out_everywhere, user_id)
        (user, _), receipt = await self.changes.make(
            admin, "user_signed_out_everywhere", end, lambda e: told_of_user(e[0], e[0], e[1])
        )
        return user, receipt

    # -- what people do with what is their own, and administrators with everybody's ---------------

    async def sign_out_everywhere(self, user: UserEntry, address: str) -> Receipt:
        """End all of one's own logins and grants."""
        _, ended = await asyncio.to_thread(self.store.users.sign_out_everywhere, user.id)
        self.audit.journal.append(auth_event("signed_out_everywhere", user=user, address=address))
        return await self.owner.publish(user_key(user.id), *map(revoked_key, ended))

    async def change_password(
        self, user: UserEntry, session: str, present: str, new: str, address: str
    ) -> Receipt:
        """Set a new password and end the user's other logins. Raises `WrongPassword`, `WeakPassword`."""
        found = await asyncio.to_thread(self.store.users.by_email, user.email)
        verdict = await self.passwords.verify(found[1] if found else None, present)
        if not verdict.right:
            event = auth_event("password_changed", refused="wrong_password", user=user, address=address)
            self.audit.journal.append(event)
            raise WrongPassword
        password_hash = await self.passwords.hash(new)
        ended = await asyncio.to_thread(self.store.users.change_password, user.id, password_hash, session)
        self.audit.journal.append(auth_event("password_changed", user=user, address=address))
        return await self.owner.publish(*map(revoked_key, ended))

    async def revoke_grant(self, actor: UserEntry, grant: Grant, address: str) -> Receipt:
        """Disconnect a client."""
        revoke = partial(self.store.grants.revoke, grant.id)
        told = Told([revoked_key(grant.id)], _json(user=grant.user_id, client=grant.client_name), "")
        event = auth_event("revoked", grant=grant, address=address, detail=_by(actor, grant.user_id))
        return await self._end(actor, "client_disconnected", revoke, told, event)

    async def end_session(self, actor: UserEntry, session: Session, address: str) -> Receipt:
        """End one login. Raises `UnknownUser`."""
        user = await asyncio.to_thread(self.store.users.get, session.user_id)
        end = partial(self.store.sessions.end, user.id, session.id)
        told = Told([revoked_key(session.id)], _json(user=user.id, address=session.address), "")
        event = auth_event("signed_out", user=user, address=address, detail=_by(actor, user.id))
        return await self._end(actor, "session_ended", end, told, event)

    async def _end(
        self, actor: UserEntry, name: str, end: Callable[[], object], told: Told, event: AuthEvent
    ) -> Receipt:
        """End what is the actor's own or, as the administrator's act `name`, somebody else's."""
        if event.user != actor.id:
            _, receipt = await self.changes.make(actor, name, end, lambda _: told)
            self.audit.journal.append(event)
            return receipt
        await asyncio.to_thread(end)
        self.audit.journal.append(event)
        return await self.owner.publish(*told.keys)


def _by(actor: UserEntry, user_id: str) -> str:
    return "" if actor.id == user_id else f"by {actor.email}"


def _json(**values: str) -> str:
    return msgspec.json.encode(values).decode()


def new_user(email: str, name: str, role: Role) -> User:
    """Somebody who is invited."""
    return User(
        id=new_id(),
        email=email,
        name=name.strip(),
        role=role,
        active=True,
        tokens_valid_from=0,
        version=1,
        created_at=unix_now(),
    )


def joined(user: User) -> User:
    """Somebody who can sign in from the beginning."""
    return replace(user, joined_at=user.created_at)


class Founding:
    """Part of the lifespan: where there is nobody yet, makes the administrator."""

    def __init__(self, store: Store, passwords: Passwords, settings: AuthSettings) -> None:
        self._store, self._passwords, self._settings = store, passwords, settings
        self.administrator: FirstAdministrator | None = None

    async def start(self) -> None:
        if await asyncio.to_thread(self._store.users.any):
            return
        given = self._settings.auth_admin_password
        password = given.get_secret_value() if given else generate_password()
        email = self._settings.auth_admin_email
        password_hash = await self._passwords.hash(password)
        try:
            user = joined(new_user(email, "Administrator", "admin"))
            await asyncio.to_thread(self._store.users.add, user, password_hash)
        except EmailTaken:  # another replica was first
            return
        self.administrator = FirstAdministrator(email, password, generated=given is None)
        log.info("first_administrator_created", email=email)

    async def stop(self) -> None:
        self.administrator = None

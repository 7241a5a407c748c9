"""What happens to people's accounts. Each change is committed, written to the control log, recorded, and only
then answered: it holds on every replica when the caller hears of it."""

import asyncio
from dataclasses import dataclass

import structlog

from libs.common.control.entries import Role
from libs.common.control.entries import User as UserEntry
from libs.common.control.owner import Owner, Receipt
from libs.common.ids import new_id
from services.auth.audit import Audit, auth_event
from services.auth.control import revoked_key, user_key
from services.auth.domain import (
    BadEmail,
    EmailTaken,
    Grant,
    User,
    WrongPassword,
    generate_password,
    normal_email,
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

    async def add(
        self, actor: UserEntry, email: str, name: str, role: Role, password: str | None
    ) -> tuple[User, str | None, Receipt]:
        """A new account; with its password if that was generated. Raises `EmailTaken`, `BadEmail`,
        `WeakPassword`."""
        try:
            email = normal_email(email)
        except ValueError as error:
            raise BadEmail(f"The e-mail {error}.") from error
        generated = None if password else generate_password()
        user = new_user(email, name, role)
        password_hash = await self.passwords.hash(password or generated or "")
        await asyncio.to_thread(self.store.users.add, user, password_hash)
        receipt = await self.owner.publish(user_key(user.id))
        self.audit.user_changed("user_created", actor, None, user, receipt.revision)
        return user, generated, receipt

    async def change(
        self,
        actor: UserEntry,
        user_id: str,
        *,
        name: str | None = None,
        role: Role | None = None,
        active: bool | None = None,
    ) -> tuple[User, Receipt]:
        """Raises `UnknownUser`, `LastAdministrator`."""
        before, after, ended = await asyncio.to_thread(
            self.store.users.change, user_id, name=name, role=role, active=active
        )
        receipt = await self._publish(user_id, ended)
        self.audit.user_changed("user_changed", actor, before, after, receipt.revision)
        return after, receipt

    async def sign_out_everywhere(self, actor: UserEntry, user_id: str) -> tuple[User, Receipt]:
        """End all logins and grants of a user. Raises `UnknownUser`."""
        user, ended = await asyncio.to_thread(self.store.users.sign_out_everywhere, user_id)
        receipt = await self._publish(user_id, ended)
        self.audit.user_changed("user_signed_out_everywhere", actor, user, user, receipt.revision)
        return user, receipt

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
        await asyncio.to_thread(self.store.users.set_password, user.id, await self.passwords.hash(new))
        ended = await asyncio.to_thread(self.store.sessions.end, user.id, all_but=session)
        self.audit.journal.append(auth_event("password_changed", user=user, address=address))
        return await self.owner.publish(*map(revoked_key, ended))

    async def revoke_grant(self, actor: UserEntry, grant: Grant, address: str) -> Receipt:
        """Disconnect a client."""
        await asyncio.to_thread(self.store.grants.revoke, grant.id)
        by = "" if actor.id == grant.user_id else f"by {actor.email}"
        self.audit.journal.append(auth_event("revoked", grant=grant, address=address, detail=by))
        return await self.owner.publish(revoked_key(grant.id))

    async def _publish(self, user_id: str, ended: list[str]) -> Receipt:
        return await self.owner.publish(user_key(user_id), *map(revoked_key, ended))


def new_user(email: str, name: str, role: Role) -> User:
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
            user = new_user(email, "Administrator", "admin")
            await asyncio.to_thread(self._store.users.add, user, password_hash)
        except EmailTaken:  # another replica was first
            return
        self.administrator = FirstAdministrator(email, password, generated=given is None)
        log.info("first_administrator_created", email=email)

    async def stop(self) -> None:
        self.administrator = None

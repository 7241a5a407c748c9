"""The second factors of accounts: adding, checking and removing them, each recorded."""

import asyncio
import re
from dataclasses import dataclass, field

import msgspec

from libs.common.control.changes import Changes, Told
from libs.common.control.entries import User as UserEntry
from libs.common.control.owner import Receipt
from libs.common.journal import Journal
from services.auth.audit import auth_event
from services.auth.control import user_key
from services.auth.domain import User, WrongPassword, generate_password
from services.auth.keys import hash_of
from services.auth.passwords import Passwords
from services.auth.second_factor import totp
from services.auth.second_factor.domain import (
    RECOVERY_CODES,
    FactorRequired,
    Factors,
    NoPassword,
    Totp,
    WrongCode,
)
from services.auth.second_factor.sealing import Sealing
from services.auth.settings import AuthSettings
from services.auth.store import Store
from services.auth.store.database import unix_now
from services.auth.throttle import LoginThrottle, Throttle

Anyone = User | UserEntry

CODES = 10  # wrong ones for an account, or from a browser that it knows, in a quarter of an hour


@dataclass(frozen=True, slots=True)
class SecondFactors:
    store: Store
    settings: AuthSettings
    passwords: Passwords
    sealing: Sealing
    journal: Journal
    changes: Changes
    _throttle: Throttle = field(default_factory=lambda: Throttle(CODES, LoginThrottle.WINDOW))

    async def of(self, user_id: str) -> Factors:
        return await asyncio.to_thread(self.store.second_factors.of, user_id)

    def required(self, user: Anyone) -> bool:
        """Whether the organization wants this person to have one."""
        wanted = self.settings.auth_require_second_factor
        return wanted == "all" or (wanted == "admins" and user.role == "admin")

    # -- authenticator apps and codes -------------------------------------------------------------

    def new_secret(self, user: Anyone) -> str:
        """A secret for an app that is yet to be confirmed, sealed."""
        return self.sealing.seal(totp.new_secret(), user.id)

    async def add_totp(self, user: Anyone, sealed: str, code: str, address: str) -> list[str]:
        """Take the app that shows `code` for this secret, in place of a former one. Returns new recovery
        codes if there were none. Raises `WrongCode`."""
        step = totp.step_of(self.sealing.open(sealed, user.id), _digits(code), unix_now())
        if step is None:
            raise WrongCode(
                "It is not what the app should show now. Check that the clock of your phone is right."
            )
        await asyncio.to_thread(self.store.second_factors.put_totp, Totp(user.id, sealed, step, unix_now()))
        self._record("second_factor_added", user, address, "authenticator app")
        return await self.first_recovery_codes(user, address)

    async def check_code(self, user: Anyone, code: str, address: str, device: str = "") -> str:
        """What the code is that somebody gives as a second factor, in words; it is used up with that.
        `device` is the id of a browser known for this account: guesses elsewhere do not lock it out. Raises
        `WrongCode`, `TooManyAttempts`."""
        key = f"{user.id} {device}"
        self._throttle.attempt(key)
        kind = await self._spend(user, code)
        if not kind:
            self._record("second_factor_failed", user, address, refused="wrong_code")
            raise WrongCode("Wait for the next code of your app, or use a recovery code.")
        self._throttle.forgive(key)
        if kind == "recovery code":
            self._record("recovery_code_used", user, address)
        return kind

    async def _spend(self, user: Anyone, code: str) -> str:
        store = self.store.second_factors
        if not totp.is_code(code):
            used = await asyncio.to_thread(store.use_recovery_code, user.id, _recovery_hash(code))
            return "recovery code" if used else ""
        app = (await self.of(user.id)).totp
        if app is None:
            return ""
        step = totp.step_of(self.sealing.open(app.sealed_secret, user.id), _digits(code), unix_now())
        if step is None or not await asyncio.to_thread(store.use_step, user.id, app.sealed_secret, step):
            return ""
        return "authenticator code"

    # -- recovery codes ---------------------------------------------------------------------------

    async def new_recovery_codes(self, user: Anyone, address: str) -> list[str]:
        """The former ones are void. Raises `FactorRequired` where there is nothing to recover from."""
        if not (await self.of(user.id)).any:
            raise FactorRequired("Recovery codes replace a second factor; add one first.")
        codes = [generate_password() for _ in range(RECOVERY_CODES)]
        hashes = [_recovery_hash(code) for code in codes]
        await asyncio.to_thread(self.store.second_factors.put_recovery_codes, user.id, hashes)
        self._record("recovery_codes_made", user, address)
        return codes

    async def first_recovery_codes(self, user: Anyone, address: str) -> list[str]:
        """New ones for somebody who has none; else nothing."""
        if (await self.of(user.id)).recovery_left:
            return []
        return await self.new_recovery_codes(user, address)

    # -- proofs and removal -----------------------------------------------------------------------

    async def prove(self, user: UserEntry, proof: str, address: str) -> None:
        """Make sure that it is the person who sits at their browser, by the password or a code. Raises
        `WrongPassword`, `WrongCode`, `NoPassword`, `TooManyAttempts`."""
        password_hash = await asyncio.to_thread(self.store.second_factors.password_hash, user.id)
        if not password_hash or not self.settings.admits_password_of(user.email):
            raise NoPassword(
                "You sign in by your organization’s sign-in service, which sees to second factors."
            )
        if totp.is_code(proof):
            await self.check_code(user, proof, address)
            return
        key = f"{user.id} password"
        self._throttle.attempt(key)
        if not (await self.passwords.verify(password_hash, proof)).right:
            self._record("second_factor_failed", user, address, refused="wrong_password")
            raise WrongPassword
        self._throttle.forgive(key)

    async def remove_totp(self, user: UserEntry, address: str) -> None:
        """Raises `FactorRequired`."""
        await self._remove(user, totp_=True)
        self._record("second_factor_removed", user, address, "authenticator app")

    async def remove_passkey(self, user: UserEntry, passkey_id: str, name: str, address: str) -> None:
        """Raises `FactorRequired`."""
        await self._remove(user, passkey=passkey_id)
        self._record("passkey_removed", user, address, name)

    async def _remove(self, user: UserEntry, *, totp_: bool = False, passkey: str = "") -> None:
        least = 1 if self.required(user) else 0
        remove = self.store.second_factors.remove
        if await asyncio.to_thread(remove, user.id, totp=totp_, passkey=passkey, at_least=least) is None:
            raise FactorRequired("This is your last one. Add another first.")

    async def remove_all(self, admin: UserEntry, user_id: str) -> Receipt:
        """What an administrator does for somebody who has lost theirs. Raises `UnknownUser`."""
        await asyncio.to_thread(self.store.users.get, user_id)
        _, receipt = await self.changes.make(
            admin,
            "second_factor_removed",
            lambda: self.store.second_factors.remove_all(user_id),
            lambda before: Told([user_key(user_id)], _told(before), "{}", before.any),
        )
        return receipt

    def _record(self, event: str, user: Anyone, address: str, detail: str = "", *, refused: str = "") -> None:
        self.journal.append(auth_event(event, refused=refused, user=user, address=address, detail=detail))  # type: ignore[arg-type]


def _digits(code: str) -> str:
    return code.replace(" ", "")


def _recovery_hash(code: str) -> str:
    """Of 78 random bits: no salt is needed. Typed with or without hyphens."""
    return hash_of(re.sub(r"[\s-]", "", code.casefold()))


def _told(factors: Factors) -> str:
    """Names only."""
    names = [passkey.name for passkey in factors.passkeys]
    return msgspec.json.encode({"authenticator": factors.totp is not None, "passkeys": names}).decode()

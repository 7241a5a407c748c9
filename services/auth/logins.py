"""Login sessions in the browser: two cookies.

The *login cookie* is an opaque secret that only this service reads; it lasts as long as the login. The
*console cookie* is a signed token of a quarter of an hour that every service can check by itself
(`libs.common.web.session`), renewed from the former whenever `/login` is visited.
"""

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from libs.common.control.follower import Follower
from libs.common.ids import new_id, new_secret
from libs.common.tokens import CONSOLE_AUDIENCE, CONSOLE_TYPE, InvalidToken, standing
from libs.common.web.session import Doorkeeper, cookie_name
from services.auth.domain import CONSOLE_LIFETIME, Session, User
from services.auth.keys import hash_of
from services.auth.settings import AuthSettings
from services.auth.store import Store
from services.auth.store.database import unix_now
from services.auth.tokens import Mint


@dataclass(frozen=True, slots=True)
class Login:
    """A live login: who, and the session it is."""

    user: User
    session: Session


# An account that was made a moment ago, or our own first keys, may still be on their way through the log.
ADMITTED_WITHIN = 3.0


def login_cookie_name(settings: AuthSettings) -> str:
    return "__Host-lockgate-login" if settings.secure_cookies else "lockgate-login"


@dataclass(frozen=True, slots=True)
class Logins:
    store: Store
    mint: Mint
    settings: AuthSettings
    follower: Follower

    async def find(self, request: Request) -> Login | None:
        """The live login of the browser."""
        secret = request.cookies.get(login_cookie_name(self.settings))
        if not secret:
            return None
        found = await asyncio.to_thread(self.store.sessions.find, hash_of(secret))
        return Login(user=found[1], session=found[0]) if found else None

    async def begin(self, user: User, address: str, agent: str) -> tuple[Login, str] | None:
        """A new login, always with a new session (against fixation), and its cookie's value. None when the
        user was deactivated in the meantime."""
        now, secret = unix_now(), new_secret()
        expires_at = now + self.settings.auth_session_lifetime
        session = Session(new_id(), user.id, now, expires_at, address, agent)
        current = await asyncio.to_thread(self.store.sessions.add, session, hash_of(secret))
        return (Login(current, session), secret) if current else None

    async def end(self, login: Login) -> list[str]:
        """Returns the ids of what ended, to be published."""
        return await asyncio.to_thread(self.store.sessions.end, login.user.id, login.session.id)

    def set_login_cookie(self, response: Response, secret: str) -> None:
        lifetime = self.settings.auth_session_lifetime
        set_cookie(response, self.settings, login_cookie_name(self.settings), secret, lifetime)

    async def set_console_cookie(self, response: Response, login: Login, doorkeeper: Doorkeeper) -> None:
        """Renew the console's cookie. Raises `Unavailable` when the control log does not admit it even after
        a moment: the next page would only send the browser back here."""
        token = self.mint.console_token(login.user, login.session)
        await self.follower.wait_for(lambda: _admitted(token, doorkeeper), ADMITTED_WITHIN)
        set_cookie(response, self.settings, cookie_name(self.settings), token, CONSOLE_LIFETIME)

    def clear_cookies(self, response: Response) -> None:
        for name in (login_cookie_name(self.settings), cookie_name(self.settings)):
            set_cookie(response, self.settings, name, "", 0)


def set_cookie(response: Response, settings: AuthSettings, name: str, value: str, lifetime: int) -> None:
    """A cookie for our own requests only, out of reach of scripts; `lifetime` is in seconds."""
    secure = settings.secure_cookies
    response.set_cookie(name, value, max_age=lifetime, path="/", secure=secure, httponly=True, samesite="lax")


def _admitted(token: str, doorkeeper: Doorkeeper) -> bool:
    try:
        standing(doorkeeper.tables, doorkeeper.verifier.verify(token, CONSOLE_AUDIENCE, typ=CONSOLE_TYPE))
    except InvalidToken:
        return False
    return True

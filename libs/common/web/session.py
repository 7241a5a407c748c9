"""Who is signed in. Every service checks the console's cookie itself, with the keys of the control log, and
looks the user up there: a page needs no call to auth, and a deactivated person is out on the next click.

A route names what it needs in its signature:

    async def add_server(admin: Administrator, ...): ...
"""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request

from libs.common.control.entries import Role, User
from libs.common.control.tables import Tables
from libs.common.errors import Forbidden, NotSignedIn
from libs.common.settings import Settings
from libs.common.tokens import CONSOLE_AUDIENCE, CONSOLE_TYPE, Claims, InvalidToken, Verifier, standing

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


def api_audience(settings: Settings) -> str:
    """The `resource` (RFC 8707) of access tokens for the HTTP APIs."""
    return f"{settings.public_url}/api"


def cookie_name(settings: Settings) -> str:
    """Name of the console's cookie; on HTTPS the browser itself binds it to the host (RFC 6265bis)."""
    return "__Host-lockgate" if settings.secure_cookies else "lockgate"


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Finds the signed-in user of a request. One per app, in `app.state.doorkeeper`."""

    settings: Settings
    tables: Tables
    verifier: Verifier

    def identify(self, request: Request) -> tuple[User, Claims]:
        """The user and claims of the cookie or bearer token. Raises `NotSignedIn` or `Forbidden`."""
        try:
            claims = self._claims(request)
            return standing(self.tables, claims), claims
        except InvalidToken as error:
            raise NotSignedIn(reason=error.reason) from error

    def _claims(self, request: Request) -> Claims:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.verifier.verify(token.strip(), api_audience(self.settings))
        cookie = request.cookies.get(cookie_name(self.settings))
        if not cookie:
            raise NotSignedIn
        refuse_cross_site(request, self.settings)
        return self.verifier.verify(cookie, CONSOLE_AUDIENCE, typ=CONSOLE_TYPE)


def refuse_cross_site(request: Request, settings: Settings) -> None:
    """Refuse a changing request that another site made the browser send (CSRF). Raises `Forbidden`.

    Browsers say where a request comes from: `Sec-Fetch-Site`, or `Origin` in older ones. A form has to show
    one of them; a program that sends neither does not hold a browser's cookie by accident, but nothing here
    needs it to be let in, so it is refused too.
    """
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site == "same-origin" or (site is None and origin == settings.public_url):
        return
    raise Forbidden("This request did not come from one of Lockgate's own pages.")


def install_doorkeeper(app: FastAPI, settings: Settings, tables: Tables) -> None:
    """Give `app` the means to know who is signed in."""
    app.state.doorkeeper = Doorkeeper(settings, tables, Verifier(tables, settings.public_url))


async def signed_in(request: Request) -> User:
    """The signed-in user, of any role."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    user, claims = doorkeeper.identify(request)
    request.state.user, request.state.claims = user, claims
    return user


def _allow(*roles: Role) -> object:
    async def check(user: Annotated[User, Depends(signed_in)]) -> User:
        if user.role not in roles:
            raise Forbidden(f"This needs the role {' or '.join(roles)}; yours is {user.role}.")
        return user

    return Depends(check)


Member = Annotated[User, Depends(signed_in)]
Auditor = Annotated[User, _allow("admin", "auditor")]
Administrator = Annotated[User, _allow("admin")]


def safe_next(target: str | None) -> str:
    """`target` if it is a path of this origin, else the start page: no open redirects."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")):
        return "/"
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or any(ord(c) < 0x20 or c == "\\" for c in target):
        return "/"
    return target

"""Steps of signing in that one browser begins and the same browser finishes: at the organization's provider,
between password and second factor, with a passkey.

What a step has to remember lies in the database, so that any replica can finish it, and once only. The
browser holds a secret in a cookie, without which nobody else can finish it: not who sees the URL that a
provider redirects to, and not another site that makes the browser follow a URL of its own (login CSRF; RFC
9700, section 4.7).
"""

import asyncio
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from libs.common.ids import new_secret
from libs.common.throttle import source_of
from services.auth.domain import Ceremony, CeremonyKind
from services.auth.keys import hash_of
from services.auth.logins import set_cookie
from services.auth.settings import AuthSettings
from services.auth.store import Store
from services.auth.store.database import unix_now
from services.auth.throttle import Throttle

LIFETIME = 600  # seconds
ATTEMPTS = 5  # at one ceremony
# Rows that one address may cause without an account. An organization's people may all have one address.
STRANGERS = 1000


def ceremony_cookie_name(settings: AuthSettings, kind: CeremonyKind) -> str:
    name = f"lockgate-{kind.replace('_', '-')}"
    return f"__Host-{name}" if settings.secure_cookies else name


@dataclass(frozen=True, slots=True)
class Ceremonies:
    store: Store
    settings: AuthSettings
    _throttle: Throttle = field(default_factory=lambda: Throttle(STRANGERS, LIFETIME))

    async def begin(
        self,
        request: Request,
        kind: CeremonyKind,
        data: dict[str, str],
        *,
        user_id: str = "",
        label: str = "",
    ) -> str:
        """Returns the cookie's value, for `set_cookie`. `label` is a second secret, which the browser will
        show in the URL; then several of a kind may be under way in one browser. Raises `TooManyAttempts`."""
        if not user_id:
            self._throttle.attempt(source_of(request.client.host if request.client else ""))
        present = request.cookies.get(ceremony_cookie_name(self.settings, kind), "") if label else ""
        secret = present or new_secret()
        now = unix_now()
        ceremony = Ceremony(_hash(kind, secret, label), kind, user_id, data, 0, now, now + LIFETIME)
        await asyncio.to_thread(self.store.ceremonies.add, ceremony)
        return secret

    def set_cookie(self, response: Response, kind: CeremonyKind, secret: str) -> None:
        name = ceremony_cookie_name(self.settings, kind)
        set_cookie(response, self.settings, name, secret, LIFETIME)

    def clear_cookie(self, response: Response, kind: CeremonyKind) -> None:
        set_cookie(response, self.settings, ceremony_cookie_name(self.settings, kind), "", 0)

    async def find(self, request: Request, kind: CeremonyKind) -> Ceremony | None:
        """What this browser has begun."""
        wanted = self._wanted(request, kind)
        return await asyncio.to_thread(self.store.ceremonies.find, kind, wanted) if wanted else None

    async def attempt(self, request: Request, kind: CeremonyKind) -> Ceremony | None:
        """The same, for an attempt to finish it; None after `ATTEMPTS` of them."""
        wanted = self._wanted(request, kind)
        if not wanted:
            return None
        return await asyncio.to_thread(self.store.ceremonies.attempt, kind, wanted, ATTEMPTS)

    async def take(self, request: Request, kind: CeremonyKind, label: str = "") -> Ceremony | None:
        """The same, and it is over."""
        wanted = self._wanted(request, kind, label)
        return await asyncio.to_thread(self.store.ceremonies.take, kind, wanted) if wanted else None

    def _wanted(self, request: Request, kind: CeremonyKind, label: str = "") -> str:
        secret = request.cookies.get(ceremony_cookie_name(self.settings, kind))
        return _hash(kind, secret, label) if secret else ""


def _hash(kind: CeremonyKind, secret: str, label: str) -> str:
    return hash_of(f"{kind} {secret} {label}")

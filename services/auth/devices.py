"""Browsers that have signed in to an account before, by a cookie that outlives the login.

The cookie admits to nothing. It lets the throttle tell the browser of the account's owner from those of
guessers (OWASP, "Slow Down Online Guessing Attacks with Device Cookies"). It is an id of the device and a MAC
that binds it to one account.
"""

import asyncio
import hashlib
import hmac

from starlette.requests import Request
from starlette.responses import Response

from libs.common.ids import new_id, new_secret
from services.auth.logins import set_cookie
from services.auth.settings import DAY, AuthSettings
from services.auth.store import Store

LIFETIME = 180 * DAY
_COOKIE_KEY = "device-cookie"


def device_cookie_name(settings: AuthSettings) -> str:
    return "__Host-lockgate-device" if settings.secure_cookies else "lockgate-device"


class Devices:
    """`account` is what `domain.email_key` makes of an e-mail address."""

    def __init__(self, store: Store, settings: AuthSettings) -> None:
        self._store, self._settings = store, settings
        self._secret = b""

    async def start(self) -> None:
        secret = await asyncio.to_thread(self._store.keys.shared_secret, _COOKIE_KEY, new_secret())
        self._secret = secret.encode()

    async def stop(self) -> None:
        self._secret = b""

    def find(self, request: Request, account: str) -> str:
        """The id of the device, if it has signed in to `account` before; else empty."""
        cookie = request.cookies.get(device_cookie_name(self._settings), "")
        device, _, mac = cookie.partition(".")
        return device if hmac.compare_digest(mac.encode(), self._mac(device, account).encode()) else ""

    def remember(self, response: Response, account: str, device: str) -> None:
        """Let the browser show from now on that it has signed in to `account`; `device` if it was known."""
        device = device or new_id()
        value = f"{device}.{self._mac(device, account)}"
        set_cookie(response, self._settings, device_cookie_name(self._settings), value, LIFETIME)

    def _mac(self, device: str, account: str) -> str:
        return hmac.new(self._secret, f"{device} {account}".encode(), hashlib.sha256).hexdigest()

"""Which addresses an authorization server may have, and asking it for JSON."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from libs.common.control.entries import origin_of
from libs.common.fetching import CannotFetch, Fetched, ask
from services.credentials.oauth.domain import ProviderFailed, check_endpoint, short

LIMIT = 256 * 1024  # bytes of an answer
TIMEOUT = 10.0  # seconds for each request
JSON = {"Accept": "application/json"}
FORM = JSON | {"Content-Type": "application/x-www-form-urlencoded"}

Ask = Callable[..., Awaitable[Fetched]]


class Web:
    """The network as seen for one server. What an upstream names may be anywhere on the open internet; on our
    own network it must be of an origin that an administrator entered (`trusted`), or `private` must allow it.
    """

    def __init__(
        self, *, private: bool = False, trusted: frozenset[str] = frozenset(), ask: Ask = ask
    ) -> None:
        self._private, self._trusted, self._ask = private, trusted, ask

    def trusting(self, *urls: str) -> "Web":
        """The same, where the origins of `urls` may be private."""
        origins = {origin for url in urls if (origin := origin_of(url))}
        return Web(private=self._private, trusted=self._trusted | origins, ask=self._ask)

    def may_be_private(self, url: str) -> bool:
        return self._private or origin_of(url) in self._trusted

    def check(self, name: str, url: str) -> str:
        """`url` if it may be asked. Raises `BadRequest`."""
        return check_endpoint(name, url, private=self.may_be_private(url))

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = JSON,
        body: bytes = b"",
        limit: int = LIMIT,
    ) -> Fetched:
        """The answer, whatever its status. Raises `BadRequest` for a URL that may not be asked,
        `CannotFetch`."""
        self.check("the address", url)
        private = self.may_be_private(url)
        return await self._ask(
            method, url, limit, headers=headers, body=body, private=private, timeout=TIMEOUT
        )

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] = FORM
    ) -> tuple[int, dict[str, Any]]:
        """The status and the JSON object of the answer; an empty one where it is none. Raises
        `ProviderFailed`."""
        try:
            answer = await self.request("POST", url, headers=headers, body=urlencode(form).encode())
        except CannotFetch as error:
            raise ProviderFailed(f"{host(url)}: {short(error)}") from error
        return answer.status, json_object(answer.body)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; an empty one where there is none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: brackets within brackets
        return {}
    return found if isinstance(found, dict) else {}


def host(url: str) -> str:
    """Whom to name in a sentence about `url`."""
    return origin_of(url).partition("://")[2] or "the provider"

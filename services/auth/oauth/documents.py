"""Clients that identify themselves by a URL, at which they describe themselves
(draft-ietf-oauth-client-id-metadata-document-02, "CIMD"; MCP 2026-07-28, basic/authorization).

A document is fetched when somebody who is signed in is asked to consent, never for a stranger and never at
the token endpoint: a client whose site is down can still refresh. The last good copy is kept.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common.errors import BadRequest
from libs.common.fetching import CannotFetch, Fetched, fetch
from services.auth.domain import GRANT_TYPES, USUAL_GRANT_TYPES, AuthMethod, Client
from services.auth.oauth.redirects import problem
from services.auth.store.clients import Clients
from services.auth.store.database import unix_now

LIMIT = 10 * 1024  # bytes; the draft recommends 5 KB
FRESH = range(60, 24 * 3600)  # seconds, whatever Cache-Control says
KEPT_AFTER_FAILURE = 24 * 3600  # seconds a stale copy serves while its site is down
_MAX_AGE = re.compile(r"max-age=(\d{1,10})")

PUBLIC: AuthMethod = "none"

Fetch = Callable[[str], Awaitable[Fetched]]


class BadDocument(BadRequest):
    type, title = "bad-client-document", "The application does not describe itself as it should"


class Document(BaseModel):
    """What we use of a document. Members that only a shared secret gives a meaning are not allowed."""

    model_config = ConfigDict(extra="ignore", strict=True)

    client_id: str
    client_name: str = Field("", max_length=200)
    redirect_uris: list[str] = Field(min_length=1, max_length=20)
    grant_types: list[str] = list(USUAL_GRANT_TYPES)
    response_types: list[str] = ["code"]
    token_endpoint_auth_method: str = PUBLIC
    client_secret: None = None
    client_secret_expires_at: None = None


class Documents:
    """The clients with documents, by their URL. `private`: documents may lie on this machine or network."""

    def __init__(
        self, clients: Clients, *, private: bool, enabled: bool = True, fetch: Fetch | None = None
    ) -> None:
        self.enabled = enabled
        self._clients, self._private = clients, private
        self._fetch = fetch or self._over_http
        self._failed: dict[str, tuple[int, str]] = {}  # URL -> until when not to try again, and why

    def is_document(self, client_id: str) -> bool:
        """Whether a client id is the URL of a document: https, with a path, and nothing that hides where it
        leads (section 3). None is where documents are switched off."""
        if not self.enabled:
            return False
        try:
            parts = urlsplit(client_id)
            _ = parts.port
        except ValueError:
            return False
        secure = parts.scheme == "https" or (self._private and parts.scheme == "http")
        plain = client_id.isascii() and client_id.isprintable() and not set(client_id) & set(" \\#@")
        dots = {".", ".."} & set(parts.path.split("/"))
        return bool(secure and plain and parts.hostname and parts.path.strip("/") and not dots)

    async def learn(self, client_id: str) -> None:
        """Know the client as its document has it now, if its id is a document's. Raises `BadDocument`."""
        if not self.is_document(client_id):
            return
        now = unix_now()
        known = await asyncio.to_thread(self._clients.get, client_id)
        if known and (known.fresh_until or 0) > now:
            return
        until, why = self._failed.get(client_id, (0, ""))
        try:
            if until > now:
                raise CannotFetch(why)
            client = _client(client_id, await self._fetch(client_id), now)
        except CannotFetch as error:
            self._note_failure(client_id, str(error), now)
            if known and (known.fresh_until or 0) > now - KEPT_AFTER_FAILURE:
                return
            raise BadDocument(
                f"Lockgate reads what the application says about itself at {client_id[:200]}, but {error}. "
                "An administrator may have to let Lockgate reach it, or to switch "
                "LOCKGATE_AUTH_CLIENT_DOCUMENTS off."
            ) from error
        await asyncio.to_thread(self._clients.put, client)

    def _note_failure(self, client_id: str, why: str, now: int) -> None:
        if len(self._failed) >= 1000:
            self._failed.clear()
        self._failed[client_id] = (now + FRESH.start, why)

    async def _over_http(self, url: str) -> Fetched:
        return await fetch(url, LIMIT, private=self._private)


def _client(client_id: str, fetched: Fetched, now: int) -> Client:
    """The client that a document describes. Raises `CannotFetch` with what is wrong with it."""
    try:
        document = Document.model_validate_json(fetched.body)
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise CannotFetch(f"in it {where} is wrong: {first['msg']}") from error
    if document.client_id != client_id:
        raise CannotFetch("its client_id is not the URL at which it lies")
    if document.token_endpoint_auth_method != PUBLIC:
        raise CannotFetch("it wants to authenticate by a key; here public clients with PKCE are supported")
    if "code" not in document.response_types or "authorization_code" not in document.grant_types:
        raise CannotFetch("it does not use the authorization code grant")
    for uri in document.redirect_uris:
        if wrong := problem(uri):
            raise CannotFetch(f"its redirect URI {uri[:100]} cannot be used: {wrong}")
    host = urlsplit(client_id).hostname or ""
    return Client(
        id=client_id,
        name="".join(c for c in document.client_name if c.isprintable()).strip() or host,
        redirect_uris=tuple(document.redirect_uris),
        grant_types=tuple(kind for kind in GRANT_TYPES if kind in document.grant_types),
        auth_method=PUBLIC,
        secret_hash="",
        created_at=now,
        fresh_until=now + _lifetime(fetched.headers.get("cache-control", "")),
    )


def _lifetime(cache_control: str) -> int:
    """Seconds for which a document may be used, by its Cache-Control (RFC 9111) within our own bounds."""
    found = _MAX_AGE.search(cache_control.lower())
    forbidden = "no-store" in cache_control or "no-cache" in cache_control
    asked = int(found[1]) if found and not forbidden else 0
    return max(FRESH.start, min(asked, FRESH.stop))

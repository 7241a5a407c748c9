"""Service credentials, opened in memory: asked for once, dropped when the log names a new version."""

import asyncio
import re
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import structlog

from libs.common.bus import Bus, Refused
from libs.common.control.entries import destination_of
from libs.common.control.tables import Tables
from libs.common.errors import LockgateError, Unavailable
from libs.common.requests import (
    OPEN_CREDENTIAL,
    REFRESH_CREDENTIAL,
    Injection,
    OpenCredential,
    RefreshCredential,
    RefreshedCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import NotForUs, Opener
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.redaction import Redactor

log = structlog.get_logger(__name__)

# Seconds. The credentials service may have to renew a token at its provider first.
PATIENCE = 20.0

ATTENTION = "its credential is no longer good"
# Answers to `credentials.refresh` after which nobody needs to ask again.
_NOTHING_NEWER = {"not-renewable", "no-credential"}

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class Opened(NamedTuple):
    """A credential as a call needs it: what to add, and what to take out of the answer. Made once.

    `headers` and `query` are for requests, `environment` is for processes; `version` is that of the log, and
    `key` the one by which it is asked for. It is good until `expires_at` (Unix seconds; 0 for ever), and for
    `origin` only (libs.common.control.entries.destination_of).
    """

    headers: list[Header]
    redactor: Redactor | None
    environment: Mapping[str, str] = MappingProxyType({})
    version: int = 0
    query: Mapping[str, str] = MappingProxyType({})
    key: str = ""
    expires_at: float = 0.0
    origin: str = ""


NONE = Opened([], None)


class NeedsAttention(Unavailable):
    """It is there and no longer good, which the log may not say yet."""


class Wallet:
    """The credentials that this replica has opened, by key (`<slug>.<user>`)."""

    def __init__(self, bus: Bus, tables: Tables) -> None:
        self._bus, self._tables = bus, tables
        self._opened: dict[str, tuple[int, Opened]] = {}
        self._renewing: dict[tuple[str, int], asyncio.Future[Opened | None]] = {}
        self._change = asyncio.Event()

    def held(self, key: str) -> Opened | None:
        """The credential for `key`; `NONE` for the empty key; None if it has to be asked for."""
        if not key:
            return NONE
        entry = self._tables.credentials.get(key)
        version, opened = self._opened.get(key, (-1, NONE))
        if entry is None or version != entry.version or 0 < opened.expires_at <= time.time():
            return None
        return opened

    async def open(self, key: str) -> Opened:
        """Ask the credentials service. Raises `NeedsAttention`, and `Unavailable` if it cannot be had now."""
        slug, _, user = key.partition(".")
        opener = Opener()
        server = self._tables.servers.get(slug)
        origin = destination_of(server) if server else ""
        query = OpenCredential(slug=slug, user=user, public_key=opener.public_key, origin=origin)
        try:
            sealed = await self._bus.request(OPEN_CREDENTIAL, query, SealedCredential, timeout=PATIENCE)
            secret = opener.open(sealed.box, credential_context(slug, user, sealed.version))
            injection = msgspec.json.decode(secret, type=Injection)
            headers = [_header(name, value) for name, value in injection.headers.items()]
        except (LockgateError, NotForUs, msgspec.DecodeError, _NoHeader) as error:
            log.warning("credential_not_opened", key=key, error=repr(error))
            if _needs_attention(error):
                raise NeedsAttention(ATTENTION) from error
            raise Unavailable("its credential cannot be had now") from error
        others = [*injection.environment.items(), *injection.query.items()]
        redactor = Redactor([*headers, *((name.encode(), value.encode()) for name, value in others)])
        opened = Opened(
            headers,
            redactor,
            environment=injection.environment,
            version=sealed.version,
            query=injection.query,
            key=key,
            expires_at=sealed.expires_at,
            origin=origin,
        )
        self._opened[key] = (sealed.version, opened)
        return opened

    async def renew(self, refused: Opened) -> Opened | None:
        """Another version of what the upstream `refused`, for the same origin; None if there is none, as with
        keys. However many calls were refused, it is asked for once. Raises `UpstreamFailed`."""
        server = self._tables.servers.get(refused.key.partition(".")[0])
        if server is None or server.auth != "oauth":
            return None
        flight = refused.key, refused.version
        renewing = self._renewing.get(flight)
        if renewing is None:
            renewing = self._renewing[flight] = asyncio.ensure_future(self._renew(*flight))
            renewing.add_done_callback(lambda done: self._renewed(flight, done))
        renewed = await asyncio.shield(renewing)
        return renewed if renewed and renewed.origin == refused.origin else None

    def _renewed(self, flight: tuple[str, int], done: "asyncio.Future[Opened | None]") -> None:
        del self._renewing[flight]
        if not done.cancelled():
            done.exception()  # those who waited have it; perhaps nobody does any more

    async def _renew(self, key: str, version: int) -> Opened | None:
        held = self.held(key)
        if held and held.version > version:  # by another call, meanwhile
            return held
        slug, _, user = key.partition(".")
        query = RefreshCredential(slug=slug, user=user, version=version)
        try:
            found = await self._bus.request(REFRESH_CREDENTIAL, query, RefreshedCredential, timeout=PATIENCE)
            return await self.open(key) if found.version > version else None
        except (LockgateError, msgspec.DecodeError) as error:
            log.warning("credential_not_renewed", key=key, error=repr(error))
            if isinstance(error, Refused) and error.reason in _NOTHING_NEWER:
                return None
            if isinstance(error, NeedsAttention) or _needs_attention(error):
                raise UpstreamFailed("credential_attention", ATTENTION) from error
            detail = "it does not accept its credential any longer, and a new one cannot be had now"
            raise UpstreamFailed("credential_unavailable", detail) from error

    def forget(self, key: str, _: bytes | None, __: int) -> None:
        """A follower's callback: what the log changed is not held any longer."""
        if key.startswith("credential."):
            self._opened.pop(key.removeprefix("credential."), None)
            self._change.set()
            self._change = asyncio.Event()

    async def change(self) -> None:
        """Returns when the log says something else of any credential."""
        await self._change.wait()


def _needs_attention(error: Exception) -> bool:
    return isinstance(error, Refused) and error.reason == "credential-attention"


class _NoHeader(Exception):
    """A credential cannot be a header. It is not named, because this is logged."""


def _header(name: str, value: str) -> Header:
    """A header to be added (RFC 9110, section 5.5). With a line break in it, it would be several, or end the
    request, and another one would follow that nobody decided on. Raises `_NoHeader`."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise _NoHeader
    return name.lower().encode("ascii"), value.encode("latin-1")

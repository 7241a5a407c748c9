"""Service credentials, opened in memory: asked for once, dropped when the log names a new version."""

import asyncio
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import structlog

from libs.common.bus import Bus
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
from services.gateway.connection import Header
from services.gateway.redaction import Redactor

log = structlog.get_logger(__name__)

# Seconds. The credentials service may have to renew a token at its provider first.
PATIENCE = 20.0

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class Opened(NamedTuple):
    """A credential as a call needs it: what to add, and what to take out of the answer. Made once.

    `headers` and `query` are for requests, `environment` is for processes; `version` is that of the log.
    """

    headers: list[Header]
    redactor: Redactor | None
    environment: Mapping[str, str] = MappingProxyType({})
    version: int = 0
    query: Mapping[str, str] = MappingProxyType({})


NONE = Opened([], None)


class Wallet:
    """The credentials that this replica has opened, by key (`<slug>.<user>`)."""

    def __init__(self, bus: Bus, tables: Tables) -> None:
        self._bus, self._tables = bus, tables
        self._opened: dict[str, tuple[int, Opened]] = {}
        self._renewing: dict[str, asyncio.Future[Opened | None]] = {}

    def held(self, key: str) -> Opened | None:
        """The credential for `key`; `NONE` for the empty key; None if it has to be asked for."""
        if not key:
            return NONE
        entry = self._tables.credentials.get(key)
        version, opened = self._opened.get(key, (-1, NONE))
        return opened if entry and version == entry.version else None

    async def open(self, key: str) -> Opened:
        """Ask the credentials service. Raises `Unavailable` when it cannot be had now."""
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
            raise Unavailable("its credential cannot be had now") from error
        others = [*injection.environment.items(), *injection.query.items()]
        redactor = Redactor([*headers, *((name.encode(), value.encode()) for name, value in others)])
        opened = Opened(headers, redactor, injection.environment, sealed.version, injection.query)
        self._opened[key] = (sealed.version, opened)
        return opened

    async def renew(self, key: str, refused: Opened) -> Opened | None:
        """Another credential in the place of one that the upstream `refused`; None if there is none. However
        many calls were refused, it is asked for once."""
        renewing = self._renewing.get(key)
        if renewing is None:
            renewing = self._renewing[key] = asyncio.ensure_future(self._renew(key, refused.version))
            renewing.add_done_callback(lambda _: self._renewing.pop(key, None))
        return await asyncio.shield(renewing)

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
            return None

    def forget(self, key: str, _: bytes | None, __: int) -> None:
        """A follower's callback: what the log changed is not held any longer."""
        if key.startswith("credential."):
            self._opened.pop(key.removeprefix("credential."), None)


class _NoHeader(Exception):
    """A credential cannot be a header. It is not named, because this is logged."""


def _header(name: str, value: str) -> Header:
    """A header to be added (RFC 9110, section 5.5). With a line break in it, it would be several, or end the
    request, and another one would follow that nobody decided on. Raises `_NoHeader`."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise _NoHeader
    return name.lower().encode("ascii"), value.encode("latin-1")

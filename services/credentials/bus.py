"""Opens credentials for those who may ask on the bus, sealed so that only the asker can read them."""

import asyncio
import time
from typing import Protocol

import msgspec

from libs.common.bus import Bus
from libs.common.clock import iso, now
from libs.common.control.entries import Server
from libs.common.control.follower import Follower
from libs.common.errors import BadRequest, Unavailable
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AdminEvent
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from services.credentials.domain import (
    Account,
    CredentialUnreadable,
    NeedsAttention,
    NoCredential,
    Owner,
    WrongOrigin,
    decode_values,
    place,
)
from services.credentials.layout import layout_of
from services.credentials.oauth.domain import Connection
from services.credentials.store import CredentialStore

# Seconds to wait until we know of a server's address what the asker knows already. Short, since other askers
# wait meanwhile.
ADDRESS_ARRIVES = 1.0
# Seconds before its end after which a token is not given out any more. Short: each renewal makes gateways ask
# again, and some providers give tokens for seconds only.
EXPIRES_SOON = 0.5
AT_ONCE = 1000  # some wait for their provider; those of other servers must not wait with them


class Renewer(Protocol):
    """Renews what expires (services.credentials.oauth.refreshing)."""

    async def renew(self, account: Account, asker: str) -> None:
        """Return once what is stored for `account` is newer, or cannot be renewed."""
        ...


class CredentialServer:
    """Answers `credentials.open`. Each answer is an `admin_events` record."""

    def __init__(
        self,
        bus: Bus,
        follower: Follower,
        store: CredentialStore,
        journal: Journal,
        renewer: Renewer | None = None,
    ) -> None:
        self._bus, self._follower, self._store, self._journal = bus, follower, store, journal
        self._renewer = renewer

    async def start(self) -> None:
        await self._bus.serve(OPEN_CREDENTIAL, OpenCredential, self.open, at_once=AT_ONCE)

    async def stop(self) -> None:
        """The bus ends the subscription when it stops."""

    async def open(self, query: OpenCredential) -> SealedCredential:
        """Raises `NoCredential`, `NeedsAttention`, `WrongOrigin`, `CredentialUnreadable`, `Unavailable`, and
        `BadRequest` for a public key that is none."""
        owner = Owner(query.slug, query.user)
        account = await asyncio.to_thread(self._store.accounts.chosen, owner)
        server = await self._server(account, query.origin)
        if account.kind != server.auth:
            raise NoCredential(f"What is stored for {owner.slug} is of another kind than it wants now.")
        if self._renewer and account.state == "connected" and _ends(account):
            await self._renewer.renew(account, query.asker)
        account, injection = await asyncio.to_thread(self._render, owner)
        self._check_state(account, query.origin)
        context = credential_context(owner.slug, owner.user, account.version)
        try:
            box = seal(msgspec.json.encode(injection), query.public_key, context)
        except ValueError:
            raise BadRequest("the public key is not 32 bytes in Base64") from None
        self._record(account, query.asker)
        return SealedCredential(version=account.version, box=box, expires_at=account.expires_at)

    def _render(self, owner: Owner) -> tuple[Account, Injection]:
        """What the chosen account adds. Blocks."""
        account, secret = self._store.accounts.open_chosen(owner)
        found = self._store.providers.open(owner.slug)
        values = decode_values(secret) if account.kind == "api_key" else Connection.decode(secret).values
        try:
            return account, layout_of(found[0] if found else None, account.kind).render(values)
        except BadRequest as error:
            raise CredentialUnreadable(f"It does not fit any longer: {error.detail}") from None

    async def _server(self, account: Account, asked: str) -> Server:
        """The server that `account` is for. Raises `WrongOrigin` unless it is for where that is, and for
        `asked` if given."""
        entry, servers = account.entry(), self._follower.tables.servers

        def is_for_its_server() -> bool:
            server = servers.get(entry.slug)
            return server is not None and entry.is_for(server)

        if asked not in {"", account.origin}:
            raise _refusal(account)
        try:
            await self._follower.wait_for(is_for_its_server, ADDRESS_ARRIVES if asked else 0)
        except Unavailable:
            raise _refusal(account) from None
        return servers[entry.slug]

    def _check_state(self, account: Account, asked: str) -> None:
        """Again, now that it is open: somebody may have chosen another one, or the server may have moved."""
        server = self._follower.tables.servers.get(account.owner.slug)
        if server is None or not account.entry().is_for(server) or asked not in {"", account.origin}:
            raise _refusal(account)
        if account.state != "connected":
            raise NeedsAttention(account.reason)

    def _record(self, account: Account, asker: str) -> None:
        record = AdminEvent(
            id=new_id(),
            time=iso(now()),
            event="credential_read",
            actor=asker,
            subject=account.owner.key,
            detail=f"account {account.id} version {account.version}",
        )
        self._journal.append(record)


def _ends(account: Account) -> bool:
    return 0 < account.expires_at <= time.time() + EXPIRES_SOON


def _refusal(account: Account) -> WrongOrigin:
    return WrongOrigin(
        f"The credential for {account.owner.slug} was stored for {place(account.origin)}, and the server is "
        "not there now. Enter it again on the page Credentials."
    )

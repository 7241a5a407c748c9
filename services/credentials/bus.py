"""Opens credentials for those who may ask on the bus, sealed so that only the asker can read them."""

import asyncio

import msgspec

from libs.common.bus import Bus
from libs.common.clock import iso, now
from libs.common.control.follower import Follower
from libs.common.errors import BadRequest, Unavailable
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AdminEvent
from libs.common.requests import (
    OPEN_CREDENTIAL,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from services.credentials.domain import Credential, Owner, WrongOrigin, place
from services.credentials.store import CredentialStore

# Seconds to wait until we know of a server's address what the asker knows already. Short, since other askers
# wait meanwhile.
ADDRESS_ARRIVES = 1.0


class CredentialServer:
    """Answers `credentials.open`. Each answer is an `admin_events` record."""

    def __init__(self, bus: Bus, follower: Follower, store: CredentialStore, journal: Journal) -> None:
        self._bus, self._follower, self._store, self._journal = bus, follower, store, journal

    async def start(self) -> None:
        await self._bus.serve(OPEN_CREDENTIAL, OpenCredential, self.open)

    async def stop(self) -> None:
        """The bus ends the subscription when it stops."""

    async def open(self, query: OpenCredential) -> SealedCredential:
        """Raises `NoCredential`, `WrongOrigin`, `CredentialUnreadable`, and `BadRequest` for a public key
        that is none."""
        owner = Owner(query.slug, query.user)
        credential, secret = await asyncio.to_thread(self._store.open, owner)
        await self._check_origin(credential, query.origin)
        injection = msgspec.json.encode(secret.placement.render(secret.key))
        context = credential_context(owner.slug, owner.user, credential.version)
        try:
            box = seal(injection, query.public_key, context)
        except ValueError:
            raise BadRequest("the public key is not 32 bytes in Base64") from None
        self._record(owner, query.asker, credential.version)
        return SealedCredential(version=credential.version, box=box)

    async def _check_origin(self, credential: Credential, asked: str) -> None:
        """Raise `WrongOrigin` unless the credential is for where its server is, and for `asked` if given."""
        entry, tables = credential.entry(), self._follower.tables

        def is_for_its_server() -> bool:
            server = tables.servers.get(entry.slug)
            return server is not None and entry.is_for(server)

        refusal = WrongOrigin(
            f"The credential for {entry.slug} was stored for {place(entry.origin)}, and the server is not "
            "there now. Enter it again on the page Credentials."
        )
        if asked not in {"", entry.origin}:
            raise refusal
        try:
            await self._follower.wait_for(is_for_its_server, ADDRESS_ARRIVES if asked else 0)
        except Unavailable:
            raise refusal from None

    def _record(self, owner: Owner, asker: str, version: int) -> None:
        record = AdminEvent(
            id=new_id(),
            time=iso(now()),
            event="credential_read",
            actor=asker,
            subject=owner.key,
            detail=f"version {version}",
        )
        self._journal.append(record)

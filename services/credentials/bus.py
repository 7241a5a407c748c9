"""Opens credentials for those who may ask on the bus, sealed so that only the asker can read them."""

import asyncio

import msgspec

from libs.common.bus import Bus
from libs.common.clock import iso, now
from libs.common.errors import BadRequest
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
from services.credentials.domain import Owner
from services.credentials.store import CredentialStore


class CredentialServer:
    """Answers `credentials.open`. Each answer is an `admin_events` record."""

    def __init__(self, bus: Bus, store: CredentialStore, journal: Journal) -> None:
        self._bus, self._store, self._journal = bus, store, journal

    async def start(self) -> None:
        await self._bus.serve(OPEN_CREDENTIAL, OpenCredential, self.open)

    async def stop(self) -> None:
        """The bus ends the subscription when it stops."""

    async def open(self, query: OpenCredential) -> SealedCredential:
        """Raises `NoCredential`, `CredentialUnreadable`, and `BadRequest` for a public key that is none."""
        owner = Owner(query.slug, query.user)
        credential, secret = await asyncio.to_thread(self._store.open, owner)
        injection = msgspec.json.encode(Injection(headers=secret.placement.render(secret.key)))
        context = credential_context(owner.slug, owner.user, credential.version)
        try:
            box = seal(injection, query.public_key, context)
        except ValueError:
            raise BadRequest("the public key is not 32 bytes in Base64") from None
        self._record(owner, credential.version)
        return SealedCredential(version=credential.version, box=box)

    def _record(self, owner: Owner, version: int) -> None:
        record = AdminEvent(
            id=new_id(),
            time=iso(now()),
            event="credential_read",
            actor="gateway",
            subject=owner.key,
            detail=f"version {version}",
        )
        self._journal.append(record)

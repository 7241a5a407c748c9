"""Clients that administrators make for the organization's own services.

They are confidential, have rights instead of grants, and are known to this service alone: nothing of them
stands in the control log.
"""

import asyncio
from dataclasses import dataclass

import msgspec

from libs.common.clock import iso, now
from libs.common.control.entries import User as UserEntry
from libs.common.ids import new_id, new_secret
from libs.common.journal import Journal
from libs.common.records import AdminEvent
from services.auth.domain import Client, Right
from services.auth.keys import hash_of
from services.auth.store import Store
from services.auth.store.database import unix_now


@dataclass(frozen=True, slots=True)
class Services:
    store: Store
    journal: Journal

    async def add(self, admin: UserEntry, name: str, rights: list[Right]) -> tuple[Client, str]:
        """The new client, and its secret."""
        secret = new_secret()
        client = Client(
            id=new_id(),
            name=name.strip(),
            redirect_uris=(),
            grant_types=(),
            auth_method="client_secret_basic",
            secret_hash=hash_of(secret),
            created_at=unix_now(),
            rights=" ".join(sorted(set(rights))),
        )
        await asyncio.to_thread(self.store.clients.put, client)
        self._record("client_created", admin, client, after=_public(client))
        return client, secret

    async def delete(self, admin: UserEntry, client_id: str) -> None:
        """Raises `UnknownClient`."""
        client = await asyncio.to_thread(self.store.clients.delete_service, client_id)
        self._record("client_deleted", admin, client, before=_public(client))

    def _record(
        self, event: str, admin: UserEntry, client: Client, *, before: str = "", after: str = ""
    ) -> None:
        self.journal.append(
            AdminEvent(
                id=new_id(),
                time=iso(now()),
                event=event,
                actor=admin.id,
                email=admin.email,
                subject=f"client.{client.id}",
                before=before,
                after=after,
            )
        )


def _public(client: Client) -> str:
    return msgspec.json.encode({"name": client.name, "rights": client.rights.split()}).decode()

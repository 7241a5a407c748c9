"""Clients of the organization's own services, made by administrators."""

import asyncio

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from libs.common.web.session import Administrator
from services.auth.api.paging import After, Limit, following, time_of
from services.auth.domain import Client, Right
from services.auth.parts import AuthParts

router = APIRouter()


class NewClient(BaseModel):
    name: str = Field(min_length=1, max_length=200)
    rights: list[Right] = Field(
        min_length=1, description="`introspect`: ask what a token is worth (RFC 7662)."
    )


class ClientOut(BaseModel):
    id: str
    name: str
    rights: list[str]
    created_at: str


class CreatedClient(ClientOut):
    secret: str = Field(description="It is shown this once.")


class ClientPage(BaseModel):
    items: list[ClientOut]
    next: str | None


@router.get("/clients")
async def list_clients(
    admin: Administrator, parts: AuthParts, after: After = "", limit: Limit = 100
) -> ClientPage:
    clients = await asyncio.to_thread(parts.store.clients.services, after, limit)
    items = [ClientOut(**_client(client)) for client in clients]
    return ClientPage(items=items, next=following(items, limit))


@router.post("/clients")
async def add_client(
    admin: Administrator, parts: AuthParts, new: NewClient, response: Response
) -> CreatedClient:
    """Make a client with a secret for a service. It gets no tokens and never expires."""
    client, secret = await parts.services.add(admin, new.name, new.rights)
    response.headers["Cache-Control"] = "no-store"
    return CreatedClient(**_client(client), secret=secret)


@router.delete("/clients/{client_id}", status_code=204)
async def delete_client(admin: Administrator, parts: AuthParts, client_id: str) -> None:
    """From the answer on, the client is refused by every replica of this service. No gateway knows of it."""
    await parts.services.delete(admin, client_id)


def _client(client: Client) -> dict[str, object]:
    return {
        "id": client.id,
        "name": client.name,
        "rights": client.rights.split(),
        "created_at": time_of(client.created_at),
    }

"""JSON under `/api/credentials/mine`: the signed-in person's own credentials."""

from asyncio import to_thread
from functools import partial

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, SecretStr
from starlette.responses import JSONResponse, Response

from libs.common.control.entries import ORGANIZATION
from libs.common.web.session import Member
from services.credentials.dependencies import Work
from services.credentials.domain import Owner
from services.credentials.layout import layout_of
from services.credentials.standing import standings, usable_servers
from services.credentials.storing import require_account, require_usable, store_values
from services.credentials.views import AccountChanged, Deleted, ServerList, ServerView, answers

router = APIRouter(prefix="/api/credentials/mine", tags=["credentials"])


class MyCredentialBody(BaseModel):
    """What to enter, by the names of the server's fields. One of another `label` is another account; the one
    stored last is used."""

    model_config = ConfigDict(extra="forbid")

    values: dict[str, SecretStr]
    label: str = ""


@router.get("")
async def list_mine(user: Member, work: Work) -> ServerList:
    """Every server that needs a credential and that the person may use."""
    servers = usable_servers(work.follower.tables, user)
    own = await to_thread(work.store.accounts.of_user, user.id)
    organization = await to_thread(work.store.accounts.of_user, ORGANIZATION)
    providers = await to_thread(work.store.providers.all)
    base = f"{work.settings.public_url}/credentials/servers"
    items = [
        ServerView.of(
            standing,
            layout_of(providers.get(standing.server.slug), "api_key"),
            f"{base}/{standing.server.slug}",
        )
        for standing in standings(servers, own, organization)
    ]
    return ServerList(items=items)


@router.put("/servers/{slug}", **answers(AccountChanged))
async def put_mine(user: Member, slug: str, body: MyCredentialBody, work: Work) -> Response:
    server = await require_usable(work, user, slug)
    values = {name: value.get_secret_value() for name, value in body.values.items()}
    done = await store_values(work, user, Owner(slug, user.id), server, values=values, label=body.label)
    assert done.after
    view = AccountChanged.of(done.after, receipt=done.receipt)
    return JSONResponse(view.model_dump(mode="json"), done.receipt.status)


@router.delete("/servers/{slug}", **answers(Deleted))
async def delete_mine(user: Member, slug: str, work: Work) -> Response:
    """All of the person's accounts for the server."""
    owner = Owner(slug, user.id)
    write = partial(work.store.accounts.remove_all, owner)
    receipt = await work.changes.make_all(user, "credential_deleted", owner, write)
    return JSONResponse(Deleted(receipt=receipt).model_dump(mode="json"), receipt.status)


@router.delete("/accounts/{account}", **answers(Deleted))
async def delete_account(user: Member, account: str, work: Work) -> Response:
    found = await require_account(work, account, user.id)
    write = partial(work.store.accounts.remove, found.id)
    done = await work.changes.make(user, "credential_deleted", write)
    return JSONResponse(Deleted(receipt=done.receipt).model_dump(mode="json"), done.receipt.status)


@router.put("/accounts/{account}/chosen", **answers(AccountChanged))
async def choose_account(user: Member, account: str, work: Work) -> Response:
    """Use this one of several accounts for a server."""
    found = await require_account(work, account, user.id)
    done = await work.changes.make(user, "credential_chosen", partial(work.store.accounts.choose, found.id))
    assert done.after
    view = AccountChanged.of(done.after, receipt=done.receipt)
    return JSONResponse(view.model_dump(mode="json"), done.receipt.status)

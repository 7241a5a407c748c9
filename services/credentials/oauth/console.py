"""The way to a provider and back."""

from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from libs.common.control.entries import ORGANIZATION, Server, User
from libs.common.errors import Conflict, Forbidden
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.session import Member
from services.credentials.dependencies import Parts, Work
from services.credentials.domain import NoCredential, Owner
from services.credentials.oauth.connecting import CALLBACK, Connected
from services.credentials.oauth.parts import Connect
from services.credentials.storing import require_account, require_server, require_usable

router = APIRouter(include_in_schema=False)
pages = Pages(Path(__file__).parent.parent / "pages")


class ConnectForm(BaseModel):
    """`for` is `organization` for the account that everybody uses who has none. `account` is the one to
    connect again, if it is not to be another."""

    whose: str = Field("", alias="for")
    account: str = ""


@router.post("/credentials/servers/{slug}/connect")
async def connect_server(
    request: Request,
    user: Member,
    *,
    slug: str,
    work: Work,
    connect: Connect,
    form: Annotated[ConnectForm, Form()],
) -> Response:
    """Send the person to the provider."""
    if form.whose == ORGANIZATION:
        _require_administrator(user)
        server, owner = await require_server(work, slug), Owner(slug, ORGANIZATION)
    else:
        server, owner = await require_usable(work, user, slug), Owner(slug, user.id)
    if form.account and (await require_account(work, form.account, owner.user)).owner != owner:
        raise NoCredential("That account is for another server.")
    return await _leave(request, connect, server, owner, form.account)


@router.get(CALLBACK)
async def come_back(request: Request, user: Member, work: Work, connect: Connect) -> Response:
    """Where a provider sends the browser back to (RFC 6749, section 4.1.2)."""
    answer = dict(request.query_params)
    servers = work.follower.tables.servers
    connected = await connect.complete(answer, servers, user.id, _session(request))
    if connected.owner.user == ORGANIZATION:
        _require_administrator(user)
    return await _store(work, user, connected)


async def _store(work: Parts, user: User, connected: Connected) -> Response:
    owner = connected.owner
    write = partial(
        work.store.accounts.put, owner, connected.draft, user.email, account_id=connected.account_id
    )
    done = await work.changes.make(user, "credential_connected", write)
    who = f" as {connected.draft.label}" if connected.draft.label else ""
    whose = "Everybody is" if owner.user == ORGANIZATION else "You are"
    notice = notices.after(f"{whose} connected to {owner.slug}{who}.", done.receipt)
    return notices.redirect(f"/credentials#{owner.slug}", notice, work.settings)


async def _leave(request: Request, connect: Connect, server: Server, owner: Owner, account: str) -> Response:
    """A page that leads on by itself, and says where to: a form must not lead to another origin (CSP)."""
    if server.auth != "oauth":
        raise Conflict(f"{server.slug} is not connected in a browser: enter what it wants under Credentials.")
    user: User = request.state.user
    to = await connect.begin(server, owner, user.id, session=_session(request), account_id=account)
    page = pages.render(request, "leaving.html", to=to, host=urlsplit(to.url).netloc, server=server)
    if not to.receiver:
        page.headers["Refresh"] = f"0; url={to.url}"
    return page


def _require_administrator(user: User) -> None:
    if user.role != "admin":
        raise Forbidden("Only an administrator connects an account for everybody.")


def _session(request: Request) -> str:
    """The login session of the browser: an answer that another one brings is not taken."""
    grant: str = request.state.claims.grant
    return grant

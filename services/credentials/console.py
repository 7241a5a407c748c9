"""The pages under /credentials: every server that needs a credential, and what the signed-in person, and
administrators for everybody, can do about each."""

from asyncio import to_thread
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from libs.common.control.entries import ORGANIZATION, Server, User
from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.notices import Notice
from libs.common.web.session import Administrator, Member
from services.credentials.dependencies import Parts, Work
from services.credentials.domain import Account, Owner
from services.credentials.forms import CredentialForm, LayoutForm
from services.credentials.layout import Layout
from services.credentials.standing import Standing, standings, usable_servers
from services.credentials.storing import (
    UnknownServer,
    layout_for,
    require_account,
    require_server,
    require_usable,
    reset_layout,
    set_layout,
    store_values,
)
from services.credentials.words import install_words

router = APIRouter(prefix="/credentials", include_in_schema=False)
pages = Pages(Path(__file__).parent / "pages")
install_words(pages)


@dataclass(frozen=True, slots=True)
class Entered:
    """What was typed into one of the forms of a page that comes back with an error."""

    error: LockgateError
    mine: CredentialForm | None = None
    organization: CredentialForm | None = None
    layout: LayoutForm | None = None


@router.get("")
async def list_servers(request: Request, user: Member, work: Work) -> Response:
    tables, admin = work.follower.tables, user.role == "admin"
    usable = usable_servers(tables, user)
    names = {server.slug for server in usable}
    servers = sorted(tables.servers.values(), key=lambda server: server.slug)
    others = [server for server in servers if admin and server.slug not in names]
    own = await to_thread(work.store.accounts.of_user, user.id)
    organization = await to_thread(work.store.accounts.of_user, ORGANIZATION)
    known = {server.slug for server in servers if server.auth != "none"}
    stored = [*own, *(organization if admin else ())]
    response = pages.render(
        request,
        "credentials.html",
        notice=notices.waiting(request),
        lines=standings(usable, own, organization),
        others=standings(others, (), organization),
        unused=[account for account in stored if account.owner.slug not in known],
    )
    return notices.shown(response, request)


@router.get("/servers/{slug}")
async def show_server(request: Request, user: Member, slug: str, work: Work) -> Response:
    return await _page(request, work, user, slug)


@router.post("/servers/{slug}/mine")
async def store_mine(request: Request, user: Member, slug: str, work: Work) -> Response:
    return await _store(request, work, user, Owner(slug, user.id))


@router.post("/servers/{slug}/organization")
async def store_for_organization(request: Request, admin: Administrator, slug: str, work: Work) -> Response:
    return await _store(request, work, admin, Owner(slug, ORGANIZATION))


async def _store(request: Request, work: Parts, user: User, owner: Owner) -> Response:
    """What `user` has entered for `owner`: themselves, or the organization, whose credentials serve more than
    those servers that the administrator may use."""
    form, slug, own = CredentialForm.of(await request.form()), owner.slug, owner.user != ORGANIZATION
    try:
        server = await (require_usable(work, user, slug) if own else require_server(work, slug))
        form.check_origin(server)
        done = await store_values(work, user, owner, server, values=form.values, label=form.label)
    except LockgateError as error:
        entered = Entered(error, mine=form) if own else Entered(error, organization=form)
        return await _page(request, work, user, slug, entered)
    whose = "Your" if own else "The organization’s"
    notice = notices.after(f"{whose} credential for {server.name} is stored.", done.receipt)
    return notices.redirect(f"/credentials/servers/{slug}", notice, work.settings)


@router.post("/servers/{slug}/fields")
async def store_fields(request: Request, admin: Administrator, slug: str, work: Work) -> Response:
    form = LayoutForm.of(await request.form())
    try:
        server = await require_server(work, slug)
        receipt = await (
            reset_layout(work, admin, server)
            if form.usual
            else set_layout(work, admin, server, form.layout())
        )
    except LockgateError as error:
        return await _page(request, work, admin, slug, Entered(error, layout=form))
    notice = (
        notices.after(f"Saved how credentials for {server.name} are sent.", receipt)
        if receipt
        else Notice("Nothing was changed: they are sent like that already.")
    )
    return notices.redirect(f"/credentials/servers/{slug}", notice, work.settings)


@router.post("/accounts/{account}/choose")
async def choose_account(user: Member, account: str, work: Work) -> Response:
    found = await _own(work, user, account)
    done = await work.changes.make(user, "credential_chosen", partial(work.store.accounts.choose, found.id))
    notice = notices.after(f"{found.label or 'That account'} is used from now on.", done.receipt)
    return notices.redirect(f"/credentials/servers/{found.owner.slug}", notice, work.settings)


@router.post("/accounts/{account}/delete")
async def delete_account(user: Member, account: str, work: Work) -> Response:
    found = await _own(work, user, account)
    write = partial(work.store.accounts.remove, found.id)
    done = await work.changes.make(user, "credential_deleted", write)
    notice = notices.after(f"The credential for {found.owner.slug} is deleted.", done.receipt)
    slug = found.owner.slug
    there = slug in work.follower.tables.servers
    return notices.redirect(
        f"/credentials/servers/{slug}" if there else "/credentials", notice, work.settings
    )


async def _own(work: Parts, user: User, account_id: str) -> Account:
    """An account that `user` may change: theirs, or for administrators the organization's. Raises
    `NoCredential`."""
    found = await require_account(work, account_id)
    if found.owner.user == ORGANIZATION and user.role == "admin":
        return found
    return await require_account(work, account_id, user.id)


async def _page(
    request: Request, work: Parts, user: User, slug: str, entered: Entered | None = None
) -> Response:
    server, usable = await _server(work, user, slug)
    own = await to_thread(work.store.accounts.of_user, user.id)
    organization = await to_thread(work.store.accounts.of_user, ORGANIZATION)
    layout, configured = await layout_for(work, server)
    shared = [account for account in organization if account.owner.slug == slug]
    error = entered.error if entered else None
    problem = Notice(f"Not stored: {error.title}. {error.detail}".rstrip(), "bad") if error else None
    response = pages.render(
        request,
        "server.html",
        status=error.status if error else 200,
        notice=problem or notices.waiting(request),
        standing=_standing(server, own, organization),
        usable=usable,
        shared=shared,
        layout=layout,
        configured=configured,
        ready=_is_ready(layout, server),
        mine_form=(entered and entered.mine) or CredentialForm.blank(server),
        organization_form=(entered and entered.organization) or CredentialForm.blank(server),
        layout_form=(entered and entered.layout) or LayoutForm.showing(layout, server),
        layout_entered=bool(entered and entered.layout),
    )
    return notices.shown(response, request)


def _standing(server: Server, own: list[Account], organization: list[Account]) -> Standing:
    found = standings([server], own, organization)
    if not found:
        raise UnknownServer(f"{server.name} needs no credential.")
    return found[0]


async def _server(work: Parts, user: User, slug: str) -> tuple[Server, bool]:
    """The server, and whether `user` may use it. Administrators see each. Raises `UnknownServer`."""
    if user.role != "admin":
        return await require_usable(work, user, slug), True
    server = await require_server(work, slug)
    return server, server in usable_servers(work.follower.tables, user)


def _is_ready(layout: Layout, server: Server) -> bool:
    """Whether it is known where a credential goes. There is no usual environment variable."""
    try:
        layout.check_fits(server)
    except LockgateError:
        return False
    return True

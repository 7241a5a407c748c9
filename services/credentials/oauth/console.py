"""The way to a provider and back, and the page where an administrator says what the upstream does not."""

from asyncio import to_thread
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel, Field, SecretStr
from starlette.responses import Response

from libs.common.control.entries import ORGANIZATION, Server, User
from libs.common.errors import BadRequest, Conflict, Forbidden, LockgateError
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.notices import Notice
from libs.common.web.session import Administrator, Member
from services.credentials.dependencies import Parts, Work
from services.credentials.domain import NoCredential, Owner
from services.credentials.layout import BEARER_TOKEN, Layout, Placement
from services.credentials.oauth.api import ProviderFields, ProviderView, reset_provider, set_provider
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
    url = await connect.begin(server, owner, user.id, session=_session(request), account_id=account)
    page = pages.render(request, "leaving.html", url=url, host=urlsplit(url).netloc, server=server)
    page.headers["Refresh"] = f"0; url={url}"
    return page


def _require_administrator(user: User) -> None:
    if user.role != "admin":
        raise Forbidden("Only an administrator connects an account for everybody.")


def _session(request: Request) -> str:
    """The login session of the browser: an answer that another one brings is not taken."""
    grant: str = request.state.claims.grant
    return grant


# -- settings -------------------------------------------------------------------------------------


class ProviderForm(ProviderFields):
    """What was typed. The secret is not shown again; an empty one keeps what is there."""

    header: str = "Authorization"
    template: str = "Bearer {access_token}"
    client_secret: SecretStr = SecretStr("")
    more_authorize: str = ""  # parameters, one name=value on each line
    more_token: str = ""
    send_resource: bool = False  # a box that is not ticked is not sent

    def complete(self, server: Server) -> tuple[ProviderFields, Layout]:
        """Raises `BadRequest`."""
        given = {name: _tidy(getattr(self, name)) for name in ProviderFields.model_fields}
        given["authorize_parameters"] = _parameters(self.more_authorize)
        given["token_parameters"] = _parameters(self.more_token)
        into = "environment" if server.transport == "stdio" else "header"
        placement = Placement(into, self.header.strip(), self.template.strip())  # type: ignore[arg-type]
        return ProviderFields.model_validate(given), Layout(BEARER_TOKEN.fields, (placement,))


@router.get("/credentials/servers/{slug}/oauth")
async def show_provider(
    request: Request, admin: Administrator, slug: str, work: Work, connect: Connect
) -> Response:
    return await _settings_page(request, work, connect, await require_server(work, slug))


@router.post("/credentials/servers/{slug}/oauth")
async def save_provider(
    request: Request,
    admin: Administrator,
    *,
    slug: str,
    work: Work,
    connect: Connect,
    form: Annotated[ProviderForm, Form()],
) -> Response:
    server = await require_server(work, slug)
    secret = form.client_secret.get_secret_value().strip() or None
    try:
        fields, layout = form.complete(server)
        receipt = await set_provider(work, admin, server, fields.settings(), layout, client_secret=secret)
    except LockgateError as error:
        return await _settings_page(request, work, connect, server, entered=form, error=error)
    notice = notices.after("The provider's settings are saved.", receipt)
    return notices.redirect(f"/credentials/servers/{slug}/oauth", notice, work.settings)


@router.post("/credentials/servers/{slug}/oauth/delete")
async def forget_provider(admin: Administrator, slug: str, work: Work) -> Response:
    receipt = await reset_provider(work, admin, await require_server(work, slug))
    notice = notices.after("The provider is found by asking the server again.", receipt)
    return notices.redirect(f"/credentials/servers/{slug}/oauth", notice, work.settings)


async def _settings_page(
    request: Request,
    work: Parts,
    connect: Connect,
    server: Server,
    *,
    entered: ProviderForm | None = None,
    error: LockgateError | None = None,
) -> Response:
    stored = await to_thread(work.store.providers.open, server.slug)
    view = ProviderView.of(stored, connect.redirect_uri)
    problem = Notice(f"Not saved: {error.title}. {error.detail}".rstrip(), "bad") if error else None
    response = pages.render(
        request,
        "provider.html",
        status=error.status if error else 200,
        notice=problem or notices.waiting(request),
        server=server,
        view=view,
        form=entered or _filled(view),
    )
    return notices.shown(response, request)


def _filled(view: ProviderView) -> ProviderForm:
    placement = view.placements[0]
    same = {name: getattr(view, name) for name in ProviderFields.model_fields}
    return ProviderForm(
        **same,
        header=placement.name,
        template=placement.template,
        more_authorize=_lines(view.authorize_parameters),
        more_token=_lines(view.token_parameters),
    )


def _tidy(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _lines(parameters: dict[str, str]) -> str:
    return "\n".join(f"{name}={value}" for name, value in parameters.items())


def _parameters(text: str) -> dict[str, str]:
    """One `name=value` on each line. Raises `BadRequest`."""
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        if not equals:
            raise BadRequest(f"{line[:80]!r} is not of the form name=value")
        found[name.strip()] = value.strip()
    return found

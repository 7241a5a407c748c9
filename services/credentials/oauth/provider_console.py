"""The page where an administrator says of a server's provider what the upstream does not say itself."""

from asyncio import to_thread
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import SecretStr
from starlette.responses import Response

from libs.common.control.entries import Server
from libs.common.errors import BadRequest, LockgateError
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.notices import Notice
from libs.common.web.session import Administrator
from services.credentials.dependencies import Parts, Work
from services.credentials.layout import BEARER_TOKEN, Layout, Placement
from services.credentials.oauth.api import ProviderFields, ProviderView
from services.credentials.oauth.configuring import reset_provider, set_provider
from services.credentials.oauth.parts import Connect
from services.credentials.storing import require_server

router = APIRouter(prefix="/credentials/servers/{slug}/oauth", include_in_schema=False)
pages = Pages(Path(__file__).parent.parent / "pages")


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


@router.get("")
async def show_provider(
    request: Request, admin: Administrator, slug: str, work: Work, connect: Connect
) -> Response:
    return await _settings_page(request, work, connect, await require_server(work, slug))


@router.post("")
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


@router.post("/delete")
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

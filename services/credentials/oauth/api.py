"""JSON under `/api/credentials/servers/{slug}/oauth`, for administrators: how people connect to it."""

from asyncio import to_thread
from typing import Self

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, SecretStr
from starlette.responses import JSONResponse, Response

from libs.common.control.entries import Server
from libs.common.control.owner import Receipt
from libs.common.web.session import Administrator
from services.credentials.dependencies import Parts, Work
from services.credentials.domain import Provider
from services.credentials.layout import BEARER_TOKEN, Layout, Placement, layout_of
from services.credentials.oauth.configuring import reset_provider, set_provider
from services.credentials.oauth.parts import Connect
from services.credentials.oauth.provider import (
    Method,
    OAuthSettings,
    ProviderSecrets,
    secrets_of,
    settings_of,
)
from services.credentials.storing import require_server
from services.credentials.views import answers

router = APIRouter(prefix="/api/credentials", tags=["credentials"])


class ProviderFields(BaseModel):
    """How people connect to a server by OAuth. Where the upstream says all of it itself, as MCP has it,
    nothing is needed. `issuer`: read the metadata of this authorization server instead; or enter both
    endpoints. Without a `client_id` Lockgate registers by itself. `placements` say where the token goes,
    `{access_token}` in a header's template."""

    issuer: str = ""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    revocation_endpoint: str = ""
    identity_endpoint: str = ""
    identity_field: str = ""
    client_id: str = ""
    auth_method: Method = ""
    scopes: str = ""
    resource: str = ""
    send_resource: bool = True
    assume_pkce: bool = False
    authorize_parameters: dict[str, str] = {}
    token_parameters: dict[str, str] = {}
    lifetime: int = 0

    def settings(self) -> OAuthSettings:
        return OAuthSettings(**{name: getattr(self, name) for name in ProviderFields.model_fields})


class ProviderBody(ProviderFields):
    """`client_secret` null keeps the one that is there."""

    model_config = ConfigDict(extra="forbid")

    client_secret: SecretStr | None = None
    placements: list[Placement] = list(BEARER_TOKEN.placements)


class ProviderView(ProviderFields):
    """`has_secret`: a client secret is stored. `registered` is the id of the client that Lockgate registered
    by itself, empty if it did not. `redirect_uri` is what to enter at the provider."""

    placements: list[Placement]
    has_secret: bool
    registered: str
    redirect_uri: str
    changed_at: str
    changed_by: str

    @classmethod
    def of(cls, stored: tuple[Provider, bytes] | None, redirect_uri: str, **more: object) -> Self:
        provider = stored[0] if stored and stored[0].kind == "oauth" else None
        secrets = secrets_of(stored[1]) if stored and provider else ProviderSecrets()
        return cls.model_validate(
            msgspec.structs.asdict(settings_of(provider))
            | {
                "placements": list(layout_of(provider, "oauth").placements),
                "has_secret": bool(secrets.client_secret),
                "registered": secrets.registered.client_id if secrets.registered else "",
                "redirect_uri": redirect_uri,
                "changed_at": provider.changed_at if provider else "",
                "changed_by": provider.changed_by if provider else "",
            }
            | more
        )


class ProviderChanged(ProviderView):
    receipt: Receipt


@router.get("/servers/{slug}/oauth")
async def get_provider(admin: Administrator, slug: str, work: Work, connect: Connect) -> ProviderView:
    server = await require_server(work, slug)
    stored = await to_thread(work.store.providers.open, server.slug)
    return ProviderView.of(stored, connect.redirect_uri)


@router.put("/servers/{slug}/oauth", **answers(ProviderChanged))
async def put_provider(
    admin: Administrator, slug: str, body: ProviderBody, work: Work, connect: Connect
) -> Response:
    server = await require_server(work, slug)
    secret = body.client_secret.get_secret_value() if body.client_secret is not None else None
    layout = Layout(BEARER_TOKEN.fields, tuple(body.placements))
    receipt = await set_provider(work, admin, server, body.settings(), layout, client_secret=secret)
    return await _changed(work, connect, server, receipt)


@router.delete("/servers/{slug}/oauth", **answers(ProviderChanged))
async def delete_provider(admin: Administrator, slug: str, work: Work, connect: Connect) -> Response:
    """Whoever is connected stays so."""
    server = await require_server(work, slug)
    receipt = await reset_provider(work, admin, server)
    return await _changed(work, connect, server, receipt)


async def _changed(work: Parts, connect: Connect, server: Server, receipt: Receipt) -> Response:
    stored = await to_thread(work.store.providers.open, server.slug)
    view = ProviderChanged.of(stored, connect.redirect_uri, receipt=receipt)
    return JSONResponse(view.model_dump(mode="json"), receipt.status)

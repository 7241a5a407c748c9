"""The official SDK's `OAuthClientProvider` against this service, with nothing but a server's URL."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientMetadata,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from libs.common.tokens import InvalidToken
from tests.token_storage import Tokens
from tests.unit.auth.house import ORIGIN, SERVER, Browser, House


def with_protected_server(house: House) -> Starlette:
    """The service, and beside it a resource that does what the gateway does about tokens."""

    async def server(request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            return JSONResponse({"client": house.claims(token).client_name})
        except InvalidToken:
            where = f"{ORIGIN}/.well-known/oauth-protected-resource/mcp/demo"
            return Response(
                status_code=401, headers={"WWW-Authenticate": f'Bearer resource_metadata="{where}"'}
            )

    async def resource_metadata(_: Request) -> Response:
        return JSONResponse(
            {"resource": SERVER, "authorization_servers": [ORIGIN], "scopes_supported": ["mcp"]}
        )

    return Starlette(
        routes=[
            Route("/mcp/demo", server),
            Route("/.well-known/oauth-protected-resource/mcp/demo", resource_metadata),
            Mount("/", house.app),
        ]
    )


async def test_it_discovers_registers_signs_in_calls_and_refreshes(house: House, browser: Browser) -> None:
    answers: list[dict[str, list[str]]] = []

    async def open_browser(url: str) -> None:
        page = await browser.get(url)
        assert "Official client" in page.text
        answer = await browser.post(url, {"decision": "allow"})
        answers.append(parse_qs(urlsplit(answer.headers["location"]).query))

    async def await_callback() -> AuthorizationCodeResult:
        (code,), (state,), (iss,) = (answers[-1][name] for name in ("code", "state", "iss"))
        return AuthorizationCodeResult(code=code, state=state, iss=iss)

    memory = Tokens()
    metadata: dict[str, Any] = {
        "client_name": "Official client",
        "redirect_uris": ["http://localhost:3030/callback"],
    }
    provider = OAuthClientProvider(
        SERVER, OAuthClientMetadata.model_validate(metadata), memory, open_browser, await_callback
    )
    transport = httpx2.ASGITransport(with_protected_server(house))
    async with httpx2.AsyncClient(transport=transport, auth=provider) as http:
        assert (await http.get(SERVER)).json() == {"client": "Official client"}
        assert memory.tokens is not None
        assert memory.tokens.scope == "mcp offline_access"
        first = memory.tokens.refresh_token
        provider.context.token_expiry_time = 1.0
        assert (await http.get(SERVER)).status_code == 200
        assert memory.tokens.refresh_token != first
    assert len(answers) == 1  # the person was asked once

"""An OAuth provider: `python -m tests.providers.oauth_provider PORT`.

Metadata (RFC 8414), registration (RFC 7591), authorization code with PKCE, refresh with rotation, revocation
(RFC 7009), introspection (RFC 7662), `iss` (RFC 9207), `resource` (RFC 8707). Whoever is sent to it is signed
in already and allows everything. `/control` is the test's own.
"""

import asyncio
import base64
import secrets
import sys
from dataclasses import asdict
from urllib.parse import unquote_plus, urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.providers.book import Book, Code, Knobs, Refusal


class Provider:
    def __init__(self, issuer: str) -> None:
        self.issuer, self.book = issuer, Book()
        self.released = asyncio.Event()
        self.holding, self.dropping = 0, False

    async def metadata(self, _: Request) -> Response:
        names = ["authorize", "token", "revoke", "introspect", "userinfo"]
        ends = {"authorize": "authorization", "revoke": "revocation", "introspect": "introspection"}
        known = {f"{ends.get(name, name)}_endpoint": f"{self.issuer}/{name}" for name in names}
        knobs = self.book.knobs
        return JSONResponse({
            "issuer": self.issuer,
            **known,
            **({"registration_endpoint": f"{self.issuer}/register"} if knobs.registration else {}),
            **({"code_challenge_methods_supported": ["S256"]} if knobs.pkce_advertised else {}),
            "scopes_supported": ["tools", "offline_access"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "authorization_response_iss_parameter_supported": knobs.say_iss,
        })  # fmt: skip

    async def register(self, request: Request) -> Response:
        self.book.count("registrations")
        if not self.book.knobs.registration:
            return JSONResponse({"error": "access_denied"}, 403)
        return JSONResponse(self.book.register(await request.json()), 201)

    async def authorize(self, request: Request) -> Response:
        asked, knobs = request.query_params, self.book.knobs
        client = self.book.clients.get(asked.get("client_id", ""))
        if client is None or asked.get("redirect_uri") not in client["redirect_uris"]:
            return Response("unknown client or redirect URI", 400)
        answer = {"state": asked.get("state", "")}
        if knobs.say_iss:
            answer["iss"] = knobs.iss or self.issuer
        if knobs.deny or asked.get("code_challenge_method") != "S256" or asked["response_type"] != "code":
            answer["error"] = "access_denied" if knobs.deny else "invalid_request"
        elif knobs.require_resource and not asked.get("resource"):
            answer["error"] = "invalid_target"
        else:
            answer["code"] = f"code-{secrets.token_urlsafe(16)}"
            self.book.codes[answer["code"]] = Code(
                client_id=asked["client_id"],
                redirect_uri=asked["redirect_uri"],
                challenge=asked["code_challenge"],
                resource=asked.get("resource", ""),
                scope=asked.get("scope", ""),
                account=knobs.account,
            )
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 302)

    async def token(self, request: Request) -> Response:
        knobs = self.book.knobs
        form = await self._authenticated(request)
        await asyncio.sleep(knobs.slow)
        if knobs.status:
            self.book.count("failures")
            return JSONResponse({"error": "server_error"}, knobs.status)
        if form["grant_type"] == "authorization_code":
            return JSONResponse(self.book.redeem(form))
        if form["grant_type"] != "refresh_token":
            raise Refusal("unsupported_grant_type")
        self.book.count("refresh_requests")
        await self._hold("before")
        answer = self.book.renew(form)
        await self._hold("after")
        return JSONResponse(answer)

    async def _hold(self, when: str) -> None:
        if self.book.knobs.hold == when:
            self.holding += 1
            await self.released.wait()
            self.holding -= 1
            if self.dropping and when == "before":
                raise Refusal("server_error", 500)

    async def _authenticated(self, request: Request) -> dict[str, str]:
        """The form, with the client's id in it. Raises `Refusal`."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        secret = form.get("client_secret", "")
        if scheme == "Basic":
            pair = base64.b64decode(given).decode().split(":", 1)
            form["client_id"], secret = map(unquote_plus, pair)
        self.book.authenticate(form.get("client_id", ""), secret)
        return form

    async def revoke(self, request: Request) -> Response:
        self.book.revoke((await self._authenticated(request))["token"])
        return Response(status_code=200)

    async def introspect(self, request: Request) -> Response:
        form = await request.form()
        return JSONResponse(self.book.introspect(str(form.get("token", ""))))

    async def userinfo(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        told = self.book.introspect(token)
        if not told["active"]:
            return Response(status_code=401)
        return JSONResponse({"sub": told["sub"], "email": told["sub"]})

    async def control(self, request: Request) -> Response:
        """What a test does to the provider: change knobs, or one of the actions."""
        asked = await request.json()
        action = asked.pop("do", "")
        if action in {"release", "drop"}:
            self.dropping = action == "drop"
            self.released.set()
            self.released = asyncio.Event()
        elif action == "reset":
            self.released.set()
            self.released, self.book = asyncio.Event(), Book()
        elif action == "client":
            self.book.clients[asked["client_id"]] = asked
        elif action == "forget_clients":
            self.book.clients.clear()
        elif action:
            {"revoke": self.book.revoke_everything, "expire": self.book.expire_everything}[action]()
        else:
            self.book.knobs = Knobs(**asdict(self.book.knobs) | asked)
        return await self.state(request)

    async def state(self, _: Request) -> Response:
        return JSONResponse({
            "counts": self.book.counts,
            "holding": self.holding,
            "honoured": self.book.honoured(),
            "clients": list(self.book.clients.values()),
            "secrets": [*self.book.access, *self.book.refresh, *self.book.verifiers],
        })  # fmt: skip


async def refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse({"error": error.code, "error_description": f"no: {error.code}"}, error.status)


def create_app(issuer: str) -> Starlette:
    provider = Provider(issuer)
    posts = ["register", "token", "revoke", "introspect"]
    routes = [Route(f"/{name}", getattr(provider, name), methods=["POST"]) for name in posts]
    routes += [Route(f"/{name}", getattr(provider, name)) for name in ("authorize", "userinfo")]
    routes += [
        Route("/.well-known/oauth-authorization-server", provider.metadata),
        Route("/control", provider.state, methods=["GET"]),
        Route("/control", provider.control, methods=["PUT"]),
    ]
    return Starlette(routes=routes, exception_handlers={Refusal: refuse})


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(create_app(f"http://127.0.0.1:{port}"), host="127.0.0.1", port=port, log_level="critical")

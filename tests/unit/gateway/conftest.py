"""A gateway replica over a real NATS server, and a scripted upstream that keeps what it was sent."""

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from libs.common.bus import Bus
from libs.common.control.entries import (
    AnyEntry,
    CredentialVersion,
    Group,
    Keys,
    Org,
    Server,
    ServerAccess,
    User,
    key_of,
    origin_of,
)
from libs.common.control.follower import SUBJECT
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from services.gateway.app import Gateway, create_app
from services.gateway.settings import GatewaySettings
from tests.asgi import PLAIN, serve
from tests.conftest import Nats, eventually, free_port

PUBLIC_URL = "https://gate.example"
KEY = ECKey.generate_key("P-256", auto_kid=True)

Scope = dict[str, Any]
Script = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request that reached the upstream, and the means to answer it."""

    method: str
    headers: dict[str, str]
    body: bytes
    send: Callable[[dict[str, Any]], Awaitable[None]]
    receive: Callable[[], Awaitable[dict[str, Any]]]
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    target: str = ""  # path and query, as they were sent

    @property
    def message(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded

    async def answer(self, body: bytes, status: int = 200, /, **headers: str) -> None:
        headers = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        raw = [(k.encode(), v.encode()) for k, v in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})

    async def result(self, result: Any, **headers: str) -> None:
        message = {"jsonrpc": "2.0", "id": self.message["id"], "result": result}
        await self.answer(json.dumps(message).encode(), 200, **headers)

    async def open_stream(self, **headers: str) -> None:
        headers = {"content-type": "text/event-stream"} | {k.replace("_", "-"): v for k, v in headers.items()}
        raw = [(k.encode(), v.encode()) for k, v in headers.items()]
        await self.send({"type": "http.response.start", "status": 200, "headers": raw})

    async def event(self, data: bytes, *, last: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": not last})

    async def until_gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


@dataclass
class Upstream:
    """A real HTTP server whose answers the test writes."""

    url: str
    seen: list[Exchange] = field(default_factory=list)
    script: Script | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        path = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        exchange = Exchange(scope["method"], headers, body, send, receive, target=path.decode())
        self.seen.append(exchange)
        if self.script:
            await self.script(exchange)
        else:
            await exchange.result({"content": [{"type": "text", "text": "ok"}]})


def token(
    user: str = "alice",
    audience: str = f"{PUBLIC_URL}/mcp/demo",
    key: ECKey = KEY,
    typ: str = "at+jwt",
    **claims: Any,
) -> str:
    now = int(time.time())
    payload: dict[str, Any] = {
        "iss": PUBLIC_URL,
        "sub": user,
        "aud": audience,
        "client_id": "c1",
        "client_name": "Test client",
    }
    payload |= {"grant": f"grant-{user}", "iat": now, "exp": now + 3600, "jti": os.urandom(4).hex()} | claims
    return jwt.encode({"alg": "ES256", "typ": typ, "kid": key.kid}, payload, key)


@dataclass
class House:
    """One gateway replica with what is around it."""

    gateway: Gateway
    upstream: Upstream
    bus: Bus
    url: str
    directory: Path
    client: httpx2.AsyncClient

    async def put(self, *entries: AnyEntry) -> int:
        """Write to the control log, as the owning services do, and wait until the replica has applied it."""
        sequence = 0
        for entry in entries:
            if isinstance(entry, Server) and entry.url == self.upstream.url:
                # The scripted upstream answers whatever it is asked, so that asking would not tell.
                self.gateway.eras.saw(entry.slug, entry.url, {"modern": True, "legacy": True})
            ack = await self.bus.js.publish(SUBJECT + key_of(entry), msgspec.json.encode(entry))
            sequence = ack.seq
        await eventually(lambda: self.gateway.follower.applied >= sequence)
        return sequence

    async def store_credential(self, version: int = 1) -> None:
        """The organization has a credential for the server `keyed` at its present address."""
        origin = origin_of(self.upstream.url)
        await self.put(CredentialVersion(version=version, slug="keyed", user="organization", origin=origin))

    def message(self, method: str, params: Any = None, id: Any = 1) -> bytes:
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method} | (
            {"params": params} if params is not None else {}
        )
        return json.dumps(body).encode()

    async def post(
        self, body: bytes, bearer: str | None = "", server: str = "demo", **headers: str
    ) -> httpx2.Response:
        given = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if bearer is not None:
            given["authorization"] = f"Bearer {bearer or token()}"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(f"{self.url}/mcp/{server}", content=body, headers=given)

    async def call(self, tool: str = "echo", arguments: Any = None, **options: Any) -> httpx2.Response:
        body = self.message("tools/call", {"name": tool, "arguments": arguments or {}})
        return await self.post(body, **options)

    def records(self) -> list[dict[str, Any]]:
        """Finished lines of the journal, in order."""
        lines = []
        for segment in sorted(self.directory.glob("gateway-journal/segment-*.log")):
            for raw in segment.read_bytes().split(b"\n"):
                if raw.startswith(b"F "):
                    lines.append(json.loads(raw.split(b" ", 4)[4]))
        return lines

    async def record(self, count: int = 1) -> dict[str, Any]:
        """The newest record, once there are `count`."""
        await eventually(lambda: len(self.records()) >= count)
        assert len(self.records()) == count
        return self.records()[-1]


DEMO_ACCESS = ServerAccess(default="allow", tools={"forbidden": "deny"})


def world(upstream: str) -> list[AnyEntry]:
    """The control log of a small organization."""
    public = KEY.as_dict(private=False) | {"use": "sig", "alg": "ES256"}
    return [
        Org(version=1),
        Keys(version=1, issuer=PUBLIC_URL, keys=[public]),
        Server(version=1, slug="demo", name="Demo", url=upstream, response_timeout=2.0),
        Server(version=1, slug="secret", name="Secret", url=upstream),
        Server(version=1, slug="keyed", name="Keyed", url=upstream, auth="api_key"),
        Group(
            version=1,
            id="default",
            name="Everybody",
            servers={"demo": DEMO_ACCESS, "keyed": ServerAccess()},
        ),
        User(version=1, id="alice", email="alice@x.example"),
        User(version=1, id="bob", email="bob@x.example"),
    ]


@pytest.fixture
async def house(nats: Nats, tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        upstream = Upstream(f"http://127.0.0.1:{free_port()}/mcp")
        await serve(upstream, int(upstream.url.split(":")[2].split("/")[0]), stack)
        key = base64.b64encode(os.urandom(32)).decode()
        settings = GatewaySettings(
            public_url=PUBLIC_URL,
            nats_url=nats.url,
            data_dir=tmp_path,
            gateway_session_key=key,
            gateway_record_limit=4096,
            gateway_body_limit=64 * 1024,
            gateway_user_concurrency=4,
        )
        bus = Bus(settings, "test")
        await bus.start()
        stack.push_async_callback(bus.stop)
        gateway, port = create_app(settings), free_port()
        await serve(gateway, port, stack)
        client = await stack.enter_async_context(httpx2.AsyncClient(timeout=10, verify=PLAIN))
        url = f"http://127.0.0.1:{port}"
        house = House(gateway, upstream, bus, url, tmp_path, client)
        await house.put(*world(upstream.url))
        await eventually(lambda: gateway.fresh)
        yield house


@pytest.fixture
async def vault(house: House) -> AsyncIterator[list[OpenCredential]]:
    """A credentials service that knows one key, and lists who asked for it."""
    asked: list[OpenCredential] = []

    async def open_credential(query: OpenCredential) -> SealedCredential:
        asked.append(query)
        secret = msgspec.json.encode(Injection(headers={"X-Api-Key": f"s3cret-{len(asked)}"}))
        version = house.gateway.follower.tables.credentials[f"{query.slug}.{query.user}"].version
        context = credential_context(query.slug, query.user, version)
        return SealedCredential(version=version, box=seal(secret, query.public_key, context))

    await house.bus.serve(OPEN_CREDENTIAL, OpenCredential, open_credential)
    await house.bus.client.flush()
    await house.put(
        CredentialVersion(version=1, slug="keyed", user="organization", origin=origin_of(house.upstream.url))
    )
    yield asked

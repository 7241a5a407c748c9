"""Nobody fills the memory of a service with the body of a request, least of all without an account."""

import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.web.limits import BODY_LIMIT, BodyLimit
from services.activity.app import create_app as activity
from services.activity.settings import ActivitySettings
from services.auth.app import create_app as auth
from services.auth.settings import AuthSettings
from services.credentials.app import create_app as credentials
from services.credentials.settings import CredentialsSettings
from services.policy.app import create_app as policy
from services.policy.settings import PolicySettings

CHUNK = 16 * 1024
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PAGE = {"Accept": "text/html"}

APPS: dict[str, Callable[[Path], FastAPI]] = {
    "auth": lambda path: auth(AuthSettings(data_dir=path)),
    "policy": lambda path: policy(PolicySettings(data_dir=path)),
    "credentials": lambda path: credentials(
        CredentialsSettings(
            data_dir=path,
            credentials_master_key=base64.b64encode(bytes(32)).decode(),
        )
    ),
    "activity": lambda path: activity(ActivitySettings(data_dir=path)),
}
READING = [
    ("auth", "POST", "/api/auth/users", JSON),
    ("auth", "POST", "/login", FORM | PAGE),
    ("auth", "POST", "/oauth/register", JSON),
    ("auth", "POST", "/oauth/token", FORM),
    ("policy", "PUT", "/api/policy/servers/x", JSON),
    ("policy", "POST", "/servers", FORM | PAGE),
    ("credentials", "PUT", "/api/credentials/x/organization", JSON),
    ("credentials", "POST", "/credentials/master-key", FORM | PAGE),
]


def _client(app: ASGIApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1:8080")


class Endless:
    """A body in chunks that does not end by itself; `taken` is how many bytes of it were read."""

    def __init__(self) -> None:
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken < 100 * BODY_LIMIT:
            self.taken += CHUNK
            yield b"x" * CHUNK


def _is_refused(answer: httpx2.Response) -> bool:
    return (
        answer.status_code == 413
        and answer.headers["content-type"] == "application/problem+json"
        and answer.json()["type"] == "urn:lockgate:error:too-large"
    )


@pytest.mark.parametrize(("name", "method", "path", "headers"), READING)
async def test_a_body_without_a_length_is_read_no_further_than_the_limit(
    tmp_path: Path, name: str, method: str, path: str, headers: dict[str, str]
) -> None:
    body = Endless()
    async with _client(APPS[name](tmp_path)) as client:
        assert _is_refused(await client.request(method, path, headers=headers, content=body))
    assert body.taken <= BODY_LIMIT + 4 * CHUNK


@pytest.mark.parametrize(
    ("name", "method", "path", "headers"), [*READING, ("activity", "POST", "/activity", FORM)]
)
async def test_a_body_that_says_it_is_too_large_is_not_read_at_all(
    tmp_path: Path, name: str, method: str, path: str, headers: dict[str, str]
) -> None:
    body = Endless()
    headers = headers | {"Content-Length": str(BODY_LIMIT + 1)}
    async with _client(APPS[name](tmp_path)) as client:
        assert _is_refused(await client.request(method, path, headers=headers, content=body))
    assert body.taken == 0


async def test_a_body_at_the_limit_goes_on_to_be_judged(tmp_path: Path) -> None:
    body = b'"' + b"x" * (BODY_LIMIT - 2) + b'"'
    async with _client(APPS["policy"](tmp_path)) as client:
        answer = await client.put("/api/policy/servers/x", headers=JSON, content=body)
    assert answer.status_code == 401


async def test_what_an_app_makes_of_the_cut_body_is_not_sent() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while True:
                await receive()
        except Exception:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"broken"})

    async with _client(BodyLimit(app, limit=10)) as client:
        assert _is_refused(await client.post("/", content=Endless()))


async def test_an_answer_that_had_begun_is_not_followed_by_another() -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await receive()
        except Exception:
            await send({"type": "http.response.body", "body": b"cut"})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 11, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await BodyLimit(app, limit=10)({"type": "http", "headers": []}, receive, send)
    assert [message.get("status", message.get("body")) for message in sent] == [200, b"cut"]

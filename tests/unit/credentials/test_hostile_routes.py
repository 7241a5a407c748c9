"""Every route of the service, walked as those who may not use it; and whatever is sent, no secret comes
back."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from libs.common.control.entries import ORGANIZATION, Group, ServerAccess
from services.credentials.domain import Draft, Owner
from tests.unit.conftest import IN_BROWSER, SignIn
from tests.unit.credentials.conftest import Vault, server

SECRET = "sk-7f3a9c-entered-by-somebody"
CHANGING = {"POST", "PUT", "DELETE", "PATCH"}
# What everybody may ask for who is signed in; all else is for administrators.
EVERYBODYS = {
    ("GET", "/credentials"),
    ("GET", "/credentials/callback"),
    ("GET", "/credentials/servers/{slug}"),
    ("POST", "/credentials/servers/{slug}/mine"),
    ("POST", "/credentials/servers/{slug}/connect"),
    ("POST", "/credentials/accounts/{account}/choose"),
    ("POST", "/credentials/accounts/{account}/delete"),
    ("GET", "/api/credentials/mine"),
    ("PUT", "/api/credentials/mine/servers/{slug}"),
    ("DELETE", "/api/credentials/mine/servers/{slug}"),
    ("DELETE", "/api/credentials/mine/accounts/{account}"),
    ("PUT", "/api/credentials/mine/accounts/{account}/chosen"),
}


def walk(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Methods and paths."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield from ((method, route.path) for method in sorted(route.methods or ()))
        elif inner := getattr(getattr(route, "original_router", None), "routes", None):
            yield from walk(inner)


def routes(app: FastAPI) -> list[tuple[str, str]]:
    found = list(walk(app.routes))
    assert len(found) >= 30
    return found


def url(path: str, account: str = "none") -> str:
    return path.replace("{slug}", "wiki").replace("{account}", account)


async def client(vault: Vault, headers: dict[str, str]) -> httpx2.AsyncClient:
    base = vault.app.state.parts.settings.public_url
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(vault.app), base_url=base, headers=headers)


async def test_no_route_answers_anybody_who_is_not_signed_in(vault: Vault) -> None:
    async with await client(vault, IN_BROWSER) as nobody:
        for method, path in routes(vault.app):
            answer = await nobody.request(method, url(path), json={})
            to_login = answer.headers.get("location", "").startswith("/login?next=")
            assert answer.status_code == (401 if path.startswith("/api/") else 303), (method, path)
            assert to_login or answer.status_code == 401, (method, path)


async def test_no_form_is_taken_from_another_site(vault: Vault) -> None:
    cookie = {"Cookie": vault.admin.browser["Cookie"]}
    evil = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example.com"}
    for headers in (evil, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}, {}):
        async with await client(vault, cookie | headers) as forged:
            for method, path in routes(vault.app):
                if method in CHANGING:
                    answer = await forged.request(method, url(path), json={})
                    assert answer.status_code == 403, (method, path, headers)


@pytest.mark.parametrize("role", ["member", "auditor"])
async def test_only_administrators_get_at_what_is_not_ones_own(
    vault: Vault, sign_in: SignIn, role: str
) -> None:
    bob = await sign_in(role, "bob")
    for headers in (bob.browser, bob.script):
        async with await client(vault, headers) as theirs:
            for method, path in routes(vault.app):
                if (method, path) not in EVERYBODYS:
                    answer = await theirs.request(method, url(path), json={})
                    assert answer.status_code == 403, (method, path)
    assert set(routes(vault.app)) >= EVERYBODYS


async def test_nobody_gets_at_the_accounts_of_somebody_else(vault: Vault, sign_in: SignIn) -> None:
    """Not an administrator at another person's either, except to delete it."""
    bob = await sign_in("member", "bob")
    await vault.control.put(Group(version=1, id="default", name="All", servers={"wiki": ServerAccess()}))
    accounts = vault.app.state.parts.store.accounts
    draft = Draft(kind="api_key", secret=b'{"key":"k"}', origin="https://wiki.example.com:443")
    of_others = [accounts.put(Owner("wiki", user), draft, "x").after.id for user in ("carol", ORGANIZATION)]
    before = accounts.all()
    async with await client(vault, bob.browser) as browser:
        for account in [*of_others, "none"]:
            for method, path in sorted(EVERYBODYS):
                if "{account}" in path:
                    answer = await browser.request(method, url(path, account))
                    assert answer.status_code == 404, (method, path)
    carols = of_others[0]
    assert (await vault.browser.post(f"/credentials/accounts/{carols}/delete")).status_code == 404
    assert (await vault.browser.post(f"/credentials/accounts/{carols}/choose")).status_code == 404
    chosen = await vault.api.put(f"/api/credentials/accounts/{carols}/chosen")
    assert chosen.status_code == 404
    assert accounts.all() == before


BODIES: list[Any] = [
    {"key": [SECRET], "header": "X-Key"},
    {"key": {"a": SECRET}, "header": "X-Key"},
    {"key": SECRET, "header": 5},
    {"key": SECRET, "header": "Host"},
    {"key": SECRET + "\r\nX-Evil: 1", "header": "X-Key"},
    {"key": SECRET, "header": "X-Key", "template": "no field"},
    {"values": {"key": [SECRET]}},
    {"values": {"other": SECRET}},
    {"values": [SECRET]},
    {"values": {"key": SECRET + "\x00"}},
    {"values": {"key": SECRET * 1000}},
    {"values": {"key": SECRET}, "key": SECRET},
    {"client_id": "c", "client_secret": [SECRET]},
    {"client_id": "c", "client_secret": SECRET * 200},
    {"client_id": "c", "client_secret": SECRET + "\n"},
    {"client_secret": SECRET},
    [SECRET],
    SECRET,
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
async def test_no_refusal_repeats_a_secret(
    vault: Vault, body: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    await vault.know(server("wiki", auth="oauth" if "client_id" in str(body) else "api_key"))
    for method, path in routes(vault.app):
        if method == "PUT" and "{slug}" in path:
            for text in (json.dumps(body), json.dumps(body)[:-1]):  # the second is cut off
                answer = await vault.api.request(
                    method, url(path), content=text, headers={"Content-Type": "application/json"}
                )
                assert answer.status_code >= 400, (path, answer.text)
                assert SECRET not in answer.text, path
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize("origin", ["", "https://evil.example.com:443"])
async def test_no_page_shows_what_was_typed(vault: Vault, origin: str) -> None:
    typed = {"value.key": SECRET, "value.other": SECRET, "origin": origin, "label": "\x00"}
    for whose in ("mine", "organization"):
        page = await vault.browser.post(f"/credentials/servers/wiki/{whose}", data=typed)
        assert page.status_code >= 400
        assert SECRET not in page.text
        if page.headers["content-type"].startswith("text/html"):
            assert page.headers["cache-control"] == "no-store"


async def test_the_description_of_the_api_has_no_values_and_knows_what_is_secret(vault: Vault) -> None:
    described = vault.app.openapi()["components"]["schemas"]
    key = described["CredentialBody"]["properties"]["key"]
    assert (key.get("format"), key.get("writeOnly")) == ("password", True)
    assert key.get("default") in {None, "", "**********"}

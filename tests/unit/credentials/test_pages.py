"""The page /credentials: what is missing, what is set, and never a key."""

import re
from html import unescape

import httpx2

from libs.common.control.entries import Server
from tests.unit.credentials.conftest import Vault, server

FORM = {
    "header": "X-Api-Key",
    "template": "{key}",
    "key": "s3cret",
    "origin": "https://wiki.example.com:443",
}


def _text(page: httpx2.Response) -> str:
    body = page.text[page.text.index("<main") :]
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


async def test_a_server_that_needs_a_key_is_shown_as_missing_one(vault: Vault) -> None:
    text = _text(await vault.browser.get("/credentials"))
    assert "Wiki Missing" in text
    assert "https://wiki.example.com/mcp" in text


async def test_a_key_is_stored_by_the_form_and_never_shown(vault: Vault) -> None:
    answer = await vault.browser.post("/credentials/wiki/organization", data=FORM)
    assert answer.status_code == 303
    page = await vault.browser.get(answer.headers["location"])
    text = _text(page)
    assert "The credential for wiki is stored. No gateway replica is running" in text
    assert "Wiki Set for everybody" in text
    assert "X-Api-Key: {key}" in text
    assert "s3cret" not in page.text
    assert await vault.open() == {"x-api-key": "s3cret"}


async def test_white_space_around_a_pasted_key_is_dropped(vault: Vault) -> None:
    await vault.browser.post("/credentials/wiki/organization", data=FORM | {"key": " s3cret\n"})
    assert await vault.open() == {"x-api-key": "s3cret"}


async def test_a_problem_is_shown_with_what_was_typed_but_not_the_key(vault: Vault) -> None:
    answer = await vault.browser.post("/credentials/wiki/organization", data=FORM | {"header": "Mcp-Thing"})
    assert answer.status_code == 400
    assert 'value="Mcp-Thing"' in answer.text
    assert "belongs to" in _text(answer)
    assert "s3cret" not in answer.text


async def test_a_key_is_deleted_by_the_form(vault: Vault) -> None:
    await vault.store("s3cret")
    answer = await vault.browser.post("/credentials/wiki/organization/delete")
    text = _text(await vault.browser.get(answer.headers["location"]))
    assert "The credential for wiki is deleted" in text
    assert "Wiki Missing" in text


async def test_without_servers_that_need_one_the_page_says_what_to_do(vault: Vault) -> None:
    await vault.control.put(server(auth="none"))
    follower = vault.app.state.follower
    await follower.wait_for(lambda: follower.tables.servers["wiki"].auth == "none", timeout=5)
    assert "No server needs a credential" in _text(await vault.browser.get("/credentials"))


async def test_a_key_whose_server_is_gone_is_shown_to_be_deleted(vault: Vault) -> None:
    await vault.store("s3cret")
    await vault.control.remove("server.wiki")
    follower = vault.app.state.follower
    await follower.wait_for(lambda: not follower.tables.servers, timeout=5)
    text = _text(await vault.browser.get("/credentials"))
    assert "Not in use" in text
    assert "wiki" in text


async def test_a_key_stored_for_another_address_is_shown_to_be_entered_again(vault: Vault) -> None:
    await vault.store("s3cret")
    await vault.move("https://new.example/mcp")
    page = await vault.browser.get("/credentials")
    text = _text(page)
    assert "Wiki Stored for another address" in text
    assert "Stored for https://wiki.example.com:443" in text
    assert "Enter it again" in text
    assert 'name="origin" value="https://new.example:443"' in page.text
    await vault.browser.post(
        "/credentials/wiki/organization", data=FORM | {"origin": "https://new.example:443"}
    )
    assert "Wiki Set for everybody" in _text(await vault.browser.get("/credentials"))
    assert await vault.open() == {"x-api-key": "s3cret"}


async def test_a_key_typed_before_the_server_moved_is_not_stored_for_its_new_address(vault: Vault) -> None:
    await vault.move("https://evil.example/mcp")
    answer = await vault.browser.post("/credentials/wiki/organization", data=FORM)
    assert answer.status_code == 409
    assert "address or command has changed" in _text(answer)
    assert (await vault.api.get("/api/credentials")).json()["items"] == []


async def test_names_from_the_log_are_escaped(vault: Vault) -> None:
    odd = Server(
        version=2, slug="wiki", name="<script>x</script>", url="https://w.example.com", auth="api_key"
    )
    await vault.control.put(odd)
    follower = vault.app.state.follower
    await follower.wait_for(lambda: follower.tables.servers["wiki"].version == 2, timeout=5)
    assert "<script>x" not in (await vault.browser.get("/credentials")).text


async def test_a_form_sent_by_another_site_is_refused(vault: Vault) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    answer = await vault.browser.post("/credentials/wiki/organization", data=FORM, headers=headers)
    assert answer.status_code == 403
    assert (await vault.api.get("/api/credentials")).json()["items"] == []


async def test_whoever_is_not_signed_in_is_led_to_the_login(vault: Vault) -> None:
    answer = await vault.browser.get("/credentials", headers={"Cookie": ""})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fcredentials")

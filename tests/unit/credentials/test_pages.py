"""The pages under /credentials: what is missing, what is set, what to do, and never a secret."""

import re
from html import unescape
from typing import Any

import httpx2
import pytest

from libs.common.control.entries import DEFAULT_GROUP, Group, Server, ServerAccess, destination_of
from tests.unit.conftest import SignIn
from tests.unit.credentials.conftest import Vault, command, server

PAGE = "/credentials/servers/wiki"
FORM = {"value.key": "s3cret", "label": "", "origin": "https://wiki.example.com:443"}


def _text(page: httpx2.Response) -> str:
    body = page.text[page.text.index("<main") :]
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


async def _usable(vault: Vault, *slugs: str) -> None:
    """Let everybody use these servers; return when the service knows."""
    servers = {slug: ServerAccess() for slug in slugs}
    revision = await vault.control.put(Group(version=1, id=DEFAULT_GROUP, name="All", servers=servers))
    follower = vault.app.state.follower
    await follower.wait_for(lambda: follower.applied >= revision, timeout=5)


async def _fields(vault: Vault, slug: str, fields: list[Any], placements: list[Any]) -> None:
    body = {"fields": fields, "placements": placements}
    answer = await vault.api.put(f"/api/credentials/servers/{slug}/fields", json=body)
    assert answer.status_code == 200, answer.text


# -- the list ---------------------------------------------------------------------------------------


async def test_a_server_that_needs_a_key_is_shown_as_not_connected(vault: Vault) -> None:
    await _usable(vault, "wiki")
    assert "Wiki Not connected – – Connect" in _text(await vault.browser.get("/credentials"))


async def test_the_list_says_whose_credential_is_used(vault: Vault) -> None:
    await _usable(vault, "wiki")
    await vault.store("for-all")
    assert "Wiki Set for everybody the organization" in _text(await vault.browser.get("/credentials"))
    await vault.browser.post(f"{PAGE}/mine", data=FORM | {"label": "Ada at home"})
    assert "Wiki Connected Ada at home" in _text(await vault.browser.get("/credentials"))


async def test_a_member_sees_only_what_their_group_may_use(vault: Vault, sign_in: SignIn) -> None:
    await vault.know(server("secret"))
    await _usable(vault, "wiki")
    member = await sign_in("member")
    follower = vault.app.state.follower
    await follower.wait_for(lambda: member.user.id in follower.tables.users, timeout=5)
    headers = member.browser
    text = _text(await vault.browser.get("/credentials", headers=headers))
    assert "Wiki" in text
    assert "Secret" not in text
    assert (await vault.browser.get("/credentials/servers/secret", headers=headers)).status_code == 404
    assert (await vault.browser.get(PAGE, headers=headers)).status_code == 200


async def test_an_administrator_sees_the_servers_of_other_groups_too(vault: Vault) -> None:
    text = _text(await vault.browser.get("/credentials"))
    assert "Servers that your own group does not use" in text
    assert "Wiki Not connected" in text


async def test_without_servers_that_need_one_the_page_says_what_to_do(vault: Vault) -> None:
    await vault.know(server(auth="none"))
    await _usable(vault, "wiki")
    assert "No server needs a credential" in _text(await vault.browser.get("/credentials"))


async def test_a_key_whose_server_is_gone_is_shown_to_be_deleted(vault: Vault) -> None:
    await vault.store("s3cret")
    await vault.move(None)
    page = await vault.browser.get("/credentials")
    assert "Not in use" in _text(page)
    action = re.search(r'action="(/credentials/accounts/\w+/delete)"', page.text)
    assert action
    assert (await vault.browser.post(action[1])).status_code == 303
    assert (await vault.api.get("/api/credentials")).json()["items"] == []


# -- one server -------------------------------------------------------------------------------------


async def test_ones_own_key_is_stored_by_the_form_and_never_shown(vault: Vault) -> None:
    await _usable(vault, "wiki")
    answer = await vault.browser.post(f"{PAGE}/mine", data=FORM)
    assert answer.status_code == 303
    page = await vault.browser.get(answer.headers["location"])
    assert "Your credential for Wiki is stored. No gateway replica is running" in _text(page)
    assert "Wiki Connected Your calls go there with your own account" in _text(page)
    assert "s3cret" not in page.text
    assert (await vault.inject(user="ada")).headers == {"authorization": "Bearer s3cret"}


async def test_the_organizations_key_is_stored_by_an_administrator(vault: Vault) -> None:
    answer = await vault.browser.post(f"{PAGE}/organization", data=FORM)
    text = _text(await vault.browser.get(answer.headers["location"]))
    assert "The organization’s credential for Wiki is stored." in text
    assert "Set for everybody" in text
    assert await vault.open() == {"authorization": "Bearer s3cret"}


async def test_a_member_stores_nothing_for_everybody(vault: Vault, sign_in: SignIn) -> None:
    await _usable(vault, "wiki")
    await vault.store("s3cret")
    member = await sign_in("member")
    follower = vault.app.state.follower
    await follower.wait_for(lambda: member.user.id in follower.tables.users, timeout=5)
    (account,) = (await vault.api.get("/api/credentials")).json()["items"]
    for path in (
        f"{PAGE}/organization",
        f"{PAGE}/fields",
        f"/credentials/accounts/{account['id']}/delete",
        f"/credentials/accounts/{account['id']}/choose",
        "/credentials/master-key",
    ):
        answer = await vault.browser.post(path, data=FORM, headers=member.browser)
        assert answer.status_code in {403, 404}, path
    page = await vault.browser.get(PAGE, headers=member.browser)
    assert not [path for path in re.findall(r'action="([^"]*)"', page.text) if "organization" in path]
    assert await vault.open() == {"x-api-key": "s3cret"}


async def test_white_space_around_a_pasted_key_is_dropped(vault: Vault) -> None:
    await vault.browser.post(f"{PAGE}/organization", data=FORM | {"value.key": " s3cret\n"})
    assert await vault.open() == {"authorization": "Bearer s3cret"}


async def test_a_problem_is_shown_with_what_was_typed_but_not_the_key(vault: Vault) -> None:
    answer = await vault.browser.post(
        f"{PAGE}/organization", data=FORM | {"label": "Ada’s", "value.key": "s3cret\N{SNOWMAN}"}
    )
    assert answer.status_code == 400
    assert 'value="Ada’s"' in answer.text
    assert "cannot carry" in _text(answer)
    assert "s3cret" not in answer.text


async def test_of_two_accounts_the_chosen_one_is_used(vault: Vault) -> None:
    await _usable(vault, "wiki")
    await vault.browser.post(f"{PAGE}/mine", data=FORM | {"value.key": "work", "label": "Work"})
    await vault.browser.post(f"{PAGE}/mine", data=FORM | {"value.key": "home", "label": "Home"})
    assert (await vault.inject(user="ada")).headers == {"authorization": "Bearer home"}
    page = await vault.browser.get(PAGE)
    assert "Home used" in _text(page)
    action = re.search(r'action="(/credentials/accounts/\w+/choose)"', page.text)
    assert action
    await vault.browser.post(action[1])
    assert "Work used" in _text(await vault.browser.get(PAGE))
    assert (await vault.inject(user="ada")).headers == {"authorization": "Bearer work"}


async def test_a_key_is_deleted_by_the_form(vault: Vault) -> None:
    await vault.store("s3cret")
    action = re.search(r'action="(/credentials/accounts/\w+/delete)"', (await vault.browser.get(PAGE)).text)
    assert action
    answer = await vault.browser.post(action[1])
    text = _text(await vault.browser.get(answer.headers["location"]))
    assert "The credential for wiki is deleted" in text
    assert "Wiki Not connected" in text


async def test_a_key_stored_for_another_address_is_shown_to_be_entered_again(vault: Vault) -> None:
    await vault.store("s3cret")
    await vault.move("https://new.example/mcp")
    page = await vault.browser.get(PAGE)
    assert "Wiki Needs attention" in _text(page)
    assert "It was stored for https://wiki.example.com:443, and the server has another address" in _text(page)
    assert "Stored for another address" in _text(page)
    assert 'name="origin" value="https://new.example:443"' in page.text
    await vault.browser.post(f"{PAGE}/organization", data=FORM | {"origin": "https://new.example:443"})
    assert "Wiki Set for everybody" in _text(await vault.browser.get(PAGE))
    assert await vault.open() == {"x-api-key": "s3cret"}


async def test_a_key_typed_before_the_server_moved_is_not_stored_for_its_new_address(vault: Vault) -> None:
    await vault.move("https://evil.example/mcp")
    answer = await vault.browser.post(f"{PAGE}/organization", data=FORM)
    assert answer.status_code == 409
    assert "address or command has changed" in _text(answer)
    assert (await vault.api.get("/api/credentials")).json()["items"] == []


async def test_a_key_of_an_earlier_command_is_shown_without_its_digest(vault: Vault) -> None:
    await vault.know(command())
    body = {"environment": "API_KEY", "key": "s3cret"}
    await vault.api.put("/api/credentials/tools/organization", json=body)
    await vault.know(command("uvx", "tools"))
    text = _text(await vault.browser.get("/credentials/servers/tools"))
    assert "It was stored for another command, and the server has another command now" in text
    assert "stdio:" not in text


# -- fields and where they go -----------------------------------------------------------------------


def _rows(*placements: tuple[str, str, str], fields: tuple[str, ...] = ("key",)) -> dict[str, Any]:
    return {
        "field_name": list(fields),
        "field_label": [""] * len(fields),
        "field_help": [""] * len(fields),
        "field_kind": ["secret"] * len(fields),
        "placement_into": [into for into, _, _ in placements],
        "placement_name": [name for _, name, _ in placements],
        "placement_template": [template for _, _, template in placements],
    }


async def test_an_administrator_says_where_the_key_goes(vault: Vault) -> None:
    await vault.browser.post(f"{PAGE}/organization", data=FORM)
    answer = await vault.browser.post(f"{PAGE}/fields", data=_rows(("header", "X-Api-Key", "{key}")))
    assert answer.status_code == 303
    assert "Sent as X-Api-Key: {key}" in _text(await vault.browser.get(PAGE))
    assert await vault.open() == {"x-api-key": "s3cret"}
    await vault.browser.post(f"{PAGE}/fields", data=_rows() | {"usual": "yes"})
    assert "Sent as Authorization: Bearer {key} usual" in _text(await vault.browser.get(PAGE))
    assert await vault.open() == {"authorization": "Bearer s3cret"}


async def test_a_wrong_place_is_said_and_stays_in_the_form(vault: Vault) -> None:
    answer = await vault.browser.post(f"{PAGE}/fields", data=_rows(("header", "Mcp-Thing", "{key}")))
    assert answer.status_code == 400
    assert "belongs to" in _text(answer)
    assert 'value="Mcp-Thing"' in answer.text


async def test_people_see_the_fields_that_were_named(vault: Vault) -> None:
    await _usable(vault, "wiki")
    fields = [
        {"name": "user", "label": "Login", "secret": False},
        {"name": "password", "help": "Of the wiki"},
    ]
    places = [{"into": "header", "name": "Authorization", "template": "Basic {base64:user:password}"}]
    await _fields(vault, "wiki", fields, places)
    page = await vault.browser.get(PAGE)
    assert 'name="value.user" type="text"' in page.text
    assert 'name="value.password" type="password"' in page.text
    assert "Of the wiki" in _text(page)
    data = {"origin": FORM["origin"], "value.user": "ada", "value.password": "s3cret"}
    assert (await vault.browser.post(f"{PAGE}/mine", data=data)).status_code == 303
    assert (await vault.inject(user="ada")).headers == {"authorization": "Basic YWRhOnMzY3JldA=="}


async def test_other_fields_make_people_enter_them_again(vault: Vault) -> None:
    await _usable(vault, "wiki")
    await vault.browser.post(f"{PAGE}/mine", data=FORM)
    places = [{"into": "header", "name": "X-Token", "template": "{token}"}]
    await _fields(vault, "wiki", [{"name": "token"}], places)
    assert "Wiki Needs attention" in _text(await vault.browser.get("/credentials"))
    assert "The server wants other values now" in _text(await vault.browser.get(PAGE))
    entry = await vault.control.get("credential.wiki.ada")
    assert entry and entry["attention"] is True


async def test_a_command_asks_for_its_variable_first(vault: Vault) -> None:
    await vault.know(command())
    await _usable(vault, "tools")
    page = await vault.browser.get("/credentials/servers/tools")
    assert "Say below in which environment variable" in _text(page)
    assert "npx -y 'a b'" in _text(page)
    assert 'value="header"' not in page.text
    rows = _rows(("environment", "API_KEY", "{key}"))
    await vault.browser.post("/credentials/servers/tools/fields", data=rows)
    assert "Set as API_KEY={key}" in _text(await vault.browser.get("/credentials/servers/tools"))
    data = {"value.key": "s3cret", "origin": destination_of(command())}
    await vault.browser.post("/credentials/servers/tools/mine", data=data)
    assert (await vault.inject("tools", user="ada")).environment == {"API_KEY": "s3cret"}


# -- safety -----------------------------------------------------------------------------------------


async def test_names_from_the_log_are_escaped(vault: Vault) -> None:
    name = "<script>x</script>"
    await vault.know(Server(version=2, slug="wiki", name=name, url="https://w.example.com", auth="api_key"))
    assert "<script>x" not in (await vault.browser.get("/credentials")).text
    assert "<script>x" not in (await vault.browser.get(PAGE)).text


@pytest.mark.parametrize("path", [f"{PAGE}/organization", f"{PAGE}/mine", f"{PAGE}/fields"])
async def test_a_form_sent_by_another_site_is_refused(vault: Vault, path: str) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    answer = await vault.browser.post(path, data=FORM, headers=headers)
    assert answer.status_code == 403
    assert (await vault.api.get("/api/credentials")).json()["items"] == []


async def test_whoever_is_not_signed_in_is_led_to_the_login_and_back(vault: Vault) -> None:
    answer = await vault.browser.get(PAGE, headers={"Cookie": ""})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fcredentials%2Fservers%2Fwiki"

"""The pages: what an administrator sees and what the forms do."""

import re
from functools import partial
from typing import get_args

import pytest

from libs.common.control.entries import ORGANIZATION, CredentialVersion, Replica, origin_of
from libs.common.control.tables import Tables
from libs.common.web.notices import Mood
from services.policy.clients import snippets
from tests.conftest import eventually, free_port
from tests.unit.conftest import SignIn
from tests.unit.policy.conftest import Policy, StartGateway, StartUpstream
from tests.unit.policy.reading import follow, notice, text

NOTHING_NAMED: dict[str, object] = {"tools": {}, "prompts": {}, "resources": {}}
WIKI = {"name": "Wiki", "slug": "wiki", "url": "https://wiki.example.com/mcp"}


async def test_without_servers_the_page_says_what_to_do(policy: Policy) -> None:
    said = text(await policy.browser.get("/servers"))
    assert "No servers yet" in said
    assert "Add a server" in said


async def test_adding_a_server_reads_its_tools_and_shows_them(
    policy: Policy, gateway: StartGateway, upstream: StartUpstream
) -> None:
    server = await upstream(("read_page", "Reads a page."))
    await gateway()
    answer = await policy.browser.post("/servers", data=WIKI | {"url": server.url, "default_access": "deny"})
    assert answer.headers["location"] == "/servers/wiki"
    said = await follow(policy, answer)
    assert "Wiki is added" in said
    assert "It has 1 tool" in said
    assert "read_page" in said


async def test_a_server_that_does_not_tell_its_tools_is_added_all_the_same(policy: Policy) -> None:
    url = f"http://127.0.0.1:{free_port()}/mcp"
    answer = await policy.browser.post("/servers", data=WIKI | {"url": url})
    page = await policy.browser.get(answer.headers["location"])
    assert "Wiki is added" in notice(page)
    assert "What it offers could not be read" in notice(page)
    assert '<p class="notice warn"' in page.text


async def test_every_mood_of_a_notice_has_its_colours(policy: Policy) -> None:
    style = (await policy.browser.get("/servers")).text
    for mood in get_args(Mood):
        assert re.search(rf"\.notice\.{mood} {{ background: var\(--{mood}-soft\)", style)


def _knows_origin(tables: Tables, origin: str) -> bool:
    return [credential.origin for credential in tables.credentials.values()] == [origin]


async def test_the_page_says_where_to_store_a_credential_that_is_missing(policy: Policy) -> None:
    await policy.add("wiki", auth="api_key")
    await policy.add("open")
    missing = "No credential is stored for Wiki yet"
    page = await policy.browser.get("/servers/wiki")
    assert f'{missing}: <a href="/credentials">store it</a>' in page.text
    assert "No credential" not in text(await policy.browser.get("/servers/open"))
    tables = policy.app.state.follower.tables
    for origin, told in (("https://elsewhere.example.com:443", True), (origin_of(WIKI["url"]), False)):
        await policy.control.put(CredentialVersion(version=1, slug="wiki", user=ORGANIZATION, origin=origin))
        await eventually(partial(_knows_origin, tables, origin))
        assert (missing in text(await policy.browser.get("/servers/wiki"))) == told


async def test_what_was_typed_comes_back_with_the_problem(policy: Policy) -> None:
    answer = await policy.browser.post("/servers", data=WIKI | {"url": "ftp://wiki.example.com"})
    assert answer.status_code == 400
    assert "http://" in notice(answer)
    assert 'value="ftp://wiki.example.com"' in answer.text


async def test_adding_a_server_twice_does_not_overwrite_it(policy: Policy) -> None:
    await policy.add("wiki", name="First")
    answer = await policy.browser.post("/servers", data=WIKI)
    assert answer.status_code == 409
    assert (await policy.api.get("/api/policy/servers/wiki")).json()["name"] == "First"


async def test_the_list_shows_the_url_for_clients_and_the_state(policy: Policy) -> None:
    await policy.add("wiki")
    await policy.api.put("/api/policy/servers/wiki/switch", json={"enabled": False, "reason": "leaks"})
    page = await policy.browser.get("/servers")
    assert "http://127.0.0.1:8080/mcp/wiki" in page.text
    assert "Off" in text(page)
    assert "leaks" in text(page)


async def test_the_page_says_on_which_replicas_a_change_holds_and_only_once(policy: Policy) -> None:
    await policy.add("wiki")
    at = "2026-01-02T03:04:05.678000Z"
    for name in ("r1", "r2"):
        await policy.control.put(Replica(id=name, revision=10**9, applied_at=at, lease=1.0))
    follower = policy.app.state.follower
    await follower.wait_for(lambda: len(follower.tables.replicas) == 2, timeout=5)
    form = {"level": "server", "subject": "wiki", "enabled": "false", "reason": "leaks <b>"}
    answer = await policy.browser.post("/servers/switches", data=form)
    page = await policy.browser.get(answer.headers["location"])
    assert (
        notice(page)
        == "The server wiki is switched off. Holds on 2 replicas since 2026-01-02 03:04:05.678 UTC."
    )
    assert "leaks &lt;b&gt;" in page.text
    assert not notice(await policy.browser.get("/servers/wiki"))


async def test_ticked_tools_become_the_groups_access(policy: Policy) -> None:
    await policy.add("wiki")
    await policy.api.put("/api/policy/servers/wiki/tools", json={"tools": ["read", "write"]})
    group = (await policy.api.get("/api/policy/groups/default")).json()
    form = {"version": str(group["version"]), "known_tools": "read\r\nwrite\r\n", "tools": ["read"]}
    path = "/groups/default/servers/wiki"
    await follow(policy, await policy.browser.post(path, data=form | {"mode": "deny", "back": "server"}))
    group = (await policy.api.get("/api/policy/groups/default")).json()
    assert group["servers"]["wiki"] == NOTHING_NAMED | {"default": "deny", "tools": {"read": "allow"}}
    form["version"] = str(group["version"])
    await follow(policy, await policy.browser.post(path, data=form | {"mode": "allow"}))
    group = (await policy.api.get("/api/policy/groups/default")).json()
    assert group["servers"]["wiki"] == NOTHING_NAMED | {"default": "allow", "tools": {"write": "deny"}}
    form["version"] = str(group["version"])
    await follow(policy, await policy.browser.post(path, data=form | {"mode": "none"}))
    assert (await policy.api.get("/api/policy/groups/default")).json()["servers"] == {}


async def test_a_form_older_than_a_change_of_somebody_else_saves_nothing(policy: Policy) -> None:
    made = await policy.add("wiki")
    await policy.add("wiki", name="Other")
    form = {
        "name": "Mine",
        "url": "https://wiki.example.com/mcp",
        "auth": "none",
        "connect_timeout": "5",
        "response_timeout": "120",
    }
    answer = await policy.browser.post("/servers/wiki", data=form | {"version": str(made["version"])})
    assert answer.status_code == 412
    assert "Somebody else" in notice(answer)
    assert (await policy.api.get("/api/policy/servers/wiki")).json()["name"] == "Other"


async def test_settings_tools_and_names_are_edited_by_forms(policy: Policy) -> None:
    made = await policy.add("wiki")
    form = {
        "name": "Handbook",
        "url": "https://handbook.example.com/mcp",
        "auth": "api_key",
        "connect_timeout": "2.5",
        "response_timeout": "60",
        "version": str(made["version"]),
    }
    await follow(policy, await policy.browser.post("/servers/wiki", data=form))
    await follow(
        policy, await policy.browser.post("/servers/wiki/features", data={"tools": "read\r\n\r\nwrite"})
    )
    now = (await policy.api.get("/api/policy/servers/wiki")).json()
    assert (now["name"], now["auth"], now["connect_timeout"]) == ("Handbook", "api_key", 2.5)
    assert [tool["name"] for tool in now["tools"]] == ["read", "write"]


async def test_a_group_is_renamed_and_a_server_deleted_by_forms(policy: Policy) -> None:
    await policy.add("wiki", default_access="allow")
    group = (await policy.api.get("/api/policy/groups/default")).json()
    form = {"name": "Staff", "version": str(group["version"])}
    assert "Staff" in await follow(policy, await policy.browser.post("/groups/default", data=form))
    assert "wiki" in text(await policy.browser.get("/groups/default"))
    said = await follow(policy, await policy.browser.post("/servers/wiki/delete"))
    assert "wiki is deleted" in said
    assert "No servers yet" in said


async def test_everything_is_switched_off_from_the_page(policy: Policy) -> None:
    form = {"level": "organization", "enabled": "false", "reason": "incident"}
    said = await follow(policy, await policy.browser.post("/servers/switches", data=form))
    assert "Every call is refused" in said
    assert (await policy.api.get("/api/policy/organization")).json()["enabled"] is False


@pytest.mark.parametrize("client", ["Cursor", "Claude Desktop", "Claude Code", "Codex"])
async def test_the_page_shows_how_to_connect(policy: Policy, client: str) -> None:
    await policy.add("wiki")
    said = text(await policy.browser.get("/servers/wiki"))
    assert client in said
    assert "claude mcp add --transport http wiki http://127.0.0.1:8080/mcp/wiki" in said
    assert "claude mcp login wiki" in said


def test_codex_signs_in_when_the_server_is_added() -> None:
    codex = next(
        found for found in snippets("wiki", "https://gate.example/mcp/wiki") if found.client == "Codex"
    )
    assert codex.text == "codex mcp add wiki --url https://gate.example/mcp/wiki"
    assert "if that was cancelled: codex mcp login wiki" in codex.then


async def test_the_slugs_rule_is_told_by_its_field(policy: Policy) -> None:
    field = re.search(r'<input name="slug"[^>]*>', (await policy.browser.get("/servers")).text)
    assert field
    assert 'title="Lower-case letters, digits and hyphens' in field[0]


async def test_a_form_sent_by_another_site_is_refused(policy: Policy) -> None:
    await policy.add("wiki")
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    answer = await policy.browser.post("/servers/wiki/delete", headers=headers)
    assert answer.status_code == 403
    assert (await policy.api.get("/api/policy/servers/wiki")).status_code == 200


async def test_whoever_is_not_signed_in_is_led_to_the_login(policy: Policy) -> None:
    answer = await policy.browser.get("/servers/wiki", headers={"Cookie": ""})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fservers%2Fwiki"


async def test_a_member_sees_a_page_that_says_no(policy: Policy, sign_in: SignIn) -> None:
    member = await sign_in("member")
    follower = policy.app.state.follower
    await follower.wait_for(lambda: member.user.id in follower.tables.users, timeout=5)
    answer = await policy.browser.get("/servers", headers=member.browser)
    assert answer.status_code == 403
    assert "text/html" in answer.headers["content-type"]


async def test_pages_load_and_embed_nothing_foreign(policy: Policy) -> None:
    await policy.add("wiki")
    await policy.api.put("/api/policy/servers/wiki/tools", json={"tools": ["read"]})
    await policy.api.put("/api/policy/rules/r", json={"name": "R"})
    await policy.api.put("/api/policy/quotas/q", json={"name": "Q", "of": "user", "per_day": 1})
    await policy.api.put("/api/policy/switches/tool/wiki/read", json={"reason": "leaks"})
    for path in (
        "/servers",
        "/servers/wiki",
        "/servers/wiki/tools",
        "/servers/wiki/tool?name=read",
        "/servers/switches",
        "/groups",
        "/groups/default",
        "/groups/default/members?q=a",
        "/groups/default/members/move?user=ada",
        "/groups/rules",
        "/groups/rules/_new",
        "/groups/rules/r",
        "/groups/quotas",
        "/groups/quotas/_new",
        "/groups/quotas/q",
        "/groups/explain?user=ada",
        "/groups/explain?user=ada&server=wiki&name=read",
    ):
        page = await policy.browser.get(path)
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page.text)
        assert not re.search(r"<[^>]+\s(?:style|on\w+)=", page.text)

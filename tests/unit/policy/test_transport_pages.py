"""The pages for servers that are commands, and for prompts and resources."""

import html
import re
from typing import Any

import pytest

from services.policy.console.texts import (
    command_of,
    environment_of,
    text_of_command,
    text_of_environment,
)
from tests.unit.policy.conftest import Policy

FORM = {
    "name": "Tools",
    "slug": "tools",
    "transport": "stdio",
    "command": "npx -y\r\n  'a b' --flag=\"c d\"",
    "environment": "LOG_LEVEL=info\r\n\r\nMODE = a=b \r\n",
    "processes": "user",
    "idle_stop": "30",
}


async def _server(policy: Policy, slug: str = "tools") -> dict[str, Any]:
    found: dict[str, Any] = (await policy.api.get(f"/api/policy/servers/{slug}")).json()
    return found


def _section(page: str, legend: str) -> str:
    """What stands in the fieldset of that name."""
    start = page.index(f"<legend>{legend}</legend>")
    return html.unescape(page[start : page.index("</fieldset>", start)])


def _hidden(page: str) -> dict[str, str]:
    """The fields that a form on the page sends without being asked."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page)
    return {name: html.unescape(value) for name, value in found}


async def test_a_command_is_added_by_the_form_and_shown_as_what_came_of_it(policy: Policy) -> None:
    answer = await policy.browser.post("/servers", data=FORM)
    assert answer.headers["location"] == "/servers/tools"
    server = await _server(policy)
    assert server["command"] == ["npx", "-y", "a b", "--flag=c d"]
    assert server["environment"] == {"LOG_LEVEL": "info", "MODE": "a=b"}
    assert (server["processes"], server["idle_stop"], server["url"]) == ("user", 30, "")
    page = (await policy.browser.get("/servers/tools")).text
    for part in server["command"]:
        assert f"<code>{part}</code>" in page
    assert "One for each user, stopped after 30 idle seconds" in page


async def test_the_form_of_a_command_saves_it_as_it_was(policy: Policy) -> None:
    await policy.browser.post("/servers", data=FORM)
    before = await _server(policy)
    page = (await policy.browser.get("/servers/tools")).text
    fields = {
        name: html.unescape(found[1])
        for name in ("command", "environment")
        if (found := re.search(rf'<textarea name="{name}"[^>]*>(.*?)</textarea>', page, re.DOTALL))
    }
    form = FORM | fields | {"version": str(before["version"])}
    assert (await policy.browser.post("/servers/tools", data=form)).status_code == 303
    assert await _server(policy) == before


async def test_fields_of_another_transport_do_not_stand_in_the_way(policy: Policy) -> None:
    more = {"transport": "sse", "url": "https://old.example.com/sse", "bridge": "always"}
    await policy.browser.post("/servers", data=FORM | more)
    server = await _server(policy)
    assert (server["transport"], server["url"], server["command"]) == ("sse", more["url"], [])
    assert (server["bridge"], server["processes"]) == ("auto", "shared")


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("command", "npx 'a b", "No closing quotation"),
        ("command", "", "needs a command"),
        ("environment", "LOG_LEVEL", "NAME=value"),
        ("environment", "A=1\nA=2", "twice"),
        ("environment", "LOCKGATE_X=1", "Lockgate itself"),
        ("idle_stop", "never", "idle_stop"),
    ],
)
async def test_what_was_typed_comes_back_with_the_problem(
    policy: Policy, field: str, typed: str, said: str
) -> None:
    answer = await policy.browser.post("/servers", data=FORM | {field: typed})
    assert answer.status_code == 400
    page = html.unescape(answer.text)
    assert said in page
    assert f">{typed}</textarea>" in page or f'value="{typed}"' in page


@pytest.mark.parametrize(
    ("name", "warned"), [("GITHUB_TOKEN", True), ("apiKey", True), ("LOG_LEVEL", False), ("KEYBOARD", False)]
)
async def test_a_setting_that_looks_like_a_secret_is_pointed_out(
    policy: Policy, name: str, warned: bool
) -> None:
    await policy.add("tools", transport="stdio", url="", command=["npx"], environment={name: "x"})
    page = (await policy.browser.get("/servers/tools")).text
    assert ("looks like a secret" in page) == warned


async def test_the_page_of_a_server_shows_its_url_for_old_clients(policy: Policy) -> None:
    await policy.add("wiki")
    assert (
        "<code>http://127.0.0.1:8080/mcp/wiki/sse</code>" in (await policy.browser.get("/servers/wiki")).text
    )
    assert "<code>http://127.0.0.1:8080/mcp</code>" in (await policy.browser.get("/servers")).text


# -- prompts and resources ---------------------------------------------------------------------------

ACCESS = "/groups/default/servers/wiki"


async def test_what_is_named_by_hand_is_ticked_and_saved_by_the_form(policy: Policy) -> None:
    await policy.add("wiki", default_access="deny")
    names = {"tools": "read", "prompts": "ask\nsay", "resources": "wiki://a\nwiki://b/*"}
    await policy.browser.post("/servers/wiki/features", data=names)
    page = (await policy.browser.get("/groups/default")).text
    assert [_section(page, kind).count('type="checkbox"') for kind in ("Tools", "Prompts", "Resources")] == [
        1,
        2,
        2,
    ]
    assert "checked" not in _section(page, "Prompts")
    form = _hidden(page)
    ticks = {"mode": "deny", "prompts": ["say"], "resources": ["wiki://b/*"]}
    assert (await policy.browser.post(ACCESS, data=form | ticks)).status_code == 303
    group = (await policy.api.get("/api/policy/groups/default")).json()
    assert group["servers"]["wiki"] == {
        "default": "deny",
        "tools": {},
        "prompts": {"say": "allow"},
        "resources": {"wiki://a": "deny", "wiki://b/*": "allow"},
    }
    page = (await policy.browser.get("/groups/default")).text
    assert "2 chosen" in page
    assert _section(page, "Resources").count(" checked") == 1


async def test_a_resource_is_shown_as_the_longest_beginning_that_fits_it_has_it(policy: Policy) -> None:
    await policy.add("wiki")
    await policy.browser.post("/servers/wiki/features", data={"resources": "wiki://a/1\nwiki://b"})
    body = {"default": "deny", "resources": {"wiki://a/*": "allow"}}
    await policy.api.put("/api/policy/groups/default/servers/wiki", json=body)
    section = _section((await policy.browser.get("/servers/wiki")).text, "Resources")
    assert re.search(r'value="wiki://a/1" checked', section)
    assert not re.search(r'value="wiki://b" checked', section)
    assert "not listed by the server" in section


async def test_a_form_with_more_than_a_page_can_show_saves_the_rest_as_it_was(policy: Policy) -> None:
    await policy.add("wiki", default_access="deny")
    names = [f"tool-{number:03}" for number in range(400)]
    await policy.api.put("/api/policy/servers/wiki/tools", json={"tools": names})
    body = {"default": "deny", "tools": {names[-1]: "allow"}}
    await policy.api.put("/api/policy/groups/default/servers/wiki", json=body)
    page = (await policy.browser.get("/groups/default")).text
    section = _section(page, "Tools")
    assert "And 100 more" in section
    form = _hidden(page)
    ticked = re.findall(r'type="checkbox" name="tools" value="([^"]+)"', section)
    answer = await policy.browser.post(ACCESS, data=form | {"mode": "deny", "tools": ticked[:299]})
    assert answer.status_code == 303
    tools = (await policy.api.get("/api/policy/groups/default")).json()["servers"]["wiki"]["tools"]
    assert set(tools) == {*names[:299], names[-1]}


# -- texts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("npx",), ("sh", "-c", "a 'b' \"c\" $d | e\nf"), ("x", "", "-"), ("C:\\x",)]
)
def test_a_command_is_read_as_it_is_written(command: tuple[str, ...]) -> None:
    assert command_of(text_of_command(command)) == command


def test_an_environment_is_read_as_it_is_written() -> None:
    environment = {"A": "b=c", "D": "", "E": '"quoted" # and no comment'}
    assert environment_of(text_of_environment(environment)) == environment

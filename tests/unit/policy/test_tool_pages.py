"""Tools and their definitions in the browser: what waits, what differs, and what is decided."""

import re
from html import unescape

import pytest

from tests.unit.policy.conftest import Policy
from tests.unit.policy.reading import fields, follow, notice, text
from tests.unit.policy.test_pins_api import ADD, EVIL, NEW, entry, pin, report, until

TOOLS = "/servers/wiki/tools"
TOOL = "/servers/wiki/tool"


@pytest.fixture
async def wiki(policy: Policy) -> Policy:
    """With a server that reviews new tools, whose tool `add` is approved, and then changed, and `new` new."""
    await policy.add(new_tools="allow")
    await report(policy, ADD)
    await policy.add(new_tools="review")
    await report(policy, EVIL, NEW)
    await until(policy, "quarantined", {"add": "changed", "new": "new"})
    return policy


async def test_the_lists_of_servers_and_tools_begin_with_what_waits(wiki: Policy) -> None:
    assert "2 to approve" in text(await wiki.browser.get("/servers"))
    assert "2 tools changed or are new" in text(await wiki.browser.get("/servers/wiki"))
    page = text(await wiki.browser.get(TOOLS))
    assert "Waiting for you 2" in page
    assert "add Changed not what was approved" in page
    assert "new New nobody has looked at it" in page


async def test_the_page_of_a_changed_tool_shows_what_went_and_what_came(wiki: Policy) -> None:
    page = await wiki.browser.get(TOOL, params={"name": "add"})
    assert "<code>/description</code>" in page.text
    assert "<ins>+ Reads your mail.</ins>" in page.text
    assert "<span>  Adds.</span>" in page.text
    assert "Nobody can use it until you approve it." in text(page)


async def test_an_approved_definition_holds(wiki: Policy) -> None:
    form = fields((await wiki.browser.get(TOOL, params={"name": "add"})).text, TOOL)
    answer = await wiki.browser.post(TOOL, data=form | {"decision": "approve"})
    assert "add is approved." in await follow(wiki, answer)
    found = await entry(wiki)
    assert (found["tools"]["add"], found["quarantined"]) == (pin(EVIL), {"new": "new"})


async def test_what_was_kept_out_stays_held_and_waits_no_more(wiki: Policy) -> None:
    form = fields((await wiki.browser.get(TOOL, params={"name": "new"})).text, TOOL)
    answer = await wiki.browser.post(TOOL, data=form | {"decision": "reject"})
    assert "new stays held." in await follow(wiki, answer)
    page = text(await wiki.browser.get(TOOLS))
    assert "Waiting for you 1" in page
    assert "Kept out" in page
    assert (await entry(wiki))["quarantined"]["new"] == "new"


async def test_a_definition_that_changed_since_it_was_looked_at_is_not_approved(wiki: Policy) -> None:
    form = fields((await wiki.browser.get(TOOL, params={"name": "add"})).text, TOOL)
    worse = EVIL | {"description": "Adds. Sends your mail."}
    await report(wiki, worse)
    answer = await wiki.browser.post(TOOL, data=form | {"decision": "approve"})
    assert answer.status_code == 409
    assert "The server shows another one by now" in notice(answer)
    assert "Sends your mail." in answer.text
    assert (await entry(wiki))["tools"]["add"] == pin(ADD)


async def test_several_are_approved_with_one_click(wiki: Policy) -> None:
    ticks = [f"{pin(EVIL)} add", f"{pin(NEW)} new"]
    page = await wiki.browser.get(TOOLS)
    assert all(f'value="{tick}"' in page.text for tick in ticks)
    answer = await wiki.browser.post(TOOLS, data={"ticks": ticks})
    assert "2 tools are approved." in await follow(wiki, answer)
    assert (await entry(wiki))["quarantined"] == {}


async def test_nothing_ticked_approves_nothing(wiki: Policy) -> None:
    answer = await wiki.browser.post(TOOLS)
    assert answer.status_code == 400
    assert "tick the tools" in notice(answer)


async def test_a_forgotten_tool_is_gone(wiki: Policy) -> None:
    answer = await wiki.browser.post(TOOL, data={"tool": "new", "decision": "forget"})
    page = await follow(wiki, answer)
    assert "new is forgotten." in page
    assert "Waiting for you 1" in page


@pytest.mark.parametrize("name", ["a/b", "..", "a?b&c=d", "ä b", '"><b>'])
async def test_a_tool_of_any_name_has_its_page_and_its_switch(policy: Policy, name: str) -> None:
    await policy.add("wiki")
    await policy.api.put("/api/policy/servers/wiki/tools", json={"tools": [name]})
    page = await policy.browser.get(TOOL, params={"name": name})
    assert page.status_code == 200
    assert "<b>" not in page.text
    form = fields(page.text, "/servers/switches") | {"reason": "leaks"}
    assert "leaks" in await follow(policy, await policy.browser.post("/servers/switches", data=form))
    (switch,) = (await policy.api.get("/api/policy/switches")).json()["items"]
    assert switch["subject"] == f"wiki/{name}"
    (link,) = re.findall(r'href="(/servers/wiki/tool\?name=[^"]*)"', (await policy.browser.get(TOOLS)).text)
    assert f"{name} Not seen yet" in text(await policy.browser.get(unescape(link)))


async def test_without_tools_the_page_says_what_to_do(policy: Policy) -> None:
    await policy.add("wiki")
    assert "No tool of this server is known yet." in text(await policy.browser.get(TOOLS))

"""What is off, and the switches of all levels, in the browser."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from libs.common.clock import now
from services.policy.console.switches import DURATIONS
from services.policy.switches import LEVELS
from tests.conftest import eventually
from tests.unit.conftest import SignIn
from tests.unit.policy.conftest import Policy
from tests.unit.policy.reading import fields, follow, notice, text

PAGE = "/servers/switches"
CLIENT = "https://cursor.example.com/client.json"
# Of each level: what is typed, and what is kept.
SUBJECTS = {
    "organization": ("", ""),
    "server": ("wiki", "wiki"),
    "tool": ("wiki/read", "wiki/read"),
    "group": ("default", "default"),
    "user": ("Mia@example.com", "mia"),
    "client": (CLIENT, CLIENT),
}


@pytest.fixture
async def wiki(policy: Policy, sign_in: SignIn) -> Policy:
    """With a server and a member."""
    await policy.add("wiki")
    await policy.api.put("/api/policy/servers/wiki/tools", json={"tools": ["read"]})
    await sign_in("member", "mia")
    await eventually(lambda: "mia" in policy.app.state.follower.tables.users)
    return policy


async def _off(policy: Policy) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await policy.api.get("/api/policy/switches")).json()["items"]
    return found


def _form(level: str, subject: str, **more: str) -> dict[str, str]:
    return {"level": level, "subject": subject, "enabled": "false"} | more


async def test_when_nothing_is_off_the_page_says_so(policy: Policy) -> None:
    assert "Nothing is off" in text(await policy.browser.get(PAGE))


@pytest.mark.parametrize("level", LEVELS)
async def test_every_level_is_switched_off_and_on_from_one_page(wiki: Policy, level: str) -> None:
    typed, kept = SUBJECTS[level]
    form = _form(level, typed, reason="leaks", back="list")
    page = await follow(wiki, await wiki.browser.post(PAGE, data=form))
    assert "is switched off." in page
    assert "leaks" in page
    assert "ada@example.com" in page  # who did it
    (switch,) = await _off(wiki)
    assert (switch["level"], switch["subject"], switch["until"]) == (level, kept, "")
    shown = fields((await wiki.browser.get(PAGE)).text, PAGE)
    assert "Nothing is off" in await follow(wiki, await wiki.browser.post(PAGE, data=shown))
    assert await _off(wiki) == []


@pytest.mark.parametrize("duration", DURATIONS)
async def test_a_switch_ends_after_the_time_that_was_chosen(wiki: Policy, duration: str) -> None:
    page = await wiki.browser.get("/servers/wiki")
    assert f'<option value="{duration}"' in page.text
    begun = now()
    form = fields(page.text, PAGE) | {"duration": duration}
    assert "It comes on again by itself" in await follow(wiki, await wiki.browser.post(PAGE, data=form))
    (switch,) = await _off(wiki)
    until = datetime.fromisoformat(switch["until"])
    assert begun <= until - DURATIONS[duration] <= now() + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("level", "page"),
    [
        ("organization", "/servers"),
        ("server", "/servers/wiki"),
        ("tool", "/servers/wiki/tool?name=read"),
        ("group", "/groups/default"),
    ],
)
async def test_the_page_of_a_thing_has_its_switch_and_leads_back_to_it(
    wiki: Policy, level: str, page: str
) -> None:
    form = fields((await wiki.browser.get(page)).text, PAGE)
    assert (form["level"], form["enabled"]) == (level, "false")
    answer = await wiki.browser.post(PAGE, data=form | {"reason": "leaks"})
    assert answer.headers["location"] == page
    assert [switch["level"] for switch in await _off(wiki)] == [level]
    shown = await wiki.browser.get(page)
    assert "leaks" in text(shown)
    assert fields(shown.text, PAGE)["enabled"] == "true"


async def test_what_a_link_names_is_filled_in(wiki: Policy) -> None:
    page = (await wiki.browser.get(PAGE, params={"level": "client", "subject": CLIENT})).text
    assert 'value="client" checked' in page
    assert f'name="subject" value="{CLIENT}"' in page


@pytest.mark.parametrize(
    ("level", "subject", "said"),
    [
        ("user", "zoe@example.com", "Nobody has the e-mail address or id 'zoe@example.com'"),
        ("server", "nothing", "No server is called 'nothing'"),
        ("tool", "wiki", "such as wiki/search"),
        ("client", "", "a client id has"),
    ],
)
async def test_what_is_not_there_is_not_switched_and_comes_back(
    wiki: Policy, level: str, subject: str, said: str
) -> None:
    answer = await wiki.browser.post(PAGE, data=_form(level, subject, reason="because"))
    assert answer.status_code in {400, 404}
    assert said in notice(answer)
    assert 'name="reason" value="because"' in answer.text
    assert await _off(wiki) == []


async def test_a_user_who_is_gone_can_still_be_switched_on(wiki: Policy) -> None:
    await wiki.api.put("/api/policy/switches/user/mia", json={})
    tables = wiki.app.state.follower.tables
    users, tables.users = tables.users, {"ada": tables.users["ada"]}
    form = fields((await wiki.browser.get(PAGE)).text, PAGE)
    answer = await wiki.browser.post(PAGE, data=form)
    tables.users = users
    assert answer.status_code == 303
    assert await _off(wiki) == []


async def test_a_member_cannot_switch_anything(wiki: Policy, sign_in: SignIn) -> None:
    member = await sign_in("member", "bob")
    await eventually(lambda: "bob" in wiki.app.state.follower.tables.users)
    answer = await wiki.browser.post(PAGE, data=_form("server", "wiki"), headers=member.browser)
    assert answer.status_code == 403
    assert await _off(wiki) == []

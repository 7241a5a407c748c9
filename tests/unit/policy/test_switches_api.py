"""Switches of every level through the API."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.control.entries import client_key
from libs.common.errors import BadRequest
from services.policy.switches import LEVELS, Level, check_subject, entry_key
from tests.conftest import eventually
from tests.unit.conftest import Shipped, SignIn
from tests.unit.policy.conftest import Policy
from tests.unit.records import admin_events

SWITCHES = "/api/policy/switches"
CLIENT = "https://agent.example.com/client.json?v=1"
LATER = "2999-01-01T02:00:00+02:00"
LATER_IN_UTC = "2999-01-01T00:00:00.000000Z"

# Path, key of the control log, and where in its entry the switch stands.
Place = Callable[[dict[str, Any]], Any]
PLACES: dict[str, tuple[str, str, Place]] = {
    "organization": ("organization/", "org", lambda entry: entry),
    "server": ("server/wiki", "server.wiki", lambda entry: entry),
    "tool": ("tool/wiki/pages/delete", "server.wiki", lambda entry: entry["tools_off"].get("pages/delete")),
    "group": ("group/finance", "group.finance", lambda entry: entry),
    "user": ("user/mia", "member.mia", lambda entry: entry),
    "client": (f"client/{CLIENT.replace('?', '%3F')}", f"client.{client_key(CLIENT)}", lambda entry: entry),
}
levels = pytest.mark.parametrize(("path", "key", "place"), PLACES.values(), ids=PLACES.keys())


@pytest.fixture
async def house(policy: Policy, sign_in: SignIn) -> Policy:
    """Something to switch off at each level."""
    await policy.add("wiki")
    await policy.api.put("/api/policy/groups/finance", json={"name": "Finance"})
    await sign_in("member", "mia")
    await eventually(lambda: "mia" in policy.app.state.follower.tables.users)
    return policy


def test_there_is_a_place_for_every_level() -> None:
    assert set(PLACES) == set(LEVELS)


@levels
async def test_what_is_switched_off_stands_in_the_log_with_reason_and_end(
    house: Policy, path: str, key: str, place: Place
) -> None:
    answer = await house.api.put(f"{SWITCHES}/{path}", json={"reason": "audit", "until": LATER})
    assert answer.status_code == 200, answer.text
    assert answer.json()["receipt"]["complete"]
    entry = await house.control.get(key)
    assert entry is not None
    off = place(entry)
    assert (off["reason"], off["until"]) == ("audit", LATER_IN_UTC)
    assert off.get("enabled", False) is False


@levels
async def test_what_is_switched_on_again_is_as_it_was_before(
    house: Policy, path: str, key: str, place: Place
) -> None:
    before = await house.control.get(key)
    await house.api.put(f"{SWITCHES}/{path}", json={"reason": "audit"})
    answer = await house.api.delete(f"{SWITCHES}/{path}")
    assert (answer.status_code, answer.json()["receipt"]["complete"]) == (200, True)
    after = await house.control.get(key)
    assert _without_version(after) == _without_version(before)
    assert (await house.api.get(f"{SWITCHES}/{path}")).status_code == 404


def _without_version(entry: dict[str, Any] | None) -> dict[str, Any] | None:
    return entry and {name: value for name, value in entry.items() if name != "version"}


@levels
async def test_an_entry_has_a_new_version_with_each_change_of_its_switch(
    house: Policy, path: str, key: str, place: Place
) -> None:
    versions = [(await house.control.get(key) or {"version": 0})["version"]]
    for reason in ("one", "two"):
        await house.api.put(f"{SWITCHES}/{path}", json={"reason": reason})
        versions.append((await house.control.get(key) or {})["version"])
    assert versions == sorted(set(versions))


@levels
async def test_both_ways_are_recorded_with_who_and_why(
    house: Policy, shipped: Shipped, path: str, key: str, place: Place
) -> None:
    off = await house.api.put(f"{SWITCHES}/{path}", json={"reason": "audit", "until": LATER})
    on = await house.api.delete(f"{SWITCHES}/{path}")
    disabled, enabled = (await admin_events(shipped, 4))[2:]
    level = path.partition("/")[0]
    assert [disabled["event"], enabled["event"]] == [f"{level}_disabled", f"{level}_enabled"]
    assert {disabled["subject"], enabled["subject"]} == {key}
    assert {disabled["actor"], enabled["actor"]} == {"ada"}
    assert (disabled["before"], enabled["after"]) == ("", "")
    told = json.loads(disabled["after"])
    assert (told["level"], told["reason"], told["until"]) == (level, "audit", LATER_IN_UTC)
    assert enabled["before"] == disabled["after"]
    revisions = [answer.json()["receipt"]["revision"] for answer in (off, on)]
    assert [disabled["revision"], enabled["revision"]] == revisions


async def test_all_that_is_off_is_listed_page_by_page(house: Policy) -> None:
    for path, _, _ in PLACES.values():
        await house.api.put(f"{SWITCHES}/{path}", json={"reason": "audit"})
    seen: list[tuple[str, str]] = []
    after: str | None = ""
    while after is not None:
        page = (await house.api.get(SWITCHES, params={"limit": 2, "after": after})).json()
        assert all((item["changed_by"], item["reason"]) == ("ada", "audit") for item in page["items"])
        seen += [(item["level"], item["subject"]) for item in page["items"]]
        after = page["next"]
    assert seen == [
        ("client", CLIENT),
        ("group", "finance"),
        ("organization", ""),
        ("server", "wiki"),
        ("tool", "wiki/pages/delete"),
        ("user", "mia"),
    ]


async def test_another_reason_keeps_since_when_and_the_same_one_changes_nothing(house: Policy) -> None:
    path = f"{SWITCHES}/server/wiki"
    first = (await house.api.put(path, json={"reason": "one"})).json()
    again = (await house.api.put(path, json={"reason": "one"})).json()
    other = (await house.api.put(path, json={"reason": "two"})).json()
    assert again["version"] == first["version"]
    assert other["version"] > first["version"]
    assert other["since"] == first["since"]
    assert (await house.api.get(path)).json()["reason"] == "two"


async def test_a_switch_that_somebody_else_turned_is_not_turned(house: Policy) -> None:
    path = f"{SWITCHES}/server/wiki"
    tag = (await house.api.put(path, json={"reason": "one"})).headers["etag"]
    assert (await house.api.put(path, json={}, headers={"If-None-Match": "*"})).status_code == 409
    await house.api.put(path, json={"reason": "two"}, headers={"If-Match": tag})
    for late in (
        await house.api.put(path, json={"reason": "three"}, headers={"If-Match": tag}),
        await house.api.delete(path, headers={"If-Match": tag}),
    ):
        assert late.status_code == 412
    assert (await house.api.get(path)).json()["reason"] == "two"


async def test_the_older_routes_turn_the_same_switches(house: Policy) -> None:
    body = {"enabled": False, "reason": "audit", "until": LATER}
    server = (await house.api.put("/api/policy/servers/wiki/switch", json=body)).json()
    organization = (await house.api.put("/api/policy/organization/switch", json=body)).json()
    assert server["until"] == organization["until"] == LATER_IN_UTC
    listed = (await house.api.get(SWITCHES)).json()["items"]
    assert [item["level"] for item in listed] == ["organization", "server"]
    for item in listed:
        await house.api.delete(f"{SWITCHES}/{item['level']}/{item['subject']}")
    assert (await house.api.get("/api/policy/servers/wiki")).json()["enabled"] is True
    assert (await house.api.get("/api/policy/organization")).json()["enabled"] is True


async def test_a_member_who_was_moved_and_switched_off_keeps_the_group(house: Policy) -> None:
    await house.api.put("/api/policy/members/mia", json={"group": "finance"})
    await house.api.put(f"{SWITCHES}/user/mia", json={"reason": "lost laptop"})
    member = (await house.api.get("/api/policy/members/mia")).json()
    assert (member["group"], member["enabled"], member["reason"]) == ("finance", False, "lost laptop")
    await house.api.put("/api/policy/members/mia", json={"group": "default"})
    entry = await house.control.get("member.mia")
    assert entry is not None
    assert (entry["group"], entry["enabled"]) == ("default", False)


async def test_a_server_that_is_deleted_takes_its_switches_with_it(house: Policy) -> None:
    await house.add("wiki-2")
    for path in ("server/wiki", "tool/wiki/search", "tool/wiki-2/search"):
        await house.api.put(f"{SWITCHES}/{path}", json={})
    await house.api.delete("/api/policy/servers/wiki")
    left = (await house.api.get(SWITCHES)).json()["items"]
    assert [item["subject"] for item in left] == ["wiki-2/search"]
    assert (await house.add("wiki"))["tools_off"] == {}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("server/nothing", 404),
        ("tool/nothing/search", 404),
        ("group/nothing", 404),
        ("user/nobody", 404),
        ("organization/wiki", 400),
        ("server/a.b", 400),
        ("server/", 400),
        ("tool/wiki", 400),
        ("tool/wiki/", 400),
        ("group/%3E", 400),
        ("user/%2A", 400),
        ("client/", 400),
        ("planet/earth", 400),
    ],
)
async def test_what_is_not_there_cannot_be_switched_off(house: Policy, path: str, status: int) -> None:
    answer = await house.api.put(f"{SWITCHES}/{path}", json={})
    assert answer.status_code == status, answer.text
    assert (await house.api.get(SWITCHES)).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"until": "2001-01-01T00:00:00Z"}, "in the future"),
        ({"until": "2999-01-01T00:00:00"}, "until"),
        ({"until": "tomorrow"}, "until"),
        ({"reason": "x" * 501}, "500"),
        ({"reason": "a\nb"}, "printable"),
        ({"reasons": "x"}, "reasons"),
    ],
)
async def test_an_end_or_reason_that_cannot_be_is_refused(
    house: Policy, body: dict[str, Any], said: str
) -> None:
    answer = await house.api.put(f"{SWITCHES}/server/wiki", json=body)
    assert answer.status_code == 400
    assert said in answer.text
    assert (await house.api.get("/api/policy/servers/wiki")).json()["enabled"] is True


async def test_a_server_has_only_so_many_tools_that_are_off(
    house: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.policy.store.switch_rows.TOOLS_OFF_PER_SERVER", 2)
    for tool in ("a", "b"):
        assert (await house.api.put(f"{SWITCHES}/tool/wiki/{tool}", json={})).status_code == 200
    refused = await house.api.put(f"{SWITCHES}/tool/wiki/c", json={})
    assert (refused.status_code, "switch the server off" in refused.json()["detail"]) == (400, True)
    changed = await house.api.put(f"{SWITCHES}/tool/wiki/b", json={"reason": "other"})
    assert changed.status_code == 200, "one that is off already is none more"


async def test_only_administrators_turn_switches(house: Policy, sign_in: SignIn) -> None:
    path = f"{SWITCHES}/server/wiki"
    for role in ("member", "auditor"):
        person = await sign_in(role)
        await eventually(partial(house.app.state.follower.tables.users.get, person.user.id))
        assert (await house.api.put(path, json={}, headers=person.script)).status_code == 403
        assert (await house.api.delete(path, headers=person.script)).status_code == 403


@given(level=st.sampled_from(LEVELS), subject=st.text(max_size=80))
def test_whatever_is_taken_as_a_subject_names_one_key_of_the_log(level: Level, subject: str) -> None:
    try:
        check_subject(level, subject)
    except BadRequest:
        return
    tokens = entry_key(level, subject).split(".")
    assert len(tokens) == (1 if level == "organization" else 2)
    assert all(token and token.isascii() and not set(token) & set(" *>\t\r\n\0") for token in tokens)

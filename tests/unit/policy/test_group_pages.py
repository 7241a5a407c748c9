"""Groups and their members in the browser: made, filled, switched off, deleted, and explained."""

import pytest

from libs.common.control.entries import User
from services.policy.names import RESERVED_GROUPS, RESERVED_SLUGS
from tests.conftest import eventually
from tests.unit.conftest import Person, Shipped, SignIn
from tests.unit.policy.conftest import Policy
from tests.unit.policy.past import past_call, tell_past
from tests.unit.policy.reading import fields, follow, notice, text
from tests.unit.records import admin_events

MEMBERS = "/groups/finance/members"
EXPLAIN = "/groups/explain"


@pytest.fixture
async def mia(policy: Policy, sign_in: SignIn) -> Person:
    """A user of whom policy's tables know, a group `finance` that nobody is in, and two servers: everybody
    may use `wiki`, and finance only `crm`."""
    person = await sign_in("member", "mia")
    await policy.add("wiki", default_access="allow")
    await policy.add("crm")
    await policy.api.put("/api/policy/servers/crm/tools", json={"tools": ["deals"]})
    await policy.api.put("/api/policy/groups/finance", json={"name": "Finance"})
    access = {"default": "deny", "tools": {"deals": "allow"}}
    await policy.api.put("/api/policy/groups/finance/servers/crm", json=access)
    tables = policy.app.state.follower.tables
    await eventually(lambda: "mia" in tables.users and "crm" in tables.servers)
    return person


async def _group_of(policy: Policy, user: str) -> str:
    group: str = (await policy.api.get(f"/api/policy/members/{user}")).json()["group"]
    return group


async def _moved(policy: Policy, user: str, group: str, back: str = "") -> str:
    """The text of the page that comes when the question is answered with yes."""
    path = f"/groups/{group}/members"
    page = await policy.browser.get(f"{path}/move", params={"user": user} | ({"back": back} if back else {}))
    return await follow(policy, await policy.browser.post(path, data=fields(page.text, path)))


# -- groups ------------------------------------------------------------------------------------------


async def test_a_group_gets_an_id_from_its_name_and_may_use_nothing(policy: Policy) -> None:
    answer = await policy.browser.post("/groups", data={"name": "Sales & Support"})
    assert answer.headers["location"] == "/groups/sales-support"
    assert "It may use nothing yet." in await follow(policy, answer)
    group = (await policy.api.get("/api/policy/groups/sales-support")).json()
    assert (group["name"], group["servers"]) == ("Sales & Support", {})


async def test_a_group_that_is_there_is_not_made_again(policy: Policy, mia: Person) -> None:
    answer = await policy.browser.post("/groups", data={"name": "Other", "id": "finance"})
    assert answer.status_code == 409
    assert "There is a group with this id already" in notice(answer)
    assert 'value="Other"' in answer.text
    assert (await policy.api.get("/api/policy/groups/finance")).json()["name"] == "Finance"


@pytest.mark.parametrize("id", sorted(RESERVED_GROUPS))
async def test_no_group_is_called_as_a_page_beside_those_of_groups(policy: Policy, id: str) -> None:
    answer = await policy.api.put(f"/api/policy/groups/{id}", json={"name": "Mine"})
    assert answer.status_code == 400
    assert (await policy.browser.get(f"/groups/{id}")).status_code == 200


@pytest.mark.parametrize("slug", sorted(RESERVED_SLUGS))
async def test_no_server_is_called_as_a_page_beside_those_of_servers(policy: Policy, slug: str) -> None:
    body = {"name": "Mine", "url": "https://mine.example.com/mcp"}
    assert (await policy.api.put(f"/api/policy/servers/{slug}", json=body)).status_code == 400


async def test_the_list_says_how_many_are_in_each_group(policy: Policy, mia: Person) -> None:
    await _moved(policy, "mia", "finance")
    page = text(await policy.browser.get("/groups"))
    assert "Everyone default default 1 1" in page
    assert "Finance finance 1 1" in page


async def test_deleting_a_group_says_where_its_members_go_and_moves_them(policy: Policy, mia: Person) -> None:
    await _moved(policy, "mia", "finance")
    page = await policy.browser.get("/groups/finance")
    assert "Its 1 member goes to Everyone" in text(page)
    form = fields(page.text, "/groups/finance/delete")
    assert "Finance is deleted." in await follow(
        policy, await policy.browser.post("/groups/finance/delete", data=form)
    )
    assert await _group_of(policy, "mia") == "default"
    assert (await policy.browser.get("/groups/finance")).status_code == 404


async def test_the_page_of_the_default_group_offers_no_deletion(policy: Policy) -> None:
    assert 'action="/groups/default/delete"' not in (await policy.browser.get("/groups/default")).text


async def test_a_group_is_deleted_only_as_it_was_seen(policy: Policy, mia: Person) -> None:
    page = await policy.browser.get("/groups/finance")
    await policy.api.put("/api/policy/groups/finance", json={"name": "Money"})
    form = fields(page.text, "/groups/finance/delete")
    assert (await policy.browser.post("/groups/finance/delete", data=form)).status_code == 412
    assert (await policy.api.get("/api/policy/groups/finance")).status_code == 200


# -- members -----------------------------------------------------------------------------------------


async def test_people_are_found_by_parts_of_name_and_address(policy: Policy, mia: Person) -> None:
    page = text(await policy.browser.get(MEMBERS, params={"q": "MIA example"}))
    assert "Mia mia@example.com Everyone" in page
    assert "ada@example.com" not in page
    nobody = text(await policy.browser.get(MEMBERS, params={"q": "zoe"}))
    assert "Nobody in another group fits “zoe”" in nobody
    assert "No member fits “zoe”" in nobody


async def test_before_somebody_is_moved_the_page_says_what_that_does_and_changes_nothing(
    policy: Policy, mia: Person
) -> None:
    page = text(await policy.browser.get(f"{MEMBERS}/move", params={"user": "mia"}))
    assert "Move Mia to Finance?" in page
    assert "mia@example.com is in Everyone now." in page
    assert "Crm tool deals —" in page
    assert "Wiki — what appears later" in page
    assert await _group_of(policy, "mia") == "default"


async def test_moving_ends_on_the_page_of_the_group_with_its_receipt(policy: Policy, mia: Person) -> None:
    page = await _moved(policy, "mia", "finance")
    assert "mia@example.com is in Finance now." in page
    assert "Members of Finance" in page
    assert "Mia mia@example.com On" in page
    assert await _group_of(policy, "mia") == "finance"


async def test_removing_somebody_moves_them_to_the_default_group(policy: Policy, mia: Person) -> None:
    await _moved(policy, "mia", "finance")
    page = await policy.browser.get(MEMBERS)
    assert "/groups/default/members/move?user=mia&amp;back=finance" in page.text
    after = await _moved(policy, "mia", "default", back="finance")
    assert "Members of Finance" in after
    assert "Nobody is in this group yet." in after
    assert await _group_of(policy, "mia") == "default"


async def test_who_was_moved_meanwhile_is_not_moved(policy: Policy, mia: Person) -> None:
    page = await policy.browser.get(f"{MEMBERS}/move", params={"user": "mia"})
    await policy.api.put("/api/policy/groups/legal", json={"name": "Legal"})
    await policy.api.put("/api/policy/members/mia", json={"group": "legal"})
    answer = await policy.browser.post(MEMBERS, data=fields(page.text, MEMBERS))
    assert answer.status_code == 412
    assert await _group_of(policy, "mia") == "legal"


async def test_a_rule_for_a_group_counts_where_both_groups_may_use_the_same(
    policy: Policy, mia: Person
) -> None:
    access = (await policy.api.get("/api/policy/groups/default")).json()["servers"]["wiki"]
    await policy.api.put("/api/policy/groups/finance/servers/wiki", json=access)
    await policy.api.put("/api/policy/servers/wiki/tools", json={"tools": ["read"]})
    rule = {"name": "No wiki", "scope": "group", "scope_id": "finance", "servers": ["wiki"]}
    await policy.api.put("/api/policy/rules/no-wiki", json=rule)
    await eventually(lambda: "no-wiki" in policy.app.state.follower.tables.rules)
    page = text(await policy.browser.get(f"{MEMBERS}/move", params={"user": "mia"}))
    assert "Wiki — tool read, and what appears later" in page


async def test_many_members_are_shown_page_by_page(policy: Policy) -> None:
    for number in range(60):
        email = f"u{number:02}@example.com"
        await policy.control.put(User(version=1, id=f"x{59 - number:02}", email=email))
    await eventually(lambda: len(policy.app.state.follower.tables.users) == 61)
    first = await policy.browser.get("/groups/default/members", params={"q": "u"})
    assert "u49@example.com" in first.text
    assert "u50@example.com" not in first.text
    second = await policy.browser.get(
        "/groups/default/members", params={"q": "u", "after": "u49@example.com"}
    )
    assert "u50@example.com" in second.text
    assert "Next page" not in second.text


# -- access, tried before it is saved ----------------------------------------------------------------


async def test_a_change_of_access_is_tried_on_recorded_calls_and_not_saved(
    policy: Policy, shipped: Shipped, mia: Person
) -> None:
    await tell_past(policy, past_call("read"), past_call("write"))
    await policy.api.put("/api/policy/servers/wiki/tools", json={"tools": ["read", "write"]})
    action = "/groups/default/servers/wiki"
    form = fields((await policy.browser.get("/groups/default")).text, action)
    answer = await policy.browser.post(
        action, data=form | {"mode": "deny", "tools": ["read"], "action": "try"}
    )
    assert answer.status_code == 200
    page = text(answer)
    assert "1 would be denied that are allowed now" in page
    assert "wiki/write allowed tool denied" in page
    assert fields(answer.text, action)["version"] == form["version"]
    group = (await policy.api.get("/api/policy/groups/default")).json()
    assert group["servers"]["wiki"]["default"] == "allow"
    assert (await admin_events(shipped, 7))[-1]["event"] == "calls_replayed"


async def test_without_the_records_the_page_says_that_it_could_not_be_tried(
    policy: Policy, mia: Person
) -> None:
    action = "/groups/default/servers/wiki"
    form = fields((await policy.browser.get("/groups/default")).text, action)
    answer = await policy.browser.post(action, data=form | {"mode": "none", "action": "try"})
    assert answer.status_code == 503
    assert "It could not be tried" in notice(answer)
    assert 'value="none" checked' in answer.text


# -- seen as a user ----------------------------------------------------------------------------------


async def test_what_a_user_sees_is_shown_server_by_server(policy: Policy, mia: Person) -> None:
    await policy.api.put("/api/policy/servers/crm/tools", json={"tools": ["deals", "people"]})
    await _moved(policy, "mia", "finance")
    tables = policy.app.state.follower.tables
    await eventually(lambda: "mia" in tables.members and "people" in tables.servers["crm"].tools)
    page = text(await policy.browser.get(EXPLAIN, params={"user": "mia@example.com"}))
    assert "in the group Finance" in page
    assert "Crm deals 1" in page
    assert "Wiki —" not in page


async def test_a_call_is_explained_rung_by_rung(policy: Policy, mia: Person) -> None:
    rule = {
        "name": "No secrets",
        "condition": "arguments.text.contains('secret')",
        "message": "Not for reading.",
    }
    await policy.api.put("/api/policy/rules/secrets", json=rule)
    await eventually(lambda: "secrets" in policy.app.state.follower.tables.rules)
    asked = {"user": "mia@example.com", "server": "wiki", "name": "read"}
    denied = text(await policy.browser.get(EXPLAIN, params=asked | {"arguments": '{"text": "a secret"}'}))
    assert "Refused rule_denied" in denied
    assert "Do the rules allow it? No. Not for reading." in denied
    assert "Is there a credential, if the server needs one? Not asked any more." in denied
    allowed = text(await policy.browser.get(EXPLAIN, params=asked | {"arguments": '{"text": "a word"}'}))
    assert "Allowed" in allowed
    assert "Refused" not in allowed


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"user": "zoe@example.com"}, "Nobody has the e-mail address or id 'zoe@example.com'"),
        (
            {"user": "ada", "server": "wiki", "name": "x", "arguments": "[1]"},
            "arguments must be a JSON object",
        ),
    ],
)
async def test_a_question_that_makes_no_sense_comes_back_with_the_problem(
    policy: Policy, asked: dict[str, str], said: str
) -> None:
    answer = await policy.browser.get(EXPLAIN, params=asked)
    assert answer.status_code in {400, 404}
    assert said in notice(answer)


@pytest.mark.parametrize("path", ["/groups", MEMBERS, f"{MEMBERS}/move?user=mia", EXPLAIN, "/groups/rules"])
async def test_these_pages_are_for_administrators(policy: Policy, mia: Person, path: str) -> None:
    answer = await policy.browser.get(path, headers=mia.browser)
    assert answer.status_code == 403
    assert "Finance" not in answer.text

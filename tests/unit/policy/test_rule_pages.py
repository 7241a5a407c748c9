"""Rules and quotas in the browser: written, tried, saved, changed and deleted."""

from typing import Any

import pytest

from libs.common.decision.conditions import VARIABLES, condition
from tests.conftest import eventually
from tests.unit.policy.conftest import Policy
from tests.unit.policy.past import past_call, tell_past
from tests.unit.policy.reading import fields, follow, notice, text

RULES, QUOTAS = "/groups/rules", "/groups/quotas"
RULE: dict[str, Any] = {
    "name": "No secrets",
    "effect": "deny",
    "priority": "5",
    "scope": "organization",
    "servers": ["wiki"],
    "tools": "read, write\r\nlist",
    "condition": "arguments.text\r\n  .contains('secret')\r\n",
    "message": "Not for reading.",
    "enabled": "true",
}
QUOTA = {"name": "Each user", "of": "user", "per_minute": "60", "per_day": ""}


@pytest.fixture
async def wiki(policy: Policy) -> Policy:
    """With a server that everybody may use."""
    await policy.add("wiki", default_access="allow")
    await eventually(lambda: "wiki" in policy.app.state.follower.tables.servers)
    return policy


async def _rule(policy: Policy, id: str = "no-secrets") -> dict[str, Any]:
    answer = await policy.api.get(f"/api/policy/rules/{id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_without_rules_the_page_says_what_they_are_for(policy: Policy) -> None:
    assert "No rules yet" in text(await policy.browser.get(RULES))
    assert "No quotas yet" in text(await policy.browser.get(QUOTAS))


async def test_a_rule_is_saved_as_it_was_typed(wiki: Policy) -> None:
    page = await follow(wiki, await wiki.browser.post(RULES, data=RULE))
    assert "The rule No secrets is saved." in page
    assert "5 No secrets Deny Everybody wiki: read, write, list" in page
    rule = await _rule(wiki)
    assert (rule["priority"], rule["servers"], rule["tools"]) == (5, ["wiki"], ["read", "write", "list"])
    assert rule["condition"] == "arguments.text\n  .contains('secret')"
    assert rule["enabled"]


async def test_the_editor_saves_a_rule_as_it_was(wiki: Policy) -> None:
    await wiki.browser.post(RULES, data=RULE)
    before = await _rule(wiki)
    page = (await wiki.browser.get(f"{RULES}/no-secrets")).text
    form = RULE | fields(page, f"{RULES}/no-secrets")
    assert (await wiki.browser.post(f"{RULES}/no-secrets", data=form)).status_code == 303
    assert await _rule(wiki) == before


async def test_a_mistake_in_a_condition_is_shown_where_it_is(wiki: Policy) -> None:
    form = RULE | {"condition": "tool == 'read' &&\r\n  argumets.text == ''"}
    answer = await wiki.browser.post(RULES, data=form)
    assert answer.status_code == 400
    assert "line 2, column 3: there is no variable 'argumets'" in notice(answer)
    assert '<pre class="mistake" id="mistake">  argumets.text == &#39;&#39;\n  ↑</pre>' in answer.text
    assert "argumets.text" in answer.text.split('name="condition"')[1].split("</textarea>")[0]
    assert (await wiki.api.get("/api/policy/rules/no-secrets")).status_code == 404


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"priority": "high"}, "whole number"),
        ({"scope": "group"}, "scope_id"),
        ({"scope": "user", "user": "zoe@example.com"}, "Nobody has the e-mail address"),
        ({"name": ""}, "id of a rule"),
        ({"servers": ["nothing"]}, "No server is called 'nothing'"),
    ],
)
async def test_what_cannot_be_a_rule_comes_back_with_the_problem(
    wiki: Policy, typed: dict[str, Any], said: str
) -> None:
    answer = await wiki.browser.post(RULES, data=RULE | typed)
    assert answer.status_code in {400, 404}
    assert said in notice(answer)
    assert "Not for reading." in answer.text


async def test_the_user_of_a_rule_is_named_by_address(wiki: Policy) -> None:
    form = RULE | {"scope": "user", "user": "ada@example.com"}
    assert "No secrets Deny ada@example.com" in await follow(wiki, await wiki.browser.post(RULES, data=form))
    assert (await _rule(wiki))["scope_id"] == "ada"
    assert 'name="user" value="ada@example.com"' in (await wiki.browser.get(f"{RULES}/no-secrets")).text


async def test_a_rule_that_is_there_is_not_overwritten_by_a_new_one(wiki: Policy) -> None:
    await wiki.browser.post(RULES, data=RULE)
    assert (await wiki.browser.post(RULES, data=RULE | {"message": "Other."})).status_code == 409
    assert (await _rule(wiki))["message"] == "Not for reading."


async def test_a_rule_somebody_else_changed_is_not_overwritten(wiki: Policy) -> None:
    await wiki.browser.post(RULES, data=RULE)
    page = (await wiki.browser.get(f"{RULES}/no-secrets")).text
    await wiki.api.put("/api/policy/rules/no-secrets", json={"name": "Other"})
    form = RULE | fields(page, f"{RULES}/no-secrets")
    assert (await wiki.browser.post(f"{RULES}/no-secrets", data=form)).status_code == 412
    assert (await _rule(wiki))["name"] == "Other"


async def test_a_rule_is_tried_before_it_is_saved(wiki: Policy) -> None:
    await tell_past(wiki, past_call("read", text="a secret"), past_call("read", text="x"), past_call("read"))
    answer = await wiki.browser.post(RULES, data=RULE | {"action": "try", "days": "30"})
    assert answer.status_code == 200
    page = text(answer)
    assert "2 would be denied that are allowed now" in page
    assert "3 calls were decided again" in page
    assert "1 of the denials is because the condition cannot be evaluated" in page
    assert "wiki/read allowed rule denied Not for reading." in page
    assert 'value="30" selected' in answer.text
    assert (await wiki.api.get("/api/policy/rules")).json()["items"] == []


async def test_the_removal_of_a_rule_is_tried_before_it_is_deleted(wiki: Policy) -> None:
    await wiki.browser.post(RULES, data=RULE)
    await eventually(lambda: "no-secrets" in wiki.app.state.follower.tables.rules)
    await tell_past(wiki, past_call("read", text="a secret"))
    action = f"{RULES}/no-secrets/delete"
    form = fields((await wiki.browser.get(f"{RULES}/no-secrets")).text, action)
    tried = await wiki.browser.post(action, data=form | {"action": "try"})
    assert "1 would be allowed that are denied now" in text(tried)
    assert await _rule(wiki)
    page = await follow(wiki, await wiki.browser.post(action, data=fields(tried.text, action)))
    assert "The rule No secrets is deleted." in page
    assert "No rules yet" in page


async def test_the_rules_stand_in_the_order_in_which_they_count(wiki: Policy) -> None:
    for name, effect, priority in (("A", "allow", 1), ("B", "deny", 1), ("C", "deny", 9)):
        body = {"name": name, "effect": effect, "priority": priority}
        await wiki.api.put(f"/api/policy/rules/{name.lower()}", json=body)
    page = (await wiki.browser.get(RULES)).text
    assert page.index("/groups/rules/c") < page.index("/groups/rules/b") < page.index("/groups/rules/a")


async def test_the_help_names_every_variable_and_its_examples_are_conditions(policy: Policy) -> None:
    page = text(await policy.browser.get(f"{RULES}/_new"))
    _, _, told = page.partition("What a condition can look at")
    for name, parts in VARIABLES.items():
        for part in parts or [""]:
            assert f"{name}.{part}".rstrip(".") in told
    shown = (await policy.browser.get(f"{RULES}/_new")).text.split("<pre>")[1].split("</pre>")[0]
    examples = shown.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").splitlines()
    assert len(examples) == 4
    for example in examples:
        condition(example)


# -- quotas ------------------------------------------------------------------------------------------


async def test_a_quota_is_saved_changed_and_deleted(wiki: Policy) -> None:
    page = await follow(wiki, await wiki.browser.post(QUOTAS, data=QUOTA))
    assert "The quota Each user is saved." in page
    assert "Each user each user alone all servers 60 —" in page
    path = f"{QUOTAS}/each-user"
    form = QUOTA | fields((await wiki.browser.get(path)).text, path)
    changed = form | {"per_day": "1000", "subject": "ada@example.com", "servers": "wiki"}
    assert "user ada@example.com wiki 60 1,000" in await follow(
        wiki, await wiki.browser.post(path, data=changed)
    )
    quota = (await wiki.api.get("/api/policy/quotas/each-user")).json()
    assert (quota["subject"], quota["servers"], quota["per_day"]) == ("ada", ["wiki"], 1000)
    assert (await wiki.browser.post(path, data=form)).status_code == 412
    form = fields((await wiki.browser.get(path)).text, f"{path}/delete")
    assert "No quotas yet" in await follow(wiki, await wiki.browser.post(f"{path}/delete", data=form))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"per_minute": ""}, "how many calls may be made"),
        ({"per_minute": "many"}, "whole number"),
        ({"subject": "zoe@example.com"}, "Nobody has the e-mail address"),
        ({"of": "tool", "subject": "read"}, "such as wiki/search"),
    ],
)
async def test_what_cannot_be_a_quota_comes_back_with_the_problem(
    wiki: Policy, typed: dict[str, str], said: str
) -> None:
    answer = await wiki.browser.post(QUOTAS, data=QUOTA | typed)
    assert answer.status_code in {400, 404}
    assert said in notice(answer)
    assert 'value="Each user"' in answer.text

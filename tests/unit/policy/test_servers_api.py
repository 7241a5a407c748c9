"""Servers through the API: what can be registered, what the control log then says, who may."""

import asyncio
from typing import Any

import pytest

from libs.common.control.entries import Replica, User
from tests.unit.conftest import PUBLIC_URL, ControlLog, SignIn
from tests.unit.policy.conftest import Policy

WIKI = {"name": "Wiki", "url": "https://wiki.example.com/mcp"}


async def test_a_registered_server_is_listed_with_its_url_for_clients(policy: Policy) -> None:
    made = await policy.add("wiki")
    assert made["mcp_url"] == f"{PUBLIC_URL}/mcp/wiki"
    listed = (await policy.api.get("/api/policy/servers")).json()
    assert [server["slug"] for server in listed["items"]] == ["wiki"]
    assert listed["next"] is None


async def test_a_registered_server_stands_in_the_control_log(policy: Policy) -> None:
    made = await policy.add("wiki", auth="api_key", response_timeout=30)
    entry = await policy.control.get("server.wiki")
    assert entry is not None
    assert (entry["url"], entry["auth"], entry["enabled"]) == (
        "https://wiki.example.com/mcp",
        "api_key",
        True,
    )
    assert (entry["response_timeout"], entry["version"]) == (30, made["version"])


async def test_the_list_is_paged_by_slug(policy: Policy) -> None:
    for slug in ("c", "a", "b"):
        await policy.add(slug)
    first = (await policy.api.get("/api/policy/servers?limit=2")).json()
    rest = (await policy.api.get(f"/api/policy/servers?limit=2&after={first['next']}")).json()
    assert [server["slug"] for server in first["items"]] == ["a", "b"]
    assert [server["slug"] for server in rest["items"]] == ["c"]
    assert rest["next"] is None


async def test_putting_the_same_server_twice_changes_nothing_and_still_gives_a_receipt(
    policy: Policy,
) -> None:
    first = await policy.add("wiki", default_access="allow")
    again = await policy.add("wiki", default_access="allow")
    assert again["version"] == first["version"]
    assert again["receipt"]["complete"]
    assert again["receipt"]["revision"] == first["receipt"]["revision"] > 0


@pytest.mark.parametrize("access", ["allow", "deny"])
async def test_a_server_can_be_created_with_access_for_the_default_group(policy: Policy, access: str) -> None:
    await policy.add("wiki", default_access=access)
    group = await policy.control.get("group.default")
    assert group is not None
    assert group["servers"] == {"wiki": {"default": access, "tools": {}, "prompts": {}, "resources": {}}}


async def test_a_server_is_nobodys_until_granted(policy: Policy) -> None:
    await policy.add("wiki")
    group = await policy.control.get("group.default")
    assert group is not None
    assert group["servers"] == {}


async def test_default_access_does_not_touch_a_server_that_exists(policy: Policy) -> None:
    await policy.add("wiki")
    await policy.add("wiki", default_access="allow")
    assert (await policy.api.get("/api/policy/groups/default")).json()["servers"] == {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"url": "ftp://wiki.example.com"}, "http://"),
        ({"url": "https:///mcp"}, "host"),
        ({"url": "https://user:pw@wiki.example.com/mcp"}, "user or password"),
        ({"url": "https://wiki.example.com/mcp#part"}, "fragment"),
        ({"url": "https://wiki.example.com:99999/mcp"}, "URL"),
        ({"url": "https://wiki.example.com/m cp"}, "spaces"),
        ({"url": "https://wiki.example.com/\r\nX: y"}, "URL"),
        ({"auth": "basic"}, "api_key"),
        ({"name": " "}, "name"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"response_timeout": 1e9}, "response_timeout"),
        ({"default_access": "perhaps"}, "default_access"),
        ({"nmae": "Wiki"}, "nmae"),
    ],
)
async def test_a_bad_value_is_refused_with_its_reason(
    policy: Policy, body: dict[str, Any], said: str
) -> None:
    answer = await policy.api.put("/api/policy/servers/wiki", json=WIKI | body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    assert (await policy.api.get("/api/policy/servers/wiki")).status_code == 404


@pytest.mark.parametrize("slug", ["Wiki", "-wiki", "w.iki", "w" * 64, "wiki*", "_organization", "sse"])
async def test_a_bad_slug_is_refused(policy: Policy, slug: str) -> None:
    answer = await policy.api.put(f"/api/policy/servers/{slug}", json=WIKI)
    assert answer.status_code == 400
    assert "slug" in answer.json()["detail"]


async def test_a_change_of_a_version_that_is_no_longer_there_is_refused(policy: Policy) -> None:
    await policy.add("wiki")
    seen = await policy.api.get("/api/policy/servers/wiki")
    await policy.add("wiki", name="Other")
    late = await policy.api.put(
        "/api/policy/servers/wiki", json=WIKI | {"name": "Mine"}, headers={"If-Match": seen.headers["etag"]}
    )
    assert late.status_code == 412
    assert late.json()["type"] == "urn:lockgate:error:changed-meanwhile"
    now = await policy.api.get("/api/policy/servers/wiki")
    assert now.json()["name"] == "Other"
    assert now.headers["etag"] == f'"{now.json()["version"]}"' != seen.headers["etag"]


async def test_a_change_of_the_present_version_is_made(policy: Policy) -> None:
    made = await policy.add("wiki")
    headers = {"If-Match": f'"{made["version"]}"'}
    answer = await policy.api.put("/api/policy/servers/wiki", json=WIKI | {"name": "Mine"}, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["version"] > made["version"]


async def test_creating_only_what_is_absent_leaves_the_present_alone(policy: Policy) -> None:
    await policy.add("wiki")
    headers = {"If-None-Match": "*"}
    answer = await policy.api.put("/api/policy/servers/wiki", json=WIKI | {"name": "Mine"}, headers=headers)
    assert answer.status_code == 409
    assert (await policy.api.get("/api/policy/servers/wiki")).json()["name"] == "Wiki"


async def test_an_unreadable_precondition_is_an_error_and_not_ignored(policy: Policy) -> None:
    answer = await policy.api.put("/api/policy/servers/wiki", json=WIKI, headers={"If-Match": "W/7"})
    assert answer.status_code == 400


async def test_a_server_that_is_switched_off_says_so_in_the_log_until_it_is_on(policy: Policy) -> None:
    await policy.add("wiki")
    off = await policy.api.put("/api/policy/servers/wiki/switch", json={"enabled": False, "reason": "leaks"})
    assert (off.status_code, off.json()["enabled"], off.json()["reason"]) == (200, False, "leaks")
    entry = await policy.control.get("server.wiki")
    assert entry is not None
    assert (entry["enabled"], entry["reason"]) == (False, "leaks")
    on = await policy.api.put("/api/policy/servers/wiki/switch", json={"enabled": True, "reason": "old"})
    assert (on.json()["enabled"], on.json()["reason"]) == (True, "")


async def test_editing_a_server_that_is_off_leaves_it_off(policy: Policy) -> None:
    await policy.add("wiki")
    await policy.api.put("/api/policy/servers/wiki/switch", json={"enabled": False})
    assert (await policy.add("wiki", name="Other"))["enabled"] is False


async def test_deleting_a_server_takes_its_access_along_in_the_log(policy: Policy) -> None:
    await policy.add("wiki", default_access="allow")
    answer = await policy.api.delete("/api/policy/servers/wiki")
    assert answer.status_code == 200
    assert await policy.control.get("server.wiki") is None
    group = await policy.control.get("group.default")
    assert group is not None
    assert group["servers"] == {}
    assert (await policy.api.delete("/api/policy/servers/wiki")).status_code == 200


async def test_a_server_made_anew_does_not_get_an_old_version(policy: Policy) -> None:
    first = await policy.add("wiki")
    await policy.api.delete("/api/policy/servers/wiki")
    assert (await policy.add("wiki"))["version"] > first["version"]


async def test_writers_at_the_same_time_all_succeed(policy: Policy) -> None:
    slugs = [f"s{number}" for number in range(12)]
    made = await asyncio.gather(*(policy.add(slug) for slug in slugs))
    assert len({server["version"] for server in made}) == len(slugs)


async def test_the_organization_can_be_switched_off_and_on(policy: Policy) -> None:
    answer = await policy.api.put(
        "/api/policy/organization/switch", json={"enabled": False, "reason": "incident"}
    )
    assert answer.status_code == 200
    entry = await policy.control.get("org")
    assert entry is not None
    assert (entry["enabled"], entry["reason"]) == (False, "incident")
    await policy.api.put("/api/policy/organization/switch", json={"enabled": True})
    assert (await policy.api.get("/api/policy/organization")).json()["enabled"] is True


# -- who may ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["member", "auditor"])
async def test_only_administrators_may(policy: Policy, sign_in: SignIn, role: str) -> None:
    other = await sign_in(role)
    await policy.app.state.follower.wait_for(
        lambda: other.user.id in policy.app.state.follower.tables.users, timeout=5
    )
    for method, path in (("GET", "servers"), ("PUT", "servers/wiki"), ("PUT", "organization/switch")):
        body = WIKI if method == "PUT" else None
        answer = await policy.api.request(method, f"/api/policy/{path}", json=body, headers=other.script)
        assert answer.status_code == 403, path


async def test_nobody_may_without_signing_in(policy: Policy) -> None:
    headers = {"Authorization": ""}
    assert (await policy.api.get("/api/policy/servers", headers=headers)).status_code == 401


async def test_a_deactivated_administrator_is_out_at_once(policy: Policy, control: ControlLog) -> None:
    user = policy.admin.user
    gone = User(version=2, id=user.id, email=user.email, role="admin", active=False)
    await control.put(gone)
    follower = policy.app.state.follower
    await follower.wait_for(lambda: not follower.tables.users[user.id].active, timeout=5)
    assert (await policy.api.get("/api/policy/servers")).status_code == 401


# -- receipts ---------------------------------------------------------------------------------------


async def _replica(policy: Policy, revision: int, on_stale: Any = "refuse") -> None:
    replica = Replica(
        id="r1", revision=revision, applied_at="2026-01-02T03:04:05.000000Z", lease=1.0, on_stale=on_stale
    )
    await policy.control.put(replica)
    follower = policy.app.state.follower
    await follower.wait_for(lambda: follower.tables.replicas.get("r1") == replica, timeout=5)


async def test_a_receipt_names_the_replica_that_applied_the_change_and_when(policy: Policy) -> None:
    await _replica(policy, revision=10**9)
    receipt = (await policy.add("wiki"))["receipt"]
    applied = {"replica": "r1", "state": "applied", "at": "2026-01-02T03:04:05.000000Z"}
    assert receipt["complete"] is True
    assert receipt["replicas"] == [applied]


async def test_a_replica_that_does_not_answer_counts_once_its_lease_has_run_out(policy: Policy) -> None:
    await _replica(policy, revision=0)
    receipt = (await policy.add("wiki"))["receipt"]
    assert receipt["complete"] is True
    assert [replica["state"] for replica in receipt["replicas"]] == ["lease_expired"]


async def test_a_change_that_a_replica_may_not_know_of_answers_202(policy: Policy) -> None:
    await _replica(policy, revision=0, on_stale="serve")
    answer = await policy.api.put("/api/policy/servers/wiki", json=WIKI)
    assert answer.status_code == 202
    assert answer.json()["receipt"]["complete"] is False
    assert [replica["state"] for replica in answer.json()["receipt"]["replicas"]] == ["pending"]
    assert (await policy.api.get("/api/policy/servers/wiki")).status_code == 200

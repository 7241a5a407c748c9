"""Quotas through the API, as definitions; gateways count by them."""

from typing import Any

import pytest

from tests.unit.policy.conftest import Policy

QUOTA: dict[str, Any] = {"name": "Fair use", "of": "user", "per_minute": 60, "per_day": 5000}


async def _put(policy: Policy, id: str = "fair", status: int = 200, **body: Any) -> Any:
    answer = await policy.api.put(f"/api/policy/quotas/{id}", json=QUOTA | body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_quota_stands_in_the_log_as_it_was_saved_until_it_is_deleted(policy: Policy) -> None:
    saved = await _put(policy)
    assert saved["receipt"]["complete"]
    entry = await policy.control.get("quota.fair")
    assert entry == QUOTA | {"id": "fair", "subject": "", "servers": [], "version": saved["version"]}
    assert (await policy.api.get("/api/policy/quotas/fair")).json() == entry
    assert (await policy.api.delete("/api/policy/quotas/fair")).status_code == 200
    assert await policy.control.get("quota.fair") is None
    assert (await policy.api.get("/api/policy/quotas/fair")).status_code == 404


async def test_a_quota_may_limit_only_the_minute_or_the_day(policy: Policy) -> None:
    assert (await _put(policy, per_minute=None))["per_minute"] is None
    assert (await _put(policy, per_day=None, per_minute=0))["per_minute"] == 0


@pytest.mark.parametrize(
    ("of", "subject"), [("server", "wiki"), ("tool", "wiki/read/all"), ("group", "default"), ("user", "ada")]
)
async def test_a_quota_may_be_for_one_that_is_there(policy: Policy, of: str, subject: str) -> None:
    await policy.add("wiki")
    assert (await _put(policy, of=of, subject=subject, servers=["wiki"]))["subject"] == subject


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "no limit": ({"per_minute": None, "per_day": None}, 400),
    "a negative limit": ({"per_minute": -1}, 400),
    "a limit without bounds": ({"per_day": 10**12}, 400),
    "half a call": ({"per_day": 1.5}, 400),
    "somebody's that is nobody": ({"of": "client"}, 400),
    "an unknown server": ({"of": "server", "subject": "wikki"}, 404),
    "a tool of an unknown server": ({"of": "tool", "subject": "wikki/read"}, 404),
    "a tool without its server": ({"of": "tool", "subject": "read"}, 400),
    "an unknown group": ({"of": "group", "subject": "finance"}, 404),
    "an unknown user": ({"of": "user", "subject": "nobody"}, 404),
    "calls to an unknown server": ({"servers": ["wikki"]}, 404),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_quota_is_refused_with(policy: Policy, name: str) -> None:
    body, status = REFUSED[name]
    await _put(policy, status=status, **body)


async def test_a_quota_that_somebody_else_changed_is_not_overwritten(policy: Policy) -> None:
    await _put(policy)
    headers = {"If-Match": (await policy.api.get("/api/policy/quotas/fair")).headers["etag"]}
    await _put(policy, per_day=1)
    late = await policy.api.put("/api/policy/quotas/fair", json=QUOTA, headers=headers)
    assert late.status_code == 412


async def test_quotas_are_listed_by_id_in_pages(policy: Policy) -> None:
    for id in ("b", "a"):
        await _put(policy, id)
    page = (await policy.api.get("/api/policy/quotas", params={"limit": 1})).json()
    assert ([quota["id"] for quota in page["items"]], page["next"]) == (["a"], "a")

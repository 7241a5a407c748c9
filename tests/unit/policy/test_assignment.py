"""People are put into the group that the organization's identity provider names."""

import asyncio
import json

import pytest

from libs.common.requests import ASSIGN_GROUP, AssignedGroup, AssignGroup
from tests.unit.conftest import Shipped
from tests.unit.policy.conftest import Policy


async def assign(policy: Policy, *groups: str) -> AssignedGroup:
    query = AssignGroup(
        user="mia", email="mia@example.com", groups=list(groups), source="https://idp.example"
    )
    return await policy.control.bus.request(ASSIGN_GROUP, query, AssignedGroup)


@pytest.fixture
async def engineers(policy: Policy) -> str:
    """A second group."""
    await policy.api.put("/api/policy/groups/eng", json={"name": "Engineers"})
    return "eng"


@pytest.mark.parametrize("named", [("eng",), ("Engineers",), ("unknown", "Engineers", "default")])
async def test_the_first_that_there_is_counts_by_id_or_by_name(
    policy: Policy, engineers: str, named: tuple[str, ...]
) -> None:
    assigned = await assign(policy, *named)
    assert (assigned.group, assigned.complete) == (engineers, True)
    entry = policy.app.state.parts.store.entries(["member.mia"])["member.mia"]
    assert entry.group == engineers


@pytest.mark.parametrize("named", [(), ("unknown",)])
async def test_without_one_that_there_is_it_is_the_default(
    policy: Policy, engineers: str, named: tuple[str, ...]
) -> None:
    await assign(policy, "eng")
    assert (await assign(policy, *named)).group == "default"


async def test_a_change_is_recorded_with_its_source_and_no_change_is_not(
    policy: Policy, engineers: str, shipped: Shipped
) -> None:
    await assign(policy, "eng")
    await assign(policy, "eng")
    await policy.add("wiki")
    async with asyncio.timeout(10):
        while len(events := await shipped("admin_events")) < 3:
            await asyncio.sleep(0.05)
    _, assigned, saved = events
    assert (assigned["actor"], assigned["email"]) == ("sso", "https://idp.example")
    assert (assigned["event"], assigned["subject"]) == ("member_assigned", "member.mia")
    assert json.loads(assigned["after"])["group"] == engineers
    assert saved["event"] == "server_saved"

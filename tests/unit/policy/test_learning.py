"""Learning what a server offers by way of a gateway, for which somebody on the bus answers here."""

import asyncio
from typing import Any

import msgspec
import pytest

from libs.common.errors import LockgateError
from libs.common.requests import LEARN, Learned, LearnServer, Offered
from services.policy.settings import PolicySettings
from tests.unit.policy.conftest import Policy

REFRESH = "/api/policy/servers/tools/refresh"
STDIO = {"transport": "stdio", "url": "", "command": ["npx", "tools"]}
OFFERED = Learned(
    tools=[Offered(name="run", description="Runs.\nAt length.")],
    prompts=[Offered(name="ask")],
    resources=[Offered(name="crm://a", description="A customer")],
    templates=[
        Offered(name="crm://{id}", description="Any customer"),
        Offered(name="crm://{id}/orders"),
    ],
)


async def _gateway(policy: Policy, answer: Learned | LockgateError) -> list[LearnServer]:
    """Answers as a gateway does; what it was asked is in the list that it returns."""
    asked: list[LearnServer] = []

    async def learn(query: LearnServer) -> Learned:
        asked.append(query)
        if isinstance(answer, LockgateError):
            raise answer
        return answer

    await policy.control.bus.serve(LEARN, LearnServer, learn)
    await policy.control.bus.client.flush()
    return asked


async def test_tools_prompts_and_resources_are_learned_and_a_template_as_its_beginning(
    policy: Policy,
) -> None:
    await _gateway(policy, OFFERED)
    await policy.add("tools", **STDIO)
    answer = await policy.api.post(REFRESH)
    assert answer.status_code == 200
    assert answer.json()["tools"] == [{"name": "run", "description": "Runs."}]
    assert answer.json()["prompts"] == [{"name": "ask", "description": ""}]
    assert answer.json()["resources"] == [
        {"name": "crm://a", "description": "A customer"},
        {"name": "crm://*", "description": "crm://{id}: Any customer"},
    ]


async def test_the_control_log_says_the_tools_and_not_what_gateways_decide_on_unknown(policy: Policy) -> None:
    await _gateway(policy, OFFERED)
    await policy.add("tools", **STDIO)
    await policy.api.post(REFRESH)
    entry = await policy.control.get("server.tools")
    assert entry is not None
    assert entry["tools"] == ["run"]
    assert "prompts" not in entry
    assert "resources" not in entry


@pytest.mark.parametrize(
    ("definition", "within"), [(STDIO, 45.0), ({"transport": "sse", "url": "http://x.example/sse"}, 2.0)]
)
async def test_the_gateway_is_told_which_state_of_the_server_to_ask_and_how_long(
    policy: Policy, definition: dict[str, Any], within: float
) -> None:
    asked = await _gateway(policy, OFFERED)
    made = await policy.add("tools", **definition)
    await policy.api.post(REFRESH)
    assert asked == [LearnServer(slug="tools", version=made["version"], within=within)]


async def test_the_gateways_sentence_is_passed_on(policy: Policy) -> None:
    await _gateway(policy, LockgateError("Its program npx is not on the gateway."))
    await policy.add("tools", **STDIO)
    answer = await policy.api.post(REFRESH)
    assert answer.status_code == 502
    assert answer.json()["type"] == "urn:lockgate:error:upstream-failed"
    assert answer.json()["detail"] == "Its program npx is not on the gateway."


async def test_without_a_gateway_that_is_said_at_once(policy: Policy) -> None:
    await policy.add("tools", **STDIO)
    async with asyncio.timeout(3):
        answer = await policy.api.post(REFRESH)
    assert (answer.status_code, "No gateway answers" in answer.json()["detail"]) == (502, True)


async def test_a_gateway_that_speaks_otherwise_is_named_as_the_cause(policy: Policy) -> None:
    class Other(msgspec.Struct):
        tools: int = 3

    async def learn(_: LearnServer) -> Other:
        return Other()

    await policy.control.bus.serve(LEARN, LearnServer, learn)
    await policy.add("tools", **STDIO)
    answer = await policy.api.post(REFRESH)
    assert (answer.status_code, "another version" in answer.json()["detail"]) == (502, True)


async def test_a_server_that_is_added_by_the_form_is_asked_once(policy: Policy) -> None:
    asked = await _gateway(policy, OFFERED)
    form = {"name": "Tools", "slug": "tools", "transport": "stdio", "command": "npx tools"}
    answer = await policy.browser.post("/servers", data=form)
    page = await policy.browser.get(answer.headers["location"])
    assert "It has 1 tool, 1 prompt and 2 resources." in page.text
    assert len(asked) == 1


def test_a_command_has_longer_to_start_than_a_server_to_answer() -> None:
    assert PolicySettings().policy_start_timeout > PolicySettings().policy_upstream_timeout

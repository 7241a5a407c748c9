"""Learning what a server offers by way of a gateway, for which mostly somebody on the bus answers here. What
gateways say of servers that do not answer as they should is in tests/unit/gateway/test_learn.py."""

import asyncio
from typing import Any

import msgspec
import pytest

from libs.common.errors import LockgateError
from libs.common.requests import LEARN, Learned, LearnServer, Offered
from services.policy.settings import PolicySettings
from tests.conftest import free_port
from tests.unit.policy.conftest import Policy, StartGateway, StartUpstream

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
    assert list(entry["tools"]) == ["run"]
    assert "prompts" not in entry
    assert "resources" not in entry


@pytest.mark.parametrize(
    ("definition", "within"),
    [(STDIO, 45.0), ({"transport": "sse", "url": "http://x.example/sse"}, 2.0), ({}, 2.0)],
    ids=["stdio", "sse", "streamable_http"],
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


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_real_gateway_asks_a_real_server_whether_it_is_on_or_off(
    policy: Policy, gateway: StartGateway, upstream: StartUpstream, enabled: bool
) -> None:
    server = await upstream(
        ("read", "Reads a page.\n\nAt length."),
        prompts=("ask",),
        resources=("wiki://home", "wiki://pages/{page}"),
    )
    await gateway()
    await policy.add("tools", url=server.url)
    await policy.api.put("/api/policy/servers/tools/switch", json={"enabled": enabled})
    answer = (await policy.api.post(REFRESH)).json()
    assert answer["tools"] == [{"name": "read", "description": "Reads a page."}]
    assert [prompt["name"] for prompt in answer["prompts"]] == ["ask"]
    assert answer["resources"] == [
        {"name": "wiki://home", "description": "A page"},
        {"name": "wiki://pages/*", "description": "wiki://pages/{page}: A page"},
    ]
    assert (await policy.api.post(REFRESH)).json()["version"] == answer["version"], "nothing has changed"


async def test_a_real_gateway_says_why_a_server_does_not_tell(policy: Policy, gateway: StartGateway) -> None:
    await gateway()
    await policy.add("tools", url=f"http://127.0.0.1:{free_port()}/mcp")
    assert (await policy.api.post(REFRESH)).json()["detail"] == "It refuses connections."


async def test_tools_can_be_named_by_hand_and_keep_their_descriptions(policy: Policy) -> None:
    await _gateway(policy, OFFERED)
    await policy.add("tools", **STDIO)
    await policy.api.post(REFRESH)
    names = {"tools": ["write", "run", "write"]}
    answer = await policy.api.put("/api/policy/servers/tools/tools", json=names)
    assert answer.json()["tools"] == [
        {"name": "write", "description": ""},
        {"name": "run", "description": "Runs."},
    ]


@pytest.mark.parametrize("tools", [[""], ["a\nb"], ["x" * 300]])
async def test_a_bad_name_of_a_tool_is_refused(policy: Policy, tools: list[str]) -> None:
    await policy.add("tools", **STDIO)
    answer = await policy.api.put("/api/policy/servers/tools/tools", json={"tools": tools})
    assert answer.status_code == 400


def test_a_command_has_longer_to_start_than_a_server_to_answer() -> None:
    assert PolicySettings().policy_start_timeout > PolicySettings().policy_upstream_timeout

"""Servers over HTTP+SSE and stdio through the API: what they need and what the control log then says."""

from typing import Any

import pytest

from tests.unit.policy.conftest import Policy

STDIO = {"transport": "stdio", "url": "", "command": ["npx", "-y", "everything"]}


async def test_a_stdio_server_stands_in_the_control_log_with_all_that_a_gateway_needs(policy: Policy) -> None:
    more = {"environment": {"LOG_LEVEL": "info"}, "processes": "user", "idle_stop": 30, "idle_timeout": 9}
    made = await policy.add("tools", **STDIO, **more)
    entry = await policy.control.get("server.tools")
    assert entry is not None
    for field, value in {**STDIO, **more}.items():
        assert entry[field] == made[field] == value, field


async def test_an_sse_server_has_a_url_like_any_other(policy: Policy) -> None:
    made = await policy.add("old", transport="sse", url="https://old.example.com/sse")
    assert (made["transport"], made["url"]) == ("sse", "https://old.example.com/sse")


async def test_a_server_may_always_be_translated(policy: Policy) -> None:
    await policy.add("wiki", bridge="always")
    entry = await policy.control.get("server.wiki")
    assert entry is not None
    assert entry["bridge"] == "always"


async def test_a_server_may_become_a_command_and_the_same_command_again_is_no_change(policy: Policy) -> None:
    await policy.add("wiki")
    changed = await policy.add("wiki", **STDIO)
    assert (changed["url"], changed["command"]) == ("", STDIO["command"])
    assert (await policy.add("wiki", **STDIO))["version"] == changed["version"]


async def test_a_command_may_hold_whatever_a_program_may_be_told(policy: Policy) -> None:
    command = ["sh", "-c", "echo 'a b'; exit\n", "", "--größe=3"]
    made = await policy.add("tools", **STDIO | {"command": command})
    assert made["command"] == command


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"transport": "carrier_pigeon"}, "streamable_http"),
        ({"url": ""}, "needs a url"),
        ({"transport": "sse", "url": ""}, "needs a url"),
        ({"command": ["npx"]}, "for stdio"),
        ({"environment": {"A": "b"}}, "for stdio"),
        ({"processes": "user"}, "for stdio"),
        ({"bridge": "never"}, "bridge"),
        ({"idle_timeout": 0}, "idle_timeout"),
        ({"idle_stop": 0}, "idle_stop"),
        (STDIO | {"url": "https://wiki.example.com"}, "has no url"),
        (STDIO | {"command": []}, "needs a command"),
        (STDIO | {"command": [" ", "x"]}, "needs a command"),
        (STDIO | {"command": ["npx", "a\x00b"]}, "cannot be printed"),
        (STDIO | {"command": ["x"] * 101}, "at most 100"),
        (STDIO | {"command": ["x" * 4097]}, "4096"),
        (STDIO | {"command": ["TOKEN=s3cret", "npx"]}, "a setting and no program"),
        (STDIO | {"processes": "nobody"}, "processes"),
        (STDIO | {"environment": {"A-B": "c"}}, "no name of an environment variable"),
        (STDIO | {"environment": {"1A": "c"}}, "no name of an environment variable"),
        (STDIO | {"environment": {"": "c"}}, "no name of an environment variable"),
        (STDIO | {"environment": {"LOCKGATE_NATS_URL": "c"}}, "Lockgate itself"),
        (STDIO | {"environment": {"lockgate_data_dir": "c"}}, "Lockgate itself"),
        (STDIO | {"environment": {"A": "b\x00"}}, "the value of A"),
        (STDIO | {"environment": {"A": "b\nc"}}, "the value of A"),
        (STDIO | {"environment": {"A": "b" * 4097}}, "the value of A"),
        (STDIO | {"environment": {f"A{n}": "" for n in range(101)}}, "at most 100"),
    ],
)
async def test_a_bad_value_is_refused_with_its_reason(
    policy: Policy, body: dict[str, Any], said: str
) -> None:
    base = {"name": "Wiki", "url": "https://wiki.example.com/mcp"}
    answer = await policy.api.put("/api/policy/servers/wiki", json=base | body)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert (await policy.api.get("/api/policy/servers/wiki")).status_code == 404


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "NODE_OPTIONS", "_x"])
async def test_whoever_chooses_the_command_may_set_any_other_variable(policy: Policy, name: str) -> None:
    made = await policy.add("tools", **STDIO, environment={name: "x"})
    assert made["environment"] == {name: "x"}

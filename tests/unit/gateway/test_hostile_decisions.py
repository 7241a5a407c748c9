"""Ways around rules and quotas, and requests that make deciding on them expensive."""

import json
from typing import Any

import pytest

from libs.common.control.entries import Quota, Server
from services.gateway.envelope import Malformed, parse
from tests.unit.gateway.conftest import House


def _body(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
@pytest.mark.parametrize("arguments", ['{"path": "/etc/shadow"}', [{"path": "/etc/shadow"}], 1, True])
def test_arguments_that_rules_could_not_look_into_are_refused(method: str, arguments: object) -> None:
    """An upstream may be so kind as to decode them (a text that holds JSON), where a rule saw none."""
    with pytest.raises(Malformed, match="arguments") as caught:
        parse(_body(method, name="read", arguments=arguments))
    assert caught.value.reason == "invalid_params"


def test_a_call_without_arguments_may_say_so_with_null() -> None:
    assert parse(_body("tools/call", name="read", arguments=None)).arguments == {}


def test_what_has_no_arguments_cannot_bring_any_for_rules_to_look_into() -> None:
    """They would be looked into once for each of the resources."""
    wanted = {"resourceSubscriptions": ["file:///a", "file:///b"]}
    listen = parse(_body("subscriptions/listen", notifications=wanted, arguments={"a": [0] * 10_000}))
    assert (len(listen.subjects), listen.arguments) == (2, {})


async def test_tools_that_a_caller_makes_up_have_no_counts_of_their_own(house: House) -> None:
    """Each would be kept in NATS for a day, and there is no end of names."""
    known = Server(version=2, slug="demo", name="Demo", url=house.upstream.url, tools={"echo": ""})
    await house.put(known, Quota(version=1, id="q", name="Each tool", of="tool", per_day=2))
    made_up = [(await house.call(f"made-up-{n}")).status_code for n in range(4)]
    assert made_up == [200, 200, 429, 429]
    assert [(await house.call()).status_code for _ in range(3)] == [200, 200, 429]
    subjects = (await house.bus.js.stream_info("QUOTA_DAY", subjects_filter="QUOTA.day.>")).state.subjects
    assert len(subjects or {}) == 2


async def test_a_quota_of_one_tool_counts_it_before_anybody_has_listed_it(house: House) -> None:
    await house.put(Quota(version=1, id="q", name="Echo", of="tool", subject="demo/echo", per_day=1))
    assert [(await house.call()).status_code for _ in range(2)] == [200, 429]
    assert (await house.call("made-up")).status_code == 200

"""Calls of the past, as the activity service would tell of them."""

import json
from typing import Any

from libs.common.requests import RECORDED_CALLS, AskRecordedCalls, RecordedCall, RecordedCalls
from tests.unit.policy.conftest import Policy


async def tell_past(policy: Policy, *calls: RecordedCall) -> None:
    """Answer whoever asks for recorded calls with these."""

    async def answer(_: AskRecordedCalls) -> RecordedCalls:
        return RecordedCalls(calls=list(calls))

    await policy.control.bus.serve(RECORDED_CALLS, AskRecordedCalls, answer)


def past_call(tool: str, **arguments: Any) -> RecordedCall:
    """Of ada's, to wiki."""
    return RecordedCall(
        id="c1",
        time="2026-01-02T03:04:05.000000Z",
        user="ada",
        email="ada@example.com",
        client_id="",
        client_name="Cursor",
        server="wiki",
        method="tools/call",
        tool=tool,
        status="ok",
        reason="allowed",
        input=json.dumps({"name": tool, "arguments": arguments}),
        cut=False,
    )

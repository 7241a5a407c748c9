"""A rule on arguments as an administrator makes it: tried on past calls, saved, explained, taken back."""

import json
from typing import Any

import httpx2

from tests.e2e.conftest import Gate

RULE = {
    "name": "No secrets",
    "servers": ["demo"],
    "condition": "tool == 'word_count' && arguments.text.contains('secret') && user.role == 'member'",
    "message": "Secrets are not for counting.",
}


async def _explained(gate: Gate, user: str, text: str) -> dict[str, Any]:
    arguments = json.dumps({"text": text})
    query = {"user": user, "server": "demo", "tool": "word_count", "arguments": arguments}
    found: dict[str, Any] = await gate.admin.api("GET", f"/api/policy/explain?{httpx2.QueryParams(query)}")
    return found


async def test_a_rule_is_tried_saved_explained_and_taken_back(gate: Gate) -> None:
    mia = await gate.member()
    async with mia.client(gate.server("demo")) as client:

        async def refusal(text: str) -> str:
            try:
                await client.call_tool("word_count", {"text": text})
            except Exception as error:
                return str(error)
            return ""

        assert [await refusal(text) for text in ("a secret", "a word")] == ["", ""]
        await gate.recorded(2, tool="word_count")
        tried = await gate.admin.api("POST", "/api/policy/replay", {"rules": [RULE | {"id": "secrets"}]})
        assert (tried["calls"], tried["newly_denied"], tried["failed"]) == (2, 1, 0)
        assert await refusal("still a secret") == ""

        saved = await gate.admin.api("PUT", "/api/policy/rules/secrets", RULE)
        assert saved["receipt"]["complete"]
        assert "Secrets are not for counting." in await refusal("a secret again")
        assert await refusal("a word again") == ""

        denied, allowed = [await _explained(gate, "mia@example.com", text) for text in ("a secret", "a word")]
        assert (denied["reason"], denied["rule"], allowed["reason"]) == (
            "rule_denied",
            "rule.secrets",
            "allowed",
        )
        (record,) = await gate.recorded(1, status="denied")
        assert (record["reason"], record["rule"]) == (denied["reason"], denied["rule"])

        await gate.admin.api("DELETE", "/api/policy/rules/secrets")
        assert await refusal("a secret") == ""

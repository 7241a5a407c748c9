"""Any client, any server: each of the field's clients does what it can do, at each kind of upstream."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests import npm
from tests.e2e.conftest import Gate
from tests.matrix.clients import CLIENTS, Visit
from tests.matrix.exercise import ECHO, LEGACY, LONG, MESSAGE, MODERN, STEPS
from tests.matrix.upstreams import UPSTREAMS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(npm.INSTALL_WITHIN + 120)]

VISIT_WITHIN = 60.0  # seconds
NO_ANSWER = "the stream ended without the answer"

# The revision that a client agrees on with the gateway; the inspector does not tell.
HELD_TO = {
    "python-modern": MODERN,
    "python-legacy": LEGACY,
    "python-sse": LEGACY,
    "typescript-1": LEGACY,
    "mcp-remote": LEGACY,
    "inspector": "",
}


def revision_of(client: str, upstream: str) -> str:
    """Clients that can adapt are left to: theirs is that of the upstream, unless it is bridged."""
    return HELD_TO.get(client, LEGACY if upstream == "sessions" else MODERN)


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_uses_an_upstream(
    gate: Gate, packages: npm.Packages, client: str, upstream: str, tmp_path: Path
) -> None:
    name = f"{client}-{upstream}"
    person = await gate.member(name)
    async with asyncio.timeout(VISIT_WITHIN):
        found = await CLIENTS[client](Visit(gate.server(upstream), person, packages, tmp_path))

    assert found.revision == revision_of(client, upstream)
    if client == "python-modern":
        assert found.discovered == (upstream != "sessions"), (
            "there the upstream answers, which has no such method"
        )
    assert {ECHO, LONG} <= found.tools
    assert found.echoed == f"Echo: {MESSAGE}"
    assert found.completed.startswith("Long running operation completed")
    assert "message" in found.refused, "it says which argument is missing"
    mine: Any = {"server": upstream, "user": f"{name}@example.com", "tool": LONG}
    if client == "inspector":  # it has neither
        assert (found.progress, found.after_cancelling) == (None, None)
        await gate.recorded(1, **mine)
    else:
        assert found.progress == list(range(1, STEPS + 1))
        assert found.after_cancelling == f"Echo: {MESSAGE}"
        cancelled, _ = await gate.recorded(2, **mine)
        # On lane 1 a session's cancellation is a message of its own, and all that its call gets is no answer.
        assert cancelled["status"] == "cancelled" or cancelled["detail"].startswith(NO_ANSWER)

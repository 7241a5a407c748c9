"""Sessions move between two replicas at random, request by request, and nobody notices."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    LoggingMessageNotificationParams,
    TextContent,
)

from tests.conftest import eventually
from tests.e2e.conftest import Gate
from tests.front import Front

SESSIONS = 12  # at the same time
STEPS = 12  # of each


@dataclass
class Visitor:
    """Somebody with a client of the session era, who answers what servers ask and hears what they tell."""

    name: str
    heard: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def client(self, url: str, token: str) -> AsyncIterator[Client]:
        http = httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=30)
        async with (
            http,
            Client(
                streamable_http_client(url, http_client=http),
                mode="legacy",
                sampling_callback=self.complete,
                elicitation_callback=self.fill_in,
                logging_callback=self.hear,
            ) as client,
        ):
            yield client

    async def complete(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult:
        (question,) = params.messages
        assert isinstance(question.content, TextContent)
        reply = TextContent(text=f"{self.name} on {question.content.text}")
        return CreateMessageResult(role="assistant", content=reply, model="a test")

    async def fill_in(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"response": self.name})

    async def hear(self, params: LoggingMessageNotificationParams) -> None:
        self.heard.append(str(params.data))


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent) and not result.is_error, result
    return content.text


async def lists_tools(client: Client, visitor: Visitor) -> None:
    assert "tell_beside" in {tool.name for tool in (await client.list_tools()).tools}


async def follows_progress(client: Client, visitor: Visitor) -> None:
    seen = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
    assert seen == [0, 50, 100]


async def is_asked_for_a_completion(client: Client, visitor: Visitor) -> None:
    result = await client.call_tool("test_sampling", {"prompt": "Tea?"})
    assert text(result) == f"LLM response: {visitor.name} on Tea?"


async def is_asked_to_fill_in_a_form(client: Client, visitor: Visitor) -> None:
    result = await client.call_tool("test_elicitation", {"message": "Your name?"})
    assert visitor.name in text(result)


async def comes_back_for_an_answer(client: Client, visitor: Visitor) -> None:
    visitor.heard.clear()
    result = await client.call_tool("test_reconnection", {})
    assert text(result) == "Reconnection test completed"
    assert [line for line in visitor.heard if line.endswith("connect")] == [
        "Before disconnect",
        "After reconnect",
    ]


async def comes_back_for_what_it_is_told(client: Client, visitor: Visitor) -> None:
    words = f"for {visitor.name}, at {random.random()}"
    assert text(await client.call_tool("tell_beside", {"words": words})) == "told"
    await eventually(lambda: words in visitor.heard)


Doing = Callable[[Client, Visitor], Awaitable[None]]
DOINGS: tuple[Doing, ...] = (
    lists_tools,
    follows_progress,
    is_asked_for_a_completion,
    is_asked_to_fill_in_a_form,
    comes_back_for_an_answer,
    comes_back_for_what_it_is_told,
)


async def visit(url: str, token: str, visitor: Visitor, doings: list[Doing]) -> None:
    """One session from its beginning to its end."""
    async with visitor.client(url, token) as client:
        for doing in doings:
            await doing(client, visitor)


def replicas_of_sessions(front: Front) -> dict[bytes, set[str]]:
    """The replicas that each session has met."""
    met: dict[bytes, set[str]] = {}
    for replica, head in front.requests:
        if session := re.search(rb"(?im)^mcp-session-id: *(\S+)", head):
            met.setdefault(session[1], set()).add(replica)
    return met


@pytest.mark.parametrize("seed", [2026])
async def test_sessions_move_between_replicas_at_random_without_an_error(
    balanced: Gate, front: Front, everything: str, seed: int
) -> None:
    server = {"name": "Everything", "url": everything, "auth": "none", "default_access": "allow"}
    await balanced.admin.api("PUT", "/api/policy/servers/everything", server)
    url = balanced.server("everything")
    mia = await balanced.member()
    token = await mia.bearer(url)
    chance = random.Random(seed)
    front.choose = chance.choice
    front.requests.clear()

    async with asyncio.timeout(60), asyncio.TaskGroup() as visits:
        for number in range(SESSIONS):
            doings = chance.choices(DOINGS, k=STEPS)
            visits.create_task(visit(url, token, Visitor(f"visitor {number}"), doings))

    met = replicas_of_sessions(front)
    assert len(met) == SESSIONS
    assert all(replicas == set(front.replicas) for replicas in met.values())
    ends = await balanced.recorded(SESSIONS, server="everything", method="DELETE")
    assert [record["http_status"] for record in ends] == [200] * SESSIONS
    records = await balanced.calls(server="everything", methods="all")
    assert {record["status"] for record in records} <= {"ok", "cancelled"}

"""Tools about streams, notifications and headers, and the store that makes streams resumable."""

import asyncio
from typing import Annotated

from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import Prompt
from mcp.server.streamable_http import (
    GET_STREAM_KEY,
    EventCallback,
    EventId,
    EventMessage,
    EventStore,
    StreamId,
)
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import MISSING_REQUIRED_CLIENT_CAPABILITY, JSONRPCError, JSONRPCMessage, JSONRPCResponse
from pydantic import Field


class Events(EventStore):
    """Keeps every event of one session in memory. An event's id is its place among them."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, JSONRPCMessage | None]] = []
        self._stored = asyncio.Condition()

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        async with self._stored:
            self._events.append((stream_id, message))
            self._stored.notify_all()
            return str(len(self._events) - 1)

    async def replay_events_after(
        self, last_event_id: EventId, send_callback: EventCallback
    ) -> StreamId | None:
        """Sends what came on the stream of an event after it; of a request's stream, what is yet to come too.

        The SDK follows a stream only some time after this has returned the stream's name, and what comes in
        between is lost to the client. That must not be a call's response: so there the SDK gets no name.
        """
        place = int(last_event_id) if last_event_id.isdecimal() else len(self._events)
        if place >= len(self._events):
            return None
        stream = self._events[place][0]
        while True:
            place += 1
            if place >= len(self._events) and stream == GET_STREAM_KEY:
                return stream
            message = await self._event(place, stream)
            if message is not None:
                await send_callback(EventMessage(message, str(place)))
            if isinstance(message, JSONRPCResponse | JSONRPCError):
                return None

    async def _event(self, place: int, stream: StreamId) -> JSONRPCMessage | None:
        """The event there, once there is one; None where it is not the stream's, or there for its id only."""
        async with self._stored:
            await self._stored.wait_for(lambda: place < len(self._events))
        its_stream, message = self._events[place]
        return message if its_stream == stream else None


class ResumableSessions(StreamableHTTPSessionManager):
    """Gives each session a store of its own: the SDK's stream ids are unique within one session only."""

    @property
    def event_store(self) -> EventStore:
        return Events()

    @event_store.setter
    def event_store(self, given: object) -> None:
        """The base class sets what it was given: nothing."""


async def test_reconnection(ctx: Context) -> str:
    """Closes the stream of this very call; the client comes back for the rest (SEP-1699)."""
    await ctx.info("Before disconnect")
    await ctx.close_sse_stream()
    await ctx.info("After reconnect")
    return "Reconnection test completed"


async def tell_beside(words: str, ctx: Context) -> str:
    """Sends `words` on the session's own stream, which it has closed: the client must come back for them.

    Not one of the suite's.
    """
    async with asyncio.timeout(20):
        while not await reached(ctx):
            await asyncio.sleep(0.02)
    await ctx.close_standalone_sse_stream()
    await ctx.session.send_log_message("info", words)
    return "told"


async def reached(ctx: Context) -> bool:
    """Whether the client has opened the session's own stream, on which the ping goes to it."""
    try:
        async with asyncio.timeout(2):
            await ctx.session.send_ping()
    except TimeoutError:
        return False
    return True


async def test_logging_tool(ctx: Context) -> str:
    """Logs, for those who asked for it with their request."""
    await ctx.info("A log message")
    return "Logged for those who asked"


async def test_missing_capability(ctx: Context) -> str:
    """Cannot run without the client's model."""
    able = ctx.client_capabilities
    if able is None or able.sampling is None:
        needed: dict[str, object] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", needed)
    return "The client can sample"


def test_x_mcp_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "nowhere",
) -> str:
    """Has an argument that stands in a header too (SEP-2243)."""
    return f"region={region}"


def passing() -> str:
    """Here for a moment only."""
    return "passing"


async def test_trigger_tool_change(ctx: Context) -> str:
    """Adds a tool, removes it, and tells those who listen."""
    ctx.mcp_server.add_tool(passing)
    ctx.mcp_server.remove_tool("passing")
    await ctx.notify_tools_changed()
    return "The list of tools has changed"


async def test_trigger_prompt_change(ctx: Context) -> str:
    """Adds a prompt, removes it, and tells those who listen."""
    ctx.mcp_server.add_prompt(Prompt.from_function(passing))
    ctx.mcp_server.remove_prompt("passing")
    await ctx.notify_prompts_changed()
    return "The list of prompts has changed"


TOOLS = (
    test_reconnection,
    tell_beside,
    test_logging_tool,
    test_missing_capability,
    test_x_mcp_header,
    test_trigger_tool_change,
    test_trigger_prompt_change,
)

"""What every client does with every server, and what it finds."""

import asyncio
from dataclasses import dataclass, field

from mcp import Client, MCPError
from mcp_types import CallToolResult, TextContent

ECHO, LONG = "echo", "trigger-long-running-operation"
MESSAGE = "grüße 🎈"
STEPS = 4
MODERN, LEGACY = "2026-07-28", "2025-11-25"


@dataclass
class Findings:
    """What a client got to see. None where it has no function for it."""

    revision: str = ""  # of the protocol, as agreed with the gateway
    discovered: bool | None = None  # whether server/discover was answered, if asked
    tools: set[str] = field(default_factory=set)
    echoed: str = ""
    progress: list[float] | None = None
    completed: str = ""
    refused: str = ""  # the text of a tool's error
    after_cancelling: str | None = None  # what was echoed after a call had been cancelled


async def exercise(client: Client) -> Findings:
    """All of it, with a client of the Python SDK."""
    found = Findings(client.protocol_version)
    if found.revision == MODERN:
        found.discovered = await discovers(client)
    found.tools = {tool.name for tool in (await client.list_tools()).tools}
    found.echoed = text(await client.call_tool(ECHO, {"message": MESSAGE}))
    found.progress = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert found.progress is not None
        found.progress.append(progress)

    arguments = {"duration": 0.4, "steps": STEPS}
    found.completed = text(await client.call_tool(LONG, arguments, progress_callback=on_progress))
    error = await client.call_tool(ECHO, {})
    assert error.is_error
    found.refused = text(error)
    await cancel_a_call(client)
    found.after_cancelling = text(await client.call_tool(ECHO, {"message": MESSAGE}))
    return found


async def discovers(client: Client) -> bool:
    """Whether `server/discover` is answered with the revision that the client is held to."""
    try:
        answer = await client.session.send_discover(MODERN)
    except MCPError:
        return False
    return MODERN in answer["supportedVersions"]


async def cancel_a_call(client: Client) -> None:
    """Cancel one once it has shown that it runs."""
    runs = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        runs.set()

    call = client.call_tool(LONG, {"duration": 60, "steps": 600}, progress_callback=on_progress)
    task = asyncio.create_task(call)
    async with asyncio.timeout(10):
        await runs.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text

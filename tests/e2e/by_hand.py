"""Calls by hand, with nothing but a token."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
from mcp import MCPError

from tests.e2e.people import Person
from tests.e2e.test_cutting_off import META


async def call_tool(
    http: httpx2.AsyncClient, url: str, token: str, tool: str, arguments: dict[str, Any]
) -> httpx2.Response:
    """One tool call of the modern era."""
    params = {"name": tool, "arguments": arguments, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": tool,
    }
    return await http.post(url, json=body, headers=headers)


async def token_of(person: Person, url: str) -> str:
    """The person's token for the server at `url`, also if that then refuses them for want of a credential."""
    with suppress(MCPError), unwrapped():
        await person.bearer(url)
    assert person.tokens.tokens
    return person.tokens.tokens.access_token


@contextmanager
def unwrapped() -> Iterator[None]:
    """The error of a client that could not even begin, without the groups that tasks put around it."""
    try:
        yield
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None

"""The clients of the matrix. Each is given a server's URL and a person with a browser, and nothing else."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests import npm
from tests.conftest import free_port
from tests.e2e.conftest import Person
from tests.matrix.browser import watch, watched_errors
from tests.matrix.exercise import ECHO, LONG, MESSAGE, STEPS, Findings, exercise


@dataclass(frozen=True, slots=True)
class Visit:
    """A client's visit to the server at `url`; `home` is the client's home directory."""

    url: str
    person: Person
    packages: npm.Packages
    home: Path

    def environment(self, **values: str) -> dict[str, str]:
        """What the client starts with; no window opens, for the person with the browser is the test."""
        quiet = {"BROWSER": "true", "DISPLAY": "", "WAYLAND_DISPLAY": "", "XDG_CURRENT_DESKTOP": ""}
        return self.packages.environment(HOME=str(self.home), **quiet, **values)


async def python_modern(visit: Visit) -> Findings:
    """The Python SDK, held to the revision 2026-07-28."""
    return await _over_http(visit, "2026-07-28")


async def python_legacy(visit: Visit) -> Findings:
    """The Python SDK as before that revision."""
    return await _over_http(visit, "legacy")


async def _over_http(visit: Visit, mode: str) -> Findings:
    async with visit.person.client(visit.url, mode) as client:
        return await exercise(client)


async def python_sse(visit: Visit) -> Findings:
    """The Python SDK over HTTP+SSE (2024-11-05)."""
    url = f"{visit.url}/sse"
    async with Client(sse_client(url, auth=visit.person.provider(url)), mode="legacy") as client:
        return await exercise(client)


async def mcp_remote(visit: Visit) -> Findings:
    """mcp-remote: a server over stdio for clients that know no other, and a client of the gateway."""
    node, *arguments = visit.packages.command("mcp-remote", visit.url, str(free_port()))
    server = StdioServerParameters(command=node, args=arguments, env=visit.environment())
    async with (
        watched_errors(visit.person.browser) as errors,
        Client(stdio_client(server, errors), mode="legacy") as client,
    ):
        return await exercise(client)


async def typescript_1(visit: Visit) -> Findings:
    """The first major version of the TypeScript SDK, which most clients are made with."""
    return await _typescript(visit, "1")


async def typescript_2(visit: Visit) -> Findings:
    """The second, which finds out by itself what the server speaks."""
    return await _typescript(visit, "2", "auto")


async def _typescript(visit: Visit, *options: str) -> Findings:
    process = await asyncio.create_subprocess_exec(
        *visit.packages.script("typescript.mjs", visit.url, *options),
        env=visit.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    try:
        async for line in process.stdout:
            told = json.loads(line)
            if "found" in told:
                return Findings(**told["found"] | {"tools": set(told["found"]["tools"])})
            location = await visit.person.browser.authorize(told["authorize"])
            process.stdin.write(f"{location}\n".encode())
    finally:
        process.stdin.close()
        await process.wait()
    raise AssertionError(f"the client ended with status {process.returncode}")


async def inspector(visit: Visit) -> Findings:
    """The inspector's command line: one request a run, which shows no progress and cannot be cancelled."""
    listed = await _inspect(visit, "tools/list")
    echo, long = {"message": MESSAGE}, {"duration": 0.4, "steps": STEPS}
    found = Findings(tools={tool["name"] for tool in listed["tools"]})
    found.echoed = _text(await _call(visit, ECHO, echo))
    found.completed = _text(await _call(visit, LONG, long))
    error = await _call(visit, ECHO, {})
    found.refused = _text(error) if error["isError"] else ""
    return found


async def _call(visit: Visit, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    options = ["--tool-name", tool, "--tool-args-json", json.dumps(arguments)]
    return await _inspect(visit, "tools/call", *options)


async def _inspect(visit: Visit, method: str, *options: str) -> dict[str, Any]:
    """The result of one request."""
    command = visit.packages.command("mcp-inspector", "--cli", visit.url, *options)
    callback = f"http://127.0.0.1:{free_port()}/oauth/callback"
    process = await asyncio.create_subprocess_exec(
        *[
            *command,
            "--transport",
            "http",
            "--method",
            method,
            "--format",
            "json",
            "--callback-url",
            callback,
        ],
        env=visit.environment(MCP_AUTO_OPEN_ENABLED="true"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    answer, printed = await asyncio.gather(process.stdout.read(), watch(process.stderr, visit.person.browser))
    await process.wait()
    assert answer, printed
    result: dict[str, Any] = json.loads(answer)["result"]
    return result


def _text(result: dict[str, Any]) -> str:
    text: str = result["content"][0]["text"]
    return text


CLIENTS: dict[str, Callable[[Visit], Awaitable[Findings]]] = {
    "python-modern": python_modern,
    "python-legacy": python_legacy,
    "python-sse": python_sse,
    "typescript-1": typescript_1,
    "typescript-2": typescript_2,
    "mcp-remote": mcp_remote,
    "inspector": inspector,
}

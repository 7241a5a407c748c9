"""The upstreams of the matrix: one of each kind that there is, with the same tools."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests import npm
from tests.conftest import await_port, free_port
from tests.upstreams import serving

UPSTREAMS = ("modern", "sessions", "bridged-sessions", "http-sse", "stdio")


@dataclass(frozen=True, slots=True)
class Upstream:
    """`definition` is what an administrator registers."""

    slug: str
    definition: dict[str, Any]


@contextmanager
def running(packages: npm.Packages) -> Iterator[list[Upstream]]:
    """All of them. The one over stdio is started by the gateway."""
    with (
        serving("tests.matrix.modern_server") as modern,
        everything(packages, "streamableHttp") as legacy,
        everything(packages, "sse") as sse,
    ):
        yield [
            Upstream("modern", {"url": f"{modern}/mcp"}),
            Upstream("sessions", {"url": f"{legacy}/mcp"}),
            Upstream("bridged-sessions", {"url": f"{legacy}/mcp", "bridge": "always"}),
            Upstream("http-sse", {"url": f"{sse}/sse", "transport": "sse"}),
            Upstream("stdio", {"transport": "stdio"} | by_npx(packages)),
        ]


@contextmanager
def everything(packages: npm.Packages, transport: str) -> Iterator[str]:
    """The origin of @modelcontextprotocol/server-everything, on the SDK of the revisions with sessions."""
    port = free_port()
    command = packages.command("mcp-server-everything", transport)
    environment = packages.environment(PORT=str(port))
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet) as process:
        try:
            await_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def by_npx(packages: npm.Packages) -> dict[str, Any]:
    """How a stdio server from npm is registered; the version here is the one that the lock pins."""
    command = ["npx", "--prefix", str(npm.DIRECTORY), "mcp-server-everything", "stdio"]
    return {"command": command, "environment": {"PATH": packages.environment()["PATH"]}}

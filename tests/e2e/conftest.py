"""Lockgate as its users have it: real processes, a scripted browser, the official MCP client."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Nats, await_port, free_port
from tests.e2e.fleets import Edge, Fleet, started_fleet
from tests.e2e.gates import Gate, started
from tests.e2e.people import CALLBACK, Browser, Person
from tests.e2e.processes import LOCKGATE, Process, environment
from tests.front import Front
from tests.upstreams import serving

__all__ = [
    "CALLBACK",
    "LOCKGATE",
    "Browser",
    "Edge",
    "Fleet",
    "Gate",
    "Person",
    "Process",
    "Recorder",
    "environment",
    "started",
]


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A fresh `lockgate up` with the demo server."""
    async with started(tmp_path) as gate:
        yield gate


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    """Stands before the replicas of `balanced`."""
    front = Front()
    await front.start()
    yield front
    await front.stop()


@pytest.fixture
async def balanced(front: Front, tmp_path: Path) -> AsyncIterator[Gate]:
    """Two replicas behind one URL, which take turns request by request."""
    async with started(tmp_path, front) as gate:
        second = await gate.replica("second")
        front.replicas = [front.services, second.url]
        yield gate


@pytest.fixture
async def fleet(nats: Nats, tmp_path: Path) -> AsyncIterator[Fleet]:
    """The five services as processes of their own over a NATS server."""
    async with started_fleet(nats.url, tmp_path) as fleet:
        yield fleet


@dataclass
class Recorder:
    """A real MCP server (mcp SDK) in a process of its own, which writes down every request it gets."""

    url: str
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        """Headers and body of each request, in order."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def calls(self) -> list[dict[str, Any]]:
        """The arguments of each tool call."""
        bodies = [json.loads(request["body"]) for request in self.requests() if request["body"]]
        return [body["params"]["arguments"] for body in bodies if body.get("method") == "tools/call"]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    port, log = free_port(), tmp_path / "upstream.jsonl"
    command = [sys.executable, "-m", "tests.e2e.recorder", str(port), str(log)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        try:
            await_port(port)
            yield Recorder(f"http://127.0.0.1:{port}/mcp", log)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def everything() -> Iterator[str]:
    """URL of the upstream that the official conformance suite expects."""
    with serving("tests.conformance.everything") as origin:
        yield f"{origin}/mcp"

"""Fixtures that every kind of test shares: real servers on free ports, stopped when the test ends."""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

START_WITHIN = 15.0  # seconds
PORTS = range(10_000, 20_000)
PORTS_OF_A_WORKER = 1_000


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """Tests run on the loop that production runs on; its transports are not those of asyncio."""
    return {"uvloop": uvloop.new_event_loop}


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago.

    Nobody else hands it out: the system takes higher ones for connections, other workers of this run have
    other ranges.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = PORTS.start + worker * PORTS_OF_A_WORKER % len(PORTS)
    for _ in range(PORTS_OF_A_WORKER):
        port = first + secrets.randbelow(PORTS_OF_A_WORKER)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no free port from {first}")


def await_port(port: int) -> None:
    """Wait until somebody listens on a port of 127.0.0.1."""
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


async def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait until `condition()` is true; fail when it is not in time."""
    deadline, pause = time.monotonic() + within, 0.001
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.01)


@dataclass
class Nats:
    """A real nats-server with JetStream, which a test may stop and start again on its data."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
        command = [program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.directory)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        await_port(self.port)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(START_WITHIN)
            self.process = None


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    server = Nats(tmp_path / "nats")
    server.start()
    yield server
    server.stop()

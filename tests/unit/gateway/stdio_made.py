"""What tests of stdio servers share: programs, and processes that are gone when the test ends."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from libs.common.control.entries import CredentialVersion, Org, Server, User, destination_of
from libs.common.control.tables import Tables
from libs.common.requests import ProcessReport
from services.gateway.credentials import NONE, Opened
from services.gateway.links.port import Era, Reached
from services.gateway.links.processes import Processes
from services.gateway.redaction import Redactor
from services.gateway.settings import GatewaySettings
from tests.conftest import eventually

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
REAL = {"PYTHONPATH": str(ROOT)}  # for `real`
SECRET = "t0ken-of-alice"
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def by_hand(begin: str = "legacy") -> list[str]:
    """The command of stdio_program.py."""
    return [sys.executable, "-I", "-S", str(HERE / "stdio_program.py"), begin]


def real(era: str) -> list[str]:
    """The command of stdio_server.py; it needs the environment `REAL`."""
    return [sys.executable, "-m", "tests.unit.gateway.stdio_server", era]


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class World:
    """A replica's processes, and the tables that they go by."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        given: dict[str, Any] = {"gateway_stdio": "on", "gateway_session_key": KEY, "data_dir": directory}
        self.tables = Tables(org=Org(version=1))
        for name in ("alice", "bob"):
            self.tables.users[name] = User(version=1, id=name, email=f"{name}@x.example")
        self.processes = Processes(GatewaySettings(**given | settings), self.tables, lambda: True)

    def put(self, command: list[str], **fields: Any) -> Server:
        """Register the server `demo`, in place of the one that was there."""
        server = Server(version=1, slug="demo", name="Demo", transport="stdio", command=command, **fields)
        self.tables.servers["demo"] = server
        self.processes.review("server.demo", b"", 1)
        return server

    def reports(self) -> list[ProcessReport]:
        """What administrators see."""
        return [instance.report(64 * 1024) for instance in self.processes._instances.values()]

    def running(self) -> list[ProcessReport]:
        return [report for report in self.reports() if report.state in {"starting", "running"}]

    def errors(self) -> list[str]:
        """What the process that runs has written beside its messages."""
        [report] = self.running()
        return report.errors

    def remove(self) -> None:
        del self.tables.servers["demo"]
        self.processes.review("server.demo", None, 1)

    def credential(self, owner: str, version: int = 1, secret: str = SECRET) -> tuple[str, Opened]:
        """Store a credential for `demo`; gives its key, and what the wallet would."""
        key = f"demo.{owner}"
        origin = destination_of(self.tables.servers["demo"])
        entry = CredentialVersion(version=version, slug="demo", user=owner, origin=origin)
        self.tables.credentials[key] = entry
        self.processes.review(f"credential.{key}", b"", 1)
        redactor = Redactor([(b"TOKEN", secret.encode())])
        return key, Opened([], redactor, {"TOKEN": secret}, version)

    async def reach(
        self, user: str = "alice", client: Era = "legacy", credential: str = "", opened: Opened = NONE
    ) -> Reached:
        return await self.processes.reach("demo", user, credential, opened, client)


@asynccontextmanager
async def world(directory: Path, **settings: Any) -> AsyncIterator[World]:
    """A `World`; when it is left, no process is."""
    made = World(directory, **settings)
    await made.processes.start()
    try:
        yield made
    finally:
        pids = [report.pid for report in made.reports()]
        await made.processes.stop()
        await eventually(lambda: not any(alive(pid) for pid in pids if pid))

"""An administrator goes over to another master key, and nobody who calls notices."""

import asyncio
import base64
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from sqlmodel import Session

from libs.common.control.entries import ORGANIZATION
from libs.common.sql import open_database, sqlite_url
from services.credentials.app import MIGRATIONS
from services.credentials.domain import Account, Owner, encode_values
from services.credentials.masterkey.local import LocalKey
from services.credentials.store.keys import unlock
from services.credentials.store.rows import fill, name_of
from tests.e2e.by_hand import call_tool, token_of
from tests.e2e.conftest import Gate, started
from tests.e2e.indiscreet import digest
from tests.e2e.test_cutting_off import payload
from tests.upstreams import serving

RECORDS = 500  # tests/faults goes over with many more
CALLERS = 3
CALLS = 3  # of each, at least, before, and after
WITHIN = 60.0  # seconds


@pytest.fixture
def indiscreet() -> Iterator[str]:
    with serving("tests.e2e.indiscreet") as origin:
        yield f"{origin}/mcp"


def fill_vault(data: Path, key: bytes) -> None:
    """Many records, beside those that are in use."""
    engine = open_database(sqlite_url(data / "credentials.db"), MIGRATIONS)
    master = LocalKey(key)
    vault = unlock(engine, [master])
    with Session(engine) as session, session.begin():
        for number in range(RECORDS):
            account = Account(
                id=f"{number:026}", owner=Owner(f"unused-{number}", ORGANIZATION), kind="api_key",
                origin="https://unused.example.com:443", version=1, sealed_version=1, created_at="",
                created_by="", changed_at="", changed_by="",
            )  # fmt: skip
            data_key = vault.new_data_key(name_of(account.id), master.id)
            session.add(fill(None, account, data_key.seal(encode_values({"key": "k"}), account.identity())))
    engine.dispose()


@dataclass
class Caller:
    """Has a new key stored for a server, calls, and looks whether the server was sent that one."""

    gate: Gate
    slug: str
    token: str
    http: httpx2.AsyncClient
    key: str = ""
    going: bool = True
    calls: int = 0
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        while self.going:
            await self.store()
            await self.call()

    async def store(self) -> None:
        self.key = secrets.token_urlsafe(24)
        body = {"header": "X-Key", "key": self.key}
        await self.gate.admin.api("PUT", f"/api/credentials/{self.slug}/organization", body)

    async def call(self) -> None:
        answer = await call_tool(self.http, self.gate.server(self.slug), self.token, "reveal", {})
        if digest(self.key) not in str(payload(answer)):
            self.failures.append(answer.text)
        self.calls += 1


@pytest.mark.timeout(180)
async def test_calls_go_on_while_the_vault_goes_over_to_another_master_key(
    tmp_path: Path, indiscreet: str
) -> None:
    new = secrets.token_bytes(32)
    text = base64.b64encode(new).decode()
    async with started(tmp_path, variables={"LOCKGATE_CREDENTIALS_MORE_KEYS": text}) as gate:
        old = base64.b64decode((gate.data / "master.key").read_text())
        await asyncio.to_thread(fill_vault, gate.data, old)
        callers = await made(gate, indiscreet)
        running = [asyncio.create_task(caller.run()) for caller in callers]
        await called(callers)
        await gate.admin.api("PUT", "/api/credentials/rotation", {"key": LocalKey(new).id})
        async with asyncio.timeout(WITHIN):
            while not (state := await gate.admin.api("GET", "/api/credentials/rotation"))["complete"]:
                await asyncio.sleep(0.05)
        await called(callers)
        for caller in callers:
            caller.going = False
        await asyncio.gather(*running)
        assert [failure for caller in callers for failure in caller.failures] == []
        assert state["total"] >= RECORDS + CALLERS
        await restarted_with(gate, text)
        for caller in callers:
            await caller.call()
            assert caller.failures == [], "the earlier key is not needed any more"


async def made(gate: Gate, upstream: str) -> list[Caller]:
    mia, callers = await gate.member(), []
    for number in range(CALLERS):
        slug = f"keyed-{number}"
        server = {"name": slug, "url": upstream, "auth": "api_key", "default_access": "allow"}
        await gate.admin.api("PUT", f"/api/policy/servers/{slug}", server)
        callers.append(Caller(gate, slug, await token_of(mia, gate.server(slug)), await gate.http()))
    return callers


async def called(callers: list[Caller]) -> None:
    """Until each of them has called so many times more."""
    goals = [(caller, caller.calls + CALLS) for caller in callers]
    async with asyncio.timeout(WITHIN):
        while any(caller.calls < goal for caller, goal in goals):
            await asyncio.sleep(0.02)


async def restarted_with(gate: Gate, key: str) -> None:
    """Start it again with that master key and no other."""
    assert gate.process
    gate.process.stop()
    (gate.data / "master.key").unlink()
    del gate.process.env["LOCKGATE_CREDENTIALS_MORE_KEYS"]
    gate.process.env["LOCKGATE_CREDENTIALS_MASTER_KEY"] = key
    await gate.process.start()

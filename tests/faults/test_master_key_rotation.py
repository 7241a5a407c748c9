"""Going over to another master key with many records, while gateways ask; killed midway and resumed.

Fewer on every run of the tests; `make faults` takes 10,000:

    RECORDS=10000 pytest -s tests/faults/test_master_key_rotation.py
"""

import asyncio
import base64
import os
import random
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import msgspec
import pytest
from sqlmodel import Session

from libs.common.control.entries import destination_of
from libs.common.errors import LockgateError
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import Opener
from libs.common.sql import open_database, sqlite_url
from services.credentials.app import MIGRATIONS
from services.credentials.domain import Account, Owner, encode_values
from services.credentials.masterkey.local import LocalKey
from services.credentials.store.keys import unlock
from services.credentials.store.rows import fill, name_of
from tests.conftest import Nats, await_port, free_port
from tests.unit.conftest import ControlLog, Person, control, sign_in, signer
from tests.unit.credentials.conftest import server

__all__ = ["control", "sign_in", "signer"]

RECORDS = int(os.environ.get("RECORDS", "2000"))
WITHIN = 90.0  # seconds, for the whole of a rotation on a slow machine


@dataclass
class Service:
    """The credentials service as a process of its own."""

    data: Path
    nats: Nats
    keys: list[str]  # in Base64, the main one first
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        more = {"LOCKGATE_CREDENTIALS_MORE_KEYS": ",".join(self.keys[1:])} if self.keys[1:] else {}
        environment = os.environ | more | {
            "LOCKGATE_DATA_DIR": str(self.data),
            "LOCKGATE_NATS_URL": self.nats.url,
            "LOCKGATE_CREDENTIALS_MASTER_KEY": self.keys[0],
        }  # fmt: skip
        command = [sys.executable, "-m", "services.cli", "serve", "credentials", "--port", str(self.port)]
        with (self.data.parent / "service.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        await_port(self.port)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


@dataclass
class Gateways:
    """Asks for credentials as gateways do, one after the other, and remembers what went wrong."""

    control: ControlLog
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    going: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, number: int) -> str:
        """The key of that user, as it goes into the header."""
        opener, user = Opener(), f"user-{number}"
        query = OpenCredential(slug="wiki", user=user, public_key=opener.public_key)
        sealed = await self.control.bus.request(OPEN_CREDENTIAL, query, SealedCredential)
        context = credential_context("wiki", user, sealed.version)
        injection = msgspec.json.decode(opener.open(sealed.box, context), type=Injection)
        return injection.headers["authorization"]

    async def run(self, chance: random.Random) -> None:
        while True:
            if not self.going.is_set():
                self.idle.set()
                await self.going.wait()
                self.idle.clear()
            number = chance.randrange(RECORDS)
            self.asked += 1
            try:
                if (given := await self.ask(number)) != f"Bearer key-{number}":
                    self.failures.append(f"user-{number} got {given}")
            except LockgateError as error:
                self.failures.append(f"user-{number}: {error}")
            await asyncio.sleep(0)

    async def answered(self) -> None:
        """Return when the service answers: it has written its part of the control log by then."""
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    await self.ask(0)
                    return
                except LockgateError:
                    await asyncio.sleep(0.1)

    async def pause(self) -> None:
        self.going.clear()
        await self.idle.wait()


@pytest.fixture
def keys() -> tuple[str, str]:
    old, new = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    return old, new


@pytest.fixture
def service(tmp_path: Path, nats: Nats, keys: tuple[str, str]) -> Iterator[Service]:
    data = tmp_path / "data"
    data.mkdir()
    _fill(data, keys[0])
    service = Service(data, nats, list(keys))
    yield service
    service.kill()


def _fill(data: Path, key: str) -> None:
    """A vault with a credential of each of many people, under that master key."""
    engine = open_database(sqlite_url(data / "credentials.db"), MIGRATIONS)
    master = LocalKey(base64.b64decode(key))
    vault = unlock(engine, [master])
    with Session(engine) as session, session.begin():
        for number in range(RECORDS):
            account = Account(
                id=f"{number:026}", owner=Owner("wiki", f"user-{number}"), kind="api_key",
                origin=destination_of(server()), version=1, sealed_version=1, created_at="", created_by="",
                changed_at="", changed_by="",
            )  # fmt: skip
            data_key = vault.new_data_key(name_of(account.id), master.id)
            secret = encode_values({"key": f"key-{number}"})
            session.add(fill(None, account, data_key.seal(secret, account.identity())))
    engine.dispose()


@pytest.fixture
async def admin(control: ControlLog, sign_in: object) -> Person:
    await control.put(server())
    person: Person = await sign_in("admin", "ada")  # type: ignore[operator]
    for number in range(RECORDS):
        message = msgspec.json.encode({"version": 1, "id": f"user-{number}", "email": "u@example.com"})
        await control.bus.client.publish(f"$KV.CONTROL.user.user-{number}", message)
    await control.bus.client.flush()
    return person


@pytest.fixture
async def gateways(control: ControlLog) -> AsyncIterator[Gateways]:
    gateways = Gateways(control)
    tasks = [asyncio.create_task(gateways.run(random.Random(seed))) for seed in range(1)]
    yield gateways
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _progress(client: httpx2.AsyncClient) -> tuple[int, bool]:
    answer = (await client.get("/api/credentials/rotation")).json()
    return int(answer["done"]), bool(answer["complete"])


@pytest.mark.timeout(300)
async def test_no_call_fails_while_all_records_go_over_and_a_kill_only_pauses_it(
    service: Service, admin: Person, gateways: Gateways, keys: tuple[str, str]
) -> None:
    new = LocalKey(base64.b64decode(keys[1])).id
    await asyncio.to_thread(service.start)
    await gateways.answered()
    url = f"http://127.0.0.1:{service.port}"
    async with httpx2.AsyncClient(base_url=url, headers=admin.script, timeout=30) as client:
        gateways.going.set()
        answer = await client.put("/api/credentials/rotation", json={"key": new})
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(WITHIN):
            while (await _progress(client))[0] < RECORDS // 5:
                pass
        await gateways.pause()  # a process that is killed answers nobody; that is not what this is about
        service.kill()
        left = _wrapped_by(service.data, new)
        assert RECORDS // 5 <= left < RECORDS
        await asyncio.to_thread(service.start)
        await gateways.answered()
        gateways.going.set()
        asked = gateways.asked
        async with asyncio.timeout(WITHIN):
            while not (await _progress(client))[1]:
                await asyncio.sleep(0.05)
        await gateways.pause()
    assert gateways.failures == []
    assert gateways.asked > asked > 0
    service.stop()
    service.keys = [keys[1]]  # the earlier key is not needed any more
    await asyncio.to_thread(service.start)
    await gateways.answered()
    numbers = random.Random(7).sample(range(RECORDS), 200)
    given = [await gateways.ask(number) for number in numbers]
    assert given == [f"Bearer key-{number}" for number in numbers]
    print(
        f"\n{RECORDS} records, killed at {left}; {gateways.asked} credentials opened meanwhile, none failed"
    )


def _wrapped_by(data: Path, key_id: str) -> int:
    connection = sqlite3.connect(data / "credentials.db")
    try:
        query = "SELECT count(*) FROM accounts WHERE key_id = ?"
        return int(connection.execute(query, (key_id,)).fetchone()[0])
    finally:
        connection.close()

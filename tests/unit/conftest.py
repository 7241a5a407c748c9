"""Fixtures for the services' tests: the control log as other services write it, people who are signed in,
apps that run, records that were shipped, a PostgreSQL server."""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import msgspec
import psycopg
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey
from nats.js.errors import NotFoundError

from libs.common.bus import Bus
from libs.common.control.entries import AnyEntry, Keys, Role, User, key_of
from libs.common.control.follower import STREAM, SUBJECT, ensure_bucket
from libs.common.records import STREAM as RECORDS
from libs.common.records import SUBJECTS
from libs.common.settings import Settings
from libs.common.sql import open_database, sqlite_url
from libs.common.tokens import ACCESS_TYPE, ALGORITHM, CONSOLE_AUDIENCE, CONSOLE_TYPE
from tests.conftest import Nats, free_port

PUBLIC_URL = "http://127.0.0.1:8080"  # as `Settings` has it by default
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
IN_BROWSER = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


class ControlLog:
    """The control log of a test's NATS, written and read by its format alone."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def put(self, entry: AnyEntry) -> int:
        """Write `entry` as its owner would. Returns the revision."""
        ack = await self.bus.js.publish(SUBJECT + key_of(entry), msgspec.json.encode(entry))
        return int(ack.seq)

    async def remove(self, key: str) -> int:
        """Remove what stands under `key`. Returns the revision."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        return int((await self.bus.js.publish(SUBJECT + key, b"", headers=headers)).seq)

    async def get(self, key: str) -> dict[str, Any] | None:
        """What stands under `key`; None when nothing does."""
        try:
            message = await self.bus.js.get_last_msg(STREAM, SUBJECT + key)
        except NotFoundError:
            return None
        return msgspec.json.decode(message.data, type=dict[str, Any]) if message.data else None


@dataclass
class Signer:
    """Signs tokens as auth does, with a key of the test's own."""

    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "test-key"}))

    @property
    def entry(self) -> Keys:
        return Keys(version=1, issuer=PUBLIC_URL, keys=[dict(self.key.as_dict(private=False))])

    def token(
        self, user: str, *, typ: str = CONSOLE_TYPE, audience: str = CONSOLE_AUDIENCE, **more: Any
    ) -> str:
        """A token of `user`, issued now; `more` are claims that differ from the usual ones."""
        now = int(time.time())
        claims = {
            "iss": PUBLIC_URL,
            "sub": user,
            "aud": audience,
            "iat": now,
            "exp": now + 900,
            "grant": f"session-{user}",
        }
        header = {"alg": ALGORITHM, "typ": typ, "kid": "test-key"}
        return jwt.encode(header, claims | more, self.key, algorithms=[ALGORITHM])


@dataclass(frozen=True)
class Person:
    """Somebody with an account, the token of their console cookie, and an access token for the APIs."""

    user: User
    console_token: str
    access_token: str

    @property
    def cookies(self) -> dict[str, str]:
        """What their signed-in browser keeps; send it with `IN_BROWSER`."""
        return {"lockgate": self.console_token}

    @property
    def browser(self) -> dict[str, str]:
        """All headers of their signed-in browser, for a single request."""
        return IN_BROWSER | {"Cookie": f"lockgate={self.console_token}"}

    @property
    def script(self) -> dict[str, str]:
        """The headers of a program with their access token."""
        return {"Authorization": f"Bearer {self.access_token}"}


SignIn: TypeAlias = Callable[..., Awaitable[Person]]
Serve: TypeAlias = Callable[[FastAPI], Awaitable[httpx2.AsyncClient]]


Migrated: TypeAlias = Callable[[Path, Path], None]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Migrated:
    """`migrated(scripts, path)` puts a SQLite database at `path`, as these migrations leave an empty one: to
    run them takes as long as most tests."""
    made: dict[Path, Path] = {}

    def put(scripts: Path, path: Path) -> None:
        if scripts not in made:
            made[scripts] = tmp_path_factory.mktemp("migrated") / "empty.db"
            open_database(sqlite_url(made[scripts]), scripts).dispose()
            made[scripts].chmod(0o600)
        path.parent.mkdir(mode=0o700)
        shutil.copy(made[scripts], path)

    return put


@pytest.fixture
async def control(nats: Nats) -> AsyncIterator[ControlLog]:
    bus = Bus(Settings(nats_url=nats.url), "test")
    await bus.start()
    await ensure_bucket(bus, replicas=1)
    yield ControlLog(bus)
    await bus.stop()


@pytest.fixture
async def signer(control: ControlLog) -> Signer:
    signer = Signer()
    await control.put(signer.entry)
    return signer


@pytest.fixture
def sign_in(control: ControlLog, signer: Signer) -> SignIn:
    """`await sign_in("admin")` is a new person of that role. Call it before the app starts, or wait until the
    app's tables know the person."""

    async def make(role: Role, name: str = "") -> Person:
        name = name or f"{role}-{secrets.token_hex(3)}"
        user = User(version=1, id=name, email=f"{name}@example.com", name=name.title(), role=role)
        await control.put(user)
        access = signer.token(user.id, typ=ACCESS_TYPE, audience=f"{PUBLIC_URL}/api")
        return Person(user, signer.token(user.id), access)

    return make


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`client = await serve(app)` enters the app's lifespan and gives a client; both end with the test."""
    async with AsyncExitStack() as stack:

        async def start(app: FastAPI) -> httpx2.AsyncClient:
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx2.ASGITransport(app)
            client = httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL)
            return await stack.enter_async_context(client)

        yield start


Shipped: TypeAlias = Callable[[str], Awaitable[list[dict[str, Any]]]]


@pytest.fixture
async def shipped(control: ControlLog) -> Shipped:
    """`await shipped("admin_events")` is what has reached the stream of that table so far, in order."""

    async def read(table: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        try:
            state = (await control.bus.js.stream_info(RECORDS)).state
        except NotFoundError:  # no service has started yet
            return []
        for sequence in range(max(1, state.first_seq), state.last_seq + 1):
            message = await control.bus.js.get_msg(RECORDS, sequence)
            assert message.subject and message.subject.startswith(SUBJECTS.removesuffix(">"))
            if message.subject.split(".")[1] == table:
                lines += [msgspec.json.decode(line) for line in (message.data or b"").splitlines()]
        return lines

    return read


def new_database(server: str) -> str:
    """The URL of a new database at the PostgreSQL server of the fixture `postgres`."""
    name = f"lockgate_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own."""
    if POSTGRES is None:
        pytest.skip("there is no PostgreSQL on this machine")
    directory, port = Path(tempfile.mkdtemp(prefix="lockgate-postgres-")), free_port()
    user = "nobody" if os.getuid() == 0 else None  # it does not run as root
    if user:
        shutil.chown(directory, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(POSTGRES / program), "-D", str(directory / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60, user=user)

    try:
        run("initdb", "-A", "trust", "-U", "lockgate", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={directory}"
        run("pg_ctl", "start", "-w", "-o", options, "-l", str(directory / "log"))
        yield f"postgresql://lockgate@127.0.0.1:{port}/postgres"
        run("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(directory, ignore_errors=True)

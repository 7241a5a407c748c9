"""Tokens are refreshed by several replicas of the credentials service, which get killed: the provider is
asked once, and what it still honours is not lost.

A provider that rotates strictly takes a refresh token once. If the replica that asked is killed after it did
and before the answer is stored, only a provider that allows for a repetition (RFC 9700, section 4.14.2) still
honours anything that can be known here; from any other the owner has to hear that they must connect again.
"""

import asyncio
import base64
import contextlib
import secrets
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import psycopg
import pytest

from libs.common.bus import Refused
from libs.common.control.entries import Group, ServerAccess
from libs.common.errors import Unavailable
from libs.common.requests import (
    OPEN_CREDENTIAL,
    REFRESH_CREDENTIAL,
    Injection,
    OpenCredential,
    RefreshCredential,
    RefreshedCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import Opener
from tests.conftest import Nats, free_port
from tests.e2e.conftest import Process, environment
from tests.providers.running import OAuthProvider
from tests.unit.conftest import PUBLIC_URL, ControlLog, Person, SignIn, new_database
from tests.unit.credentials.oauth_made import SLUG, guarded

AT_ONCE = 200
WITHIN = 40.0  # seconds for whatever has to happen; a lease of a killed replica is a fifth of it
PATIENCE = 3.0  # seconds, of those who may be asking a replica that is no more


@dataclass
class Replicas:
    """Processes of the credentials service on one database, and a gateway that asks them."""

    control: ControlLog
    provider: OAuthProvider
    directory: Path
    settings: dict[str, Any]
    running: list[Process] = field(default_factory=list)

    async def start(self) -> Process:
        """One more."""
        port = free_port()
        own = self.directory / f"replica-{len(self.running)}"
        settings = self.settings | {"data_dir": own}
        process = Process(
            ["serve", "credentials", "--port", str(port)],
            environment(**settings),
            f"http://127.0.0.1:{port}",
            self.directory / f"{own.name}.log",
        )
        self.running.append(process)
        await process.start()
        return process

    def stop(self) -> None:
        for process in self.running:
            process.stop()

    async def connect(self, person: Person) -> None:
        """Connect at the first one, as a browser does."""
        async with httpx2.AsyncClient(base_url=self.running[0].url, timeout=30) as http:
            page = await http.post(f"/credentials/servers/{SLUG}/connect", headers=person.browser)
            assert page.status_code == 200, page.text
            back = await self.provider.allow(page.headers["refresh"].removeprefix("0; url="))
            answer = await http.get(back.removeprefix(PUBLIC_URL), headers=person.browser)
            assert answer.status_code == 303, answer.text

    async def version(self, person: Person) -> int:
        """That of the credential in the control log."""
        entry = await self.control.get(f"credential.{SLUG}.{person.user.id}")
        assert entry
        return int(entry["version"])

    async def refresh(self, person: Person, seen: int, within: float = WITHIN) -> int:
        query = RefreshCredential(slug=SLUG, user=person.user.id, version=seen)
        answer = await self.control.bus.request(
            REFRESH_CREDENTIAL, query, RefreshedCredential, timeout=within
        )
        return answer.version

    async def token(self, person: Person) -> str:
        """The access token for that person's calls."""
        opener, user = Opener(), person.user.id
        query = OpenCredential(slug=SLUG, user=user, public_key=opener.public_key)
        sealed = await self.control.bus.request(OPEN_CREDENTIAL, query, SealedCredential, timeout=WITHIN)
        opened = opener.open(sealed.box, credential_context(SLUG, user, sealed.version))
        headers = msgspec.json.decode(opened, type=Injection).headers
        return headers["authorization"].removeprefix("Bearer ")


@pytest.fixture
async def ada(sign_in: SignIn) -> Person:
    return await sign_in("member", "ada")


@asynccontextmanager
async def replicas_on(
    database: str, nats: Nats, control: ControlLog, provider: OAuthProvider, directory: Path
) -> AsyncIterator[Replicas]:
    await control.put(Group(version=1, id="default", name="Everyone", servers={SLUG: ServerAccess()}))
    await control.put(guarded(provider))
    settings = {
        "public_url": PUBLIC_URL,
        "nats_url": nats.url,
        "credentials_database_url": database,
        "credentials_master_key": base64.b64encode(secrets.token_bytes(32)).decode(),
        "credentials_private_providers": "true",
    }
    replicas = Replicas(control, provider, directory, settings)
    yield replicas
    replicas.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
async def replicas(
    request: pytest.FixtureRequest, nats: Nats, control: ControlLog, provider: OAuthProvider, tmp_path: Path
) -> AsyncIterator[Replicas]:
    database = f"sqlite:///{tmp_path / 'vault.db'}"
    if request.param == "postgresql":
        database = new_database(request.getfixturevalue("postgres"))
    async with replicas_on(database, nats, control, provider, tmp_path) as made:
        yield made


@pytest.fixture
async def on_postgres(
    postgres: str, nats: Nats, control: ControlLog, provider: OAuthProvider, tmp_path: Path
) -> AsyncIterator[Replicas]:
    async with replicas_on(new_database(postgres), nats, control, provider, tmp_path) as made:
        yield made


@pytest.fixture
async def on_sqlite(
    nats: Nats, control: ControlLog, provider: OAuthProvider, tmp_path: Path
) -> AsyncIterator[Replicas]:
    async with replicas_on(f"sqlite:///{tmp_path / 'vault.db'}", nats, control, provider, tmp_path) as made:
        yield made


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WITHIN):
        while not await condition():
            await asyncio.sleep(0.02)


async def until_held(provider: OAuthProvider) -> None:
    """Until the provider has a refresh in its hands."""

    async def held() -> bool:
        return bool((await provider.state())["holding"])

    await until(held)


async def test_two_hundred_that_ask_three_replicas_at_once_cause_one_refresh(
    replicas: Replicas, ada: Person, provider: OAuthProvider
) -> None:
    for _ in range(3):
        await replicas.start()
    await replicas.connect(ada)
    await provider.do("expire")
    await provider.set(slow=0.5)
    seen = await replicas.version(ada)
    versions = await asyncio.gather(*(replicas.refresh(ada, seen) for _ in range(AT_ONCE)))
    assert len(set(versions)) == 1
    assert versions[0] > seen
    counts = (await provider.state())["counts"]
    assert (counts["refresh_requests"], counts["refreshes"]) == (1, 1)
    assert await provider.accepts(await replicas.token(ada))


async def test_three_replicas_that_wait_for_the_same_expiry_refresh_once(
    replicas: Replicas, ada: Person, provider: OAuthProvider
) -> None:
    for _ in range(3):
        await replicas.start()
    await provider.set(lifetime=4)
    await replicas.connect(ada)
    await provider.set(lifetime=3600)
    seen = await replicas.version(ada)

    async def renewed() -> bool:
        return await replicas.version(ada) > seen

    await until(renewed)
    assert await provider.accepts(await replicas.token(ada))
    assert await provider.count("refresh_requests") == 1


# -- killed at every step -------------------------------------------------------------------------


@dataclass
class Scene:
    """A replica that somebody has asked for a newer token than the one `seen`."""

    replicas: Replicas
    provider: OAuthProvider
    nats: Nats
    ada: Person
    seen: int
    asking: list["asyncio.Task[int]"] = field(default_factory=list)

    @property
    def victim(self) -> Process:
        return self.replicas.running[0]

    def ask(self) -> "asyncio.Task[int]":
        self.asking.append(asyncio.create_task(self.replicas.refresh(self.ada, self.seen)))
        return self.asking[-1]

    def kill(self) -> None:
        """SIGKILL; whoever asked it hears nothing."""
        self.victim.kill()
        for task in self.asking:
            task.cancel()

    @contextmanager
    def locked(self) -> Any:
        """Nobody may write accounts."""
        with psycopg.connect(self.replicas.settings["credentials_database_url"]) as connection:
            connection.execute("LOCK TABLE accounts IN EXCLUSIVE MODE")
            yield

    async def until_blocked(self) -> None:
        """Until a replica waits for that lock."""
        url = self.replicas.settings["credentials_database_url"]
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'accounts'::regclass"
        with psycopg.connect(url, autocommit=True) as connection:

            async def blocked() -> bool:
                return bool(connection.execute(query).fetchone()[0])  # type: ignore[index]

            await until(blocked)

    async def until_stored(self) -> None:
        """Until the database has the new tokens."""
        url = self.replicas.settings["credentials_database_url"]
        with psycopg.connect(url, autocommit=True) as connection:

            async def stored() -> bool:
                row = connection.execute("SELECT sealed_version FROM accounts").fetchone()
                return bool(row and row[0] > self.seen)

            await until(stored)


async def before_the_lease(scene: Scene) -> None:
    with scene.locked():
        scene.ask()
        await scene.until_blocked()
        scene.kill()


async def asked_but_not_heard(scene: Scene) -> None:
    """The provider never gets to work on it."""
    await scene.provider.set(hold="before")
    scene.ask()
    await until_held(scene.provider)
    scene.kill()
    await scene.provider.set(hold="")
    await scene.provider.do("drop")


async def heard_after_death(scene: Scene) -> None:
    """The provider works on the request of a process that is no more."""
    await scene.provider.set(hold="before")
    scene.ask()
    await until_held(scene.provider)
    scene.kill()
    await scene.provider.set(hold="")
    await scene.provider.do("release")


async def answered_but_not_received(scene: Scene) -> None:
    await scene.provider.set(hold="after")
    scene.ask()
    await until_held(scene.provider)
    scene.kill()
    await scene.provider.set(hold="")
    await scene.provider.do("release")


async def received_but_not_stored(scene: Scene) -> None:
    await scene.provider.set(hold="after")
    scene.ask()
    await until_held(scene.provider)
    with scene.locked():
        await scene.provider.set(hold="")
        await scene.provider.do("release")
        await scene.until_blocked()
        scene.kill()


async def stored_but_not_published(scene: Scene) -> None:
    await scene.provider.set(hold="after")
    scene.ask()
    await until_held(scene.provider)
    assert scene.nats.process
    scene.nats.process.send_signal(signal.SIGSTOP)
    try:
        await scene.provider.set(hold="")
        await scene.provider.do("release")
        await scene.until_stored()
        scene.kill()
    finally:
        scene.nats.process.send_signal(signal.SIGCONT)


STRICT = {"rotate": True, "grace": 0.0}
FORGIVING = {"rotate": True, "grace": 60.0}
LASTING = {"rotate": False}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kill", "kind"),
    [
        (before_the_lease, STRICT),
        (asked_but_not_heard, STRICT),
        (heard_after_death, FORGIVING),
        (answered_but_not_received, FORGIVING),
        (answered_but_not_received, LASTING),
        (received_but_not_stored, FORGIVING),
        (stored_but_not_published, STRICT),
    ],
    ids=lambda value: value.__name__ if callable(value) else "-".join(f"{k}={v}" for k, v in value.items()),
)
async def test_a_replica_that_is_killed_loses_nothing_that_the_provider_honours(
    kill: Callable[[Scene], Awaitable[None]], kind: dict[str, Any],
    on_postgres: Replicas, ada: Person, provider: OAuthProvider, nats: Nats,
) -> None:  # fmt: skip
    await provider.set(**kind)
    scene = await begun(on_postgres, ada, provider, nats)
    await kill(scene)
    await on_postgres.start()
    assert await on_postgres.refresh(ada, scene.seen) > scene.seen
    assert await provider.accepts(await on_postgres.token(ada))
    assert await provider.count("reuses") == 0
    await again(on_postgres, ada, provider)


async def begun(replicas: Replicas, ada: Person, provider: OAuthProvider, nats: Nats) -> Scene:
    """Somebody is connected by the one replica, and their token has expired."""
    await replicas.start()
    await replicas.connect(ada)
    await provider.do("expire")
    return Scene(replicas, provider, nats, ada, await replicas.version(ada))


async def again(replicas: Replicas, ada: Person, provider: OAuthProvider) -> None:
    """What was stored is whole: by a replica that starts anew, it can be refreshed once more."""
    replicas.running[-1].stop()
    await replicas.start()
    seen = await replicas.version(ada)
    await provider.do("expire")
    assert await replicas.refresh(ada, seen) > seen
    assert await provider.accepts(await replicas.token(ada))


@pytest.mark.timeout(120)
async def test_what_a_strict_provider_has_taken_from_a_killed_replica_needs_attention(
    on_postgres: Replicas, ada: Person, provider: OAuthProvider, nats: Nats
) -> None:
    """It honours nothing that anybody has. Then its owner is told, and connecting again mends it."""
    await provider.set(**STRICT)
    scene = await begun(on_postgres, ada, provider, nats)
    await answered_but_not_received(scene)
    await on_postgres.start()
    with pytest.raises(Refused) as refused:
        await on_postgres.refresh(ada, scene.seen)
    assert refused.value.reason == "credential-attention"
    on_postgres.running.reverse()
    await on_postgres.connect(ada)
    assert await provider.accepts(await on_postgres.token(ada))


async def test_a_database_that_is_locked_when_the_answer_comes_loses_nothing(
    on_sqlite: Replicas, ada: Person, provider: OAuthProvider, nats: Nats
) -> None:
    """Longer than a statement waits for a lock, by a provider that forgives nothing."""
    await provider.set(**STRICT)
    scene = await begun(on_sqlite, ada, provider, nats)
    await provider.set(hold="after")
    asking = scene.ask()
    await until_held(provider)
    locking = sqlite3.connect(on_sqlite.settings["credentials_database_url"].removeprefix("sqlite:///"))
    locking.execute("BEGIN IMMEDIATE")
    await provider.set(hold="")
    await provider.do("release")

    async def refused() -> bool:
        return "tokens_not_stored_yet" in on_sqlite.running[0].output

    await until(refused)
    locking.rollback()
    locking.close()
    assert await asking > scene.seen
    assert await provider.accepts(await on_sqlite.token(ada))
    await again(on_sqlite, ada, provider)
    assert await provider.count("reuses") == 0


@pytest.mark.timeout(180)
async def test_replicas_that_are_killed_again_and_again_keep_somebody_connected(
    replicas: Replicas, ada: Person, provider: OAuthProvider
) -> None:
    await provider.set(**FORGIVING)
    for _ in range(3):
        await replicas.start()
    await replicas.connect(ada)
    moments = secrets.SystemRandom()
    for victim in range(3):
        await provider.do("expire")
        await provider.set(slow=moments.uniform(0.0, 0.1))
        seen = await replicas.version(ada)
        asking = [asyncio.create_task(replicas.refresh(ada, seen, PATIENCE)) for _ in range(10)]
        await asyncio.sleep(moments.uniform(0.0, 0.3))  # the moment itself is what is tried out
        replicas.running[victim].kill()
        await asyncio.gather(*asking, return_exceptions=True)
        await replicas.start()
        await newer(replicas, ada, seen)
        assert await provider.accepts(await replicas.token(ada))
    assert await provider.count("reuses") == 0


async def newer(replicas: Replicas, ada: Person, seen: int) -> None:
    """Ask until the answer comes from a replica that is alive, and did not see the provider fail just now:
    for a moment such a one asks no more, and says that it knows of nothing newer."""
    async with asyncio.timeout(WITHIN):
        while True:
            with contextlib.suppress(Unavailable):
                if await replicas.refresh(ada, seen, PATIENCE) > seen:
                    return
            await asyncio.sleep(0.05)

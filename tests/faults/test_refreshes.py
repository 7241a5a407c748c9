"""Refreshing while others do the same, and while the process that answers is killed: nobody is logged out."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Nats, free_port
from tests.e2e.conftest import Process, environment
from tests.faults.tokens import grant_of
from tests.unit.auth.house import REDIRECT, Browser, Client
from tests.unit.conftest import new_database

EMAIL, PASSWORD = "admin@example.com", "correct horse battery"
AT_ONCE = 50
KILLS = 3  # at random moments
CLIENTS = 8  # that refresh meanwhile


@dataclass
class Service:
    """An auth service as a process of its own."""

    process: Process

    @property
    def url(self) -> str:
        return self.process.url

    @asynccontextmanager
    async def client(self, connections: int = 10) -> AsyncIterator[Client]:
        """A registered client."""
        limits = httpx2.Limits(max_connections=connections)
        async with httpx2.AsyncClient(base_url=self.url, timeout=60, limits=limits) as http:
            asked = {"client_name": "Test client", "redirect_uris": [REDIRECT]}
            registered = await http.post("/oauth/register", json=asked)
            yield Client(http, registered.json()["client_id"])

    @asynccontextmanager
    async def person(self) -> AsyncIterator[Browser]:
        """The administrator, signed in."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=60) as http:
            browser = Browser(http)
            assert (await browser.sign_in(EMAIL, PASSWORD)).status_code == 303
            yield browser

    async def grants(self, access_token: str) -> int:
        """The status with which the service answers to the bearer of a token."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=60) as http:
            headers = {"Authorization": f"Bearer {access_token}"}
            return (await http.get("/api/auth/grants", headers=headers)).status_code


@pytest.fixture(params=["sqlite", "postgresql"])
async def service(request: pytest.FixtureRequest, nats: Nats, tmp_path: Path) -> AsyncIterator[Service]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "public_url": url,
        "nats_url": nats.url,
        "data_dir": tmp_path / "data",
        "auth_admin_email": EMAIL,
        "auth_admin_password": PASSWORD,
    }
    if request.param == "postgresql":
        settings["auth_database_url"] = new_database(request.getfixturevalue("postgres"))
    command = ["serve", "auth", "--port", str(port)]
    process = Process(command, environment(**settings), url, tmp_path / "auth.log")
    await process.start()
    yield Service(process)
    process.stop()


async def test_fifty_refreshes_at_once_have_one_successor_and_nobody_is_logged_out(service: Service) -> None:
    async with service.person() as person, service.client(AT_ONCE) as client:
        first = await client.connect(person, resource=f"{service.url}/api")
        answers = await asyncio.gather(*(client.refresh(first["refresh_token"]) for _ in range(AT_ONCE)))
        assert [answer.status_code for answer in answers] == [200] * AT_ONCE
        (successor,) = {answer.json()["refresh_token"] for answer in answers}
        assert successor != first["refresh_token"]
        assert (await client.refresh(successor)).status_code == 200
        for token in [first["access_token"], *(answer.json()["access_token"] for answer in answers)]:
            assert await service.grants(token) == 200


@dataclass
class Gulf:
    """Stands before a service: lets a request through, and swallows its answer."""

    port: int  # of the service
    swallowed: asyncio.Future[bytes]

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.splitlines()
            if line.lower().startswith(b"content-length")
        )
        back.write(head + await reader.readexactly(length))
        answer = await there.readuntil(b"\r\n\r\n")
        self.swallowed.set_result(answer)
        back.close()
        writer.close()


async def test_a_client_whose_answer_was_lost_when_the_service_was_killed_refreshes_again(
    service: Service,
) -> None:
    async with service.person() as person, service.client() as client:
        token = (await client.connect(person, resource=f"{service.url}/api"))["refresh_token"]
        gulf = Gulf(int(service.url.rpartition(":")[2]), asyncio.get_running_loop().create_future())
        server = await asyncio.start_server(gulf.carry, "127.0.0.1", 0)
        async with server, httpx2.AsyncClient(timeout=60) as http:
            lost = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/oauth/token"
            form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": client.id}
            request = asyncio.create_task(http.post(lost, data=form))
            assert (await asyncio.wait_for(gulf.swallowed, 30)).startswith(b"HTTP/1.1 200"), "it was written"
            service.process.kill()
            with pytest.raises(httpx2.TransportError):
                await request
        await service.process.start()
        retried = await client.refresh(token)
        assert retried.status_code == 200, retried.text
        assert await service.grants(retried.json()["access_token"]) == 200
        assert (await client.refresh(retried.json()["refresh_token"])).status_code == 200


async def refresh_until(client: Client, token: str, over: asyncio.Event, retries: list[int]) -> str:
    """Refresh one token after the other, and repeat what was not answered. Returns the last token."""
    while not over.is_set():
        try:
            answer = await client.refresh(token)
        except httpx2.TransportError:
            retries[0] += 1
            await asyncio.sleep(0.05)
            continue
        assert answer.status_code == 200, f"logged out: {answer.text}"
        token = answer.json()["refresh_token"]
    return token


@pytest.mark.timeout(300)
async def test_nobody_is_logged_out_by_a_service_that_is_killed_again_and_again(service: Service) -> None:
    moments, over, retries = random.Random(9700), asyncio.Event(), [0]
    async with service.person() as person, service.client(CLIENTS) as client:
        tokens = [(await client.connect(person, resource=None))["refresh_token"] for _ in range(CLIENTS)]
        running = [asyncio.create_task(refresh_until(client, token, over, retries)) for token in tokens]
        for _ in range(KILLS):
            await asyncio.sleep(moments.uniform(0.05, 0.5))
            service.process.kill()
            await service.process.start()
            assert not any(task.done() for task in running), "all go on"
        over.set()
        last = await asyncio.gather(*running)
        assert retries[0] >= KILLS, "it was killed while they refreshed"
        answers = [await client.refresh(token) for token in last]
        assert {answer.status_code for answer in answers} == {200}
        assert len({grant_of(answer.json()["access_token"]) for answer in answers}) == CLIENTS

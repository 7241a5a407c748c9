"""How many token refreshes one core carries: `python -m bench.auth [--seconds 8] [--database postgresql://…]`.

One real `lockgate serve auth` process, held to one core, and clients on the others that refresh as fast as
they are answered, each its own grant, one refresh token after the other. `/healthz` of the same process in
the same run, in turns with the refreshes, is the yardstick: it is what the HTTP server costs, nothing else.

Two figures each, since a machine that others use too makes the first one lie: answers per second of the
clock, and per second of the process's own CPU time (user and system), as /proc has it.
"""

import argparse
import asyncio
import base64
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import msgspec

from bench.processes import PROGRAMS, cpu_of, free_port, running

EMAIL, PASSWORD = "bench@example.com", "a password for the bench"
REDIRECT = "http://127.0.0.1:33418/callback"
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
ROUNDS = 4  # of health checks and refreshes, in turns
START_WITHIN = 60.0  # seconds
AIM = 300  # refreshes per second on one core


class Connection:
    """One HTTP/1.1 connection, kept open; as little work for a request as can be."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer, which must be 200."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        assert head.startswith(b"HTTP/1.1 200"), head + body
        return body


@dataclass
class Client:
    """One connected client: asks for its next token with the refresh token that it got last."""

    connection: Connection
    client_id: str
    refresh_token: str

    async def check_health(self) -> None:
        await self.connection.ask(b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")

    async def refresh(self) -> None:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self.refresh_token,
            "client_id": self.client_id,
        }
        body = urlencode(form).encode()
        head = (
            "POST /oauth/token HTTP/1.1\r\nHost: bench\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer = msgspec.json.decode(await self.connection.ask(head.encode() + body), type=dict[str, object])
        assert answer["refresh_token"] != self.refresh_token
        self.refresh_token = str(answer["refresh_token"])


@dataclass
class Figures:
    """What was measured of one kind of request. `cpu` and `clock` are seconds."""

    clock: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.clock

    @property
    def per_cpu_second(self) -> float:
        return len(self.latencies) / self.cpu

    def told(self, name: str) -> str:
        percentiles = quantiles(self.latencies, n=100)
        return (
            f"{name:<9} {self.per_second:8.0f}/s {self.per_cpu_second:8.0f} per CPU second   "
            f"p50 {percentiles[49] * 1000:6.1f} ms  p99 {percentiles[98] * 1000:6.1f} ms"
        )


async def measure(
    figures: Figures,
    clients: list[Client],
    work: Callable[[Client], Awaitable[None]],
    seconds: float,
    pid: int,
) -> None:
    """Let every client do `work` again and again for `seconds`."""
    began, cpu = time.perf_counter(), cpu_of(pid)
    end = began + seconds

    async def run(client: Client) -> None:
        while (asked := time.perf_counter()) < end:
            await work(client)
            figures.latencies.append(time.perf_counter() - asked)

    await asyncio.gather(*map(run, clients))
    figures.clock += time.perf_counter() - began
    figures.cpu += cpu_of(pid) - cpu


# -- the process and its clients -----------------------------------------------------------------------


@contextmanager
def auth_service(directory: Path, core: int, database: str) -> Iterator[tuple[str, int]]:
    """The URL of an auth service of our own, and its process id."""
    port, bus = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    nats = shutil.which("nats-server", path=str(PROGRAMS)) or "nats-server"
    settings = {
        "PUBLIC_URL": url,
        "DATA_DIR": str(directory / "data"),
        "NATS_URL": f"nats://127.0.0.1:{bus}",
        "AUTH_ADMIN_EMAIL": EMAIL,
        "AUTH_ADMIN_PASSWORD": PASSWORD,
        "LOG_LEVEL": "warning",
    }
    if database:
        settings["AUTH_DATABASE_URL"] = database
    environment = {f"LOCKGATE_{name}": value for name, value in settings.items()}
    serve = [str(PROGRAMS / "lockgate"), "serve", "auth", "--port", str(port)]
    quiet = ["-l", str(directory / "nats.log")]
    with (
        running([nats, "-a", "127.0.0.1", "-p", str(bus), "-js", "-sd", str(directory / "nats"), *quiet]),
        running(serve, core, None, **environment) as pid,
    ):
        yield url, pid


async def until_ready(http: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(START_WITHIN):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.05)


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[Client]]:
    """So many clients, each with a grant of its own."""
    async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
        await until_ready(http)
        form = {"email": EMAIL, "password": PASSWORD, "next": "/account"}
        assert (await http.post("/login", data=form, headers=SAME_ORIGIN)).status_code == 303
        asked = {"client_name": "Bench", "redirect_uris": [REDIRECT]}
        client_id: str = (await http.post("/oauth/register", json=asked)).json()["client_id"]
        parts = urlsplit(url)
        clients = []
        for _ in range(count):
            connection = Connection(str(parts.hostname), int(parts.port or 80))
            await connection.open()
            clients.append(Client(connection, client_id, await connect(http, client_id)))
        yield clients


async def connect(http: httpx2.AsyncClient, client_id: str) -> str:
    """Consent and exchange: the first refresh token of a new grant."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": REDIRECT,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    allow = {"decision": "allow"}
    answer = await http.post(f"/oauth/authorize?{urlencode(asked)}", data=allow, headers=SAME_ORIGIN)
    code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "client_id": client_id,
        "code_verifier": verifier,
    }
    token: str = (await http.post("/oauth/token", data=form)).json()["refresh_token"]
    return token


async def run(seconds: float, count: int, database: str) -> None:
    *others, core = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(0, set(others))
    health, refreshes = Figures(), Figures()
    with (
        tempfile.TemporaryDirectory(prefix="lockgate-bench-") as directory,
        auth_service(Path(directory), core, database) as (url, pid),
    ):
        async with connected(url, count) as clients:
            for _ in range(ROUNDS):
                await measure(health, clients, Client.check_health, seconds / ROUNDS / 4, pid)
                await measure(refreshes, clients, Client.refresh, seconds / ROUNDS, pid)
    print(health.told("/healthz"))
    print(refreshes.told("refresh"))
    print(f"A refresh costs what {health.per_cpu_second / refreshes.per_cpu_second:.1f} health checks cost.")
    verdict = "met" if refreshes.per_second >= AIM else "missed"
    print(f"Aim: {AIM} refreshes per second on one core: {verdict}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of refreshing")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--database", default="", help="PostgreSQL URL; SQLite unless given")
    options = parser.parse_args()
    asyncio.run(run(options.seconds, options.clients, options.database))


if __name__ == "__main__":
    main()

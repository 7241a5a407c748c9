"""Gateway replicas as processes, their NATS server, and a service that owns the log they decide by."""

import asyncio
import base64
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from bench.processes import PROGRAMS, free_port, running
from libs.common.bus import Bus
from libs.common.control.entries import KINDS, AnyEntry, Keys, key_of
from libs.common.control.follower import SUBJECT, Follower, ensure_bucket
from libs.common.control.owner import Owner
from libs.common.settings import Settings

PUBLIC_URL = "http://gateway.bench"
SIGNING_KEY = ECKey.generate_key("P-256", auto_kid=True)
READY_WITHIN = 120.0  # seconds
BATCH = 500


@contextmanager
def nats_server(directory: Path) -> Iterator[str]:
    """The URL of a NATS server of our own."""
    port = free_port()
    program = shutil.which("nats-server", path=str(PROGRAMS)) or "nats-server"
    quiet = ["-l", str(directory / "nats.log")]
    with running(
        [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory / "nats"), *quiet]
    ):
        yield f"nats://127.0.0.1:{port}"


@dataclass(frozen=True, slots=True)
class Replica:
    """A `lockgate serve gateway` process, started at `began` (`time.perf_counter`)."""

    url: str
    pid: int
    began: float

    async def ready(self) -> float:
        """Seconds from its start until it is ready."""
        async with httpx2.AsyncClient() as http, asyncio.timeout(READY_WITHIN):
            while True:
                try:
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return time.perf_counter() - self.began
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def memory(self, name: str = "VmRSS") -> float:
        """MB of its memory that are resident now, or with `VmHWM`, were at the most (proc(5))."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        assert found
        return int(found[1]) / 1024


@contextmanager
def replicas(directory: Path, nats_url: str, count: int, **settings: str) -> Iterator[list[Replica]]:
    """So many replicas, which have just been started; `settings` by their names without `LOCKGATE_`."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    given = {"PUBLIC_URL": PUBLIC_URL, "NATS_URL": nats_url, "LOG_LEVEL": "warning"} | settings
    started = []
    with ExitStack() as stack:
        for n in range(count):
            port = free_port()
            own = {"DATA_DIR": str(directory / f"replica-{n}"), "GATEWAY_SESSION_KEY": key}
            environment = {f"LOCKGATE_{name}": value for name, value in (given | own).items()}
            command = [str(PROGRAMS / "lockgate"), "serve", "gateway", "--port", str(port)]
            began = time.perf_counter()
            pid = stack.enter_context(running(command, None, directory / f"replica-{n}.log", **environment))
            started.append(Replica(f"http://127.0.0.1:{port}", pid, began))
        yield started


class Service:
    """Owns the whole log, as policy and auth do together; its database is a dictionary."""

    def __init__(self, nats_url: str) -> None:
        settings = Settings(nats_url=nats_url)
        self.bus = Bus(settings, "bench")
        self.follower = Follower(self.bus, settings)
        self.entries: dict[str, AnyEntry] = {}
        self.owner = Owner(self.bus, self.follower, settings, KINDS.keys() - {"replica"}, self._desired)

    async def _desired(self, keys: Collection[str] | None) -> Mapping[str, AnyEntry]:
        if keys is None:
            return self.entries
        return {key: self.entries[key] for key in keys if key in self.entries}

    def put(self, entry: AnyEntry) -> str:
        """Commit `entry`. Returns its key, which is to be published."""
        self.entries[key_of(entry)] = entry
        return key_of(entry)

    async def write(self, entries: list[AnyEntry]) -> None:
        """Write the first state of the log. The last of a batch is acknowledged, after all before it."""
        for first in range(0, len(entries), BATCH):
            *others, last = entries[first : first + BATCH]
            for entry in others:
                await self.bus.client.publish(SUBJECT + self.put(entry), msgspec.json.encode(entry))
            await self.bus.js.publish(SUBJECT + self.put(last), msgspec.json.encode(last))


@asynccontextmanager
async def service(nats_url: str, entries: Iterable[AnyEntry]) -> AsyncIterator[Service]:
    """A service that has written `entries`, and the keys of tokens, to a log of its own."""
    made = Service(nats_url)
    public = SIGNING_KEY.as_dict(private=False) | {"use": "sig", "alg": "ES256"}
    async with AsyncExitStack() as stack:
        await made.bus.start()
        stack.push_async_callback(made.bus.stop)
        await ensure_bucket(made.bus, 1)
        await made.write([Keys(version=1, issuer=PUBLIC_URL, keys=[public]), *entries])
        stack.push_async_callback(made.follower.stop)
        await made.follower.start(READY_WITHIN)
        yield made


def token(user: str, server: str) -> str:
    """An access token of `user` for `server`."""
    now = int(time.time())
    claims = {
        "iss": PUBLIC_URL,
        "sub": user,
        "aud": f"{PUBLIC_URL}/mcp/{server}",
        "client_id": "bench",
        "client_name": "Bench",
        "grant": f"grant-{user}",
        "iat": now,
        "exp": now + 3600,
        "jti": os.urandom(8).hex(),
    }
    return jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": SIGNING_KEY.kid}, claims, SIGNING_KEY)

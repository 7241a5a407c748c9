"""A gateway replica as a process of its own, whose memory can be measured, and a client that reads slowly."""

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from nats.js.errors import NotFoundError

from libs.common.bus import Bus
from libs.common.control.entries import CredentialVersion, key_of, origin_of
from libs.common.control.follower import SUBJECT
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from services.gateway.settings import GatewaySettings
from tests.conftest import Nats, free_port
from tests.unit.gateway.conftest import PUBLIC_URL, token, world

SECRET = "s3cret-of-the-organization"

Source = AsyncIterator[bytes]


@dataclass
class Replica:
    """`lockgate serve gateway` and what is around it: a control log, a vault, an upstream."""

    port: int
    process: "subprocess.Popen[bytes]"
    upstream: "Stream"

    @property
    def memory(self) -> int:
        """Bytes that the process has resident."""
        return self._status("VmRSS")

    @property
    def peak(self) -> int:
        """The most it has had since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # proc(5)

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        assert found
        return int(found[1]) * 1024

    async def ask(self, body: bytes, server: str = "demo", *, announced: int | None = None) -> "Answer":
        """Send a request, of which `announced` bytes are promised, and read the head of its answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=64 * 1024)
        size = len(body) if announced is None else announced
        bearer = token(audience=f"{PUBLIC_URL}/mcp/{server}")
        head = (
            f"POST /mcp/{server} HTTP/1.1\r\nhost: gate.example\r\nauthorization: Bearer {bearer}\r\n"
            f"content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
            f"content-length: {size}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        return Answer(reader, writer, int(answer.split()[1]), answer.lower())


@dataclass
class Answer:
    """An answer whose body has not been read yet."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int
    head: bytes

    async def body(self) -> AsyncIterator[bytes]:
        """The body as it comes, without the framing of chunks."""
        length = re.search(rb"content-length: (\d+)", self.head)
        if length:
            async for piece in self._exactly(int(length[1])):
                yield piece
            return
        while size := int(await self.reader.readline(), 16):
            async for piece in self._exactly(size):
                yield piece
            await self.reader.readexactly(2)

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            piece = await self.reader.read(min(size, 256 * 1024))
            assert piece, "the answer broke off"
            size -= len(piece)
            yield piece

    async def digest(self) -> tuple[int, str]:
        """Size and hash of the whole body."""
        size, digest = 0, hashlib.sha256()
        async for piece in self.body():
            size += len(piece)
            digest.update(piece)
        return size, digest.hexdigest()

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Stream:
    """An upstream whose answer is as long as the test likes; it is made as it is sent."""

    head: bytes = b""
    source: Callable[[], Source] | None = None
    sent: int = 0
    received: int = 0
    digest: str = ""
    request_digest: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def answers(self, head: bytes, source: Callable[[], Source]) -> None:
        self.head, self.source = head, source
        self.sent = self.received = 0
        self.ended.clear()
        self.gone.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._take(reader)
            await self._give(writer)
            await writer.drain()
            self.ended.set()
        except (OSError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        digest, left = hashlib.sha256(), int(length[1]) if length else 0
        while left:
            piece = await reader.read(min(left, 256 * 1024))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            digest.update(piece)
            left -= len(piece)
            self.received += len(piece)
        self.request_digest = digest.hexdigest()

    async def _give(self, writer: asyncio.StreamWriter) -> None:
        assert self.source
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + self.head + b"\r\n")
        digest = hashlib.sha256()
        async for piece in self.source():
            writer.write(piece)
            await writer.drain()
            digest.update(piece)
            self.sent += len(piece)
        self.digest = digest.hexdigest()


@asynccontextmanager
async def replica(nats: Nats, directory: Path) -> AsyncIterator[Replica]:
    """A replica with the small organization of conftest.world, whose upstream is a `Stream`."""
    stream = Stream()
    server = await asyncio.start_server(stream.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    settings = GatewaySettings(
        public_url=PUBLIC_URL,
        nats_url=nats.url,
        data_dir=directory,
        gateway_session_key=base64.b64encode(os.urandom(32)).decode(),
    )
    port = free_port()
    process = _start(settings, port)
    bus = Bus(settings, "test")
    await bus.start()
    try:
        await _serve_credential(bus)
        entries = world(url)
        entries.append(CredentialVersion(version=1, slug="keyed", user="organization", origin=origin_of(url)))
        await _until_following(bus)
        for entry in entries:
            await bus.js.publish(SUBJECT + key_of(entry), msgspec.json.encode(entry))
        yield await _warm(Replica(port, process, stream))
    finally:
        process.terminate()
        process.wait(20)
        await bus.stop()
        server.close()


def _start(settings: GatewaySettings, port: int) -> "subprocess.Popen[bytes]":
    values = settings.model_dump(include={"public_url", "nats_url", "data_dir"})
    variables = {f"LOCKGATE_{name.upper()}": str(value) for name, value in values.items()}
    variables["LOCKGATE_GATEWAY_SESSION_KEY"] = settings.gateway_session_key.get_secret_value()
    variables["LOCKGATE_LOG_LEVEL"] = "warning"
    program = Path(sys.executable).with_name("lockgate")
    command = [str(program), "serve", "gateway", "--port", str(port)]
    return subprocess.Popen(command, env=os.environ | variables)


async def _until_following(bus: Bus) -> None:
    """The replica makes the control log where there is none."""
    async with asyncio.timeout(20):
        while True:
            try:
                await bus.js.stream_info("KV_CONTROL")
                return
            except NotFoundError:
                await asyncio.sleep(0.02)


async def _serve_credential(bus: Bus) -> None:
    async def open_credential(query: OpenCredential) -> SealedCredential:
        secret = msgspec.json.encode(Injection(headers={"X-Api-Key": SECRET}))
        context = credential_context(query.slug, query.user, 1)
        return SealedCredential(version=1, box=seal(secret, query.public_key, context))

    await bus.serve(OPEN_CREDENTIAL, OpenCredential, open_credential)
    await bus.client.flush()


async def _warm(replica: Replica) -> Replica:
    """Everything that is imported or kept with the first calls is there."""

    async def nothing() -> Source:
        yield b'{"jsonrpc":"2.0","id":1,"result":{}}'

    replica.upstream.answers(b"content-type: application/json\r\n", nothing)
    statuses: list[int] = []

    async def once() -> None:
        answer = await replica.ask(call("warm"))
        statuses.append(answer.status)
        answer.close()

    async with asyncio.timeout(20):
        while statuses[-10:] != [200] * 10:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await once()
            await asyncio.sleep(0.02)
    return replica


def call(tool: str, arguments: bytes = b"{}") -> bytes:
    """A call of `tool`; `arguments` is JSON."""
    params = b'{"name":"%b","arguments":%b}' % (tool.encode(), arguments)
    return b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params

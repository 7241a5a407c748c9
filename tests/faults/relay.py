"""Stands between one process and NATS, and carries what they say: late, in one direction only, or not at all.

A cut keeps what it holds back, as a network does that loses packets and is mended: it comes late, in order.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

CHUNK = 64 * 1024


@dataclass
class Way:
    """One of the two directions. `delay` in seconds."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0.0

    def __post_init__(self) -> None:
        self.open.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self.open.wait()
            writer.write(chunk)
            await writer.drain()


class Relay:
    """A TCP relay to `port` of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.to_nats, self.from_nats = Way(), Way()
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def mend(self) -> None:
        for way in (self.to_nats, self.from_nats):
            way.delay = 0.0
            way.open.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one of the two ends it; then the other's connection ends too."""
        ends = [writer]
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._port)
            ends.append(there)
            ways = [
                asyncio.ensure_future(self.to_nats.carry(reader, there)),
                asyncio.ensure_future(self.from_nats.carry(back, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # NATS is not there
        finally:
            for end in ends:
                with contextlib.suppress(OSError):
                    end.close()

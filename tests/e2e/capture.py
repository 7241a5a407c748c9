"""Stands before NATS and keeps a copy of all that is said to it and by it."""

import asyncio
from dataclasses import dataclass, field

from tests.e2e.leaks import Haystack
from tests.faults.relay import CHUNK, Relay, Way


@dataclass
class Copied(Way):
    """One direction. Each connection is a stream of its own, since others cut into its messages elsewhere."""

    streams: list[bytearray] = field(default_factory=list)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = bytearray()
        self.streams.append(heard)
        while chunk := await reader.read(CHUNK):
            heard += chunk
            writer.write(chunk)
            await writer.drain()


class Capture(Relay):
    """A relay to the NATS server on `port` of this machine."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._copies = {"to NATS": Copied(), "from NATS": Copied()}
        self.to_nats, self.from_nats = self._copies.values()

    def heard(self) -> list[Haystack]:
        """All bytes so far, by connection."""
        return [
            (f"what was sent {way}, connection {number}", bytes(stream))
            for way, copied in self._copies.items()
            for number, stream in enumerate(copied.streams)
        ]

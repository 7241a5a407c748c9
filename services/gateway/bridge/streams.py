"""Events on their way to a client: in order, bounded, and kept for a while for a client that comes back."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import NamedTuple

SILENCE = 15.0  # seconds of silence after which a comment is due
REPLAY = 256 * 1024  # bytes of read messages that a stream keeps for a reader that comes back
OVERHEAD = 128  # bytes that a message costs beside its own


class Item(NamedTuple):
    """One message of a stream, numbered from 1. `status` is for the case that it is all of an HTTP answer."""

    number: int
    data: bytes
    status: int


class Stream:
    """Messages for one reader at a time. `overflown` when more than `backlog` bytes waited to be read."""

    def __init__(self, name: str, backlog: int) -> None:
        self.name = name
        self.ended = self.overflown = False
        self._backlog = backlog
        self._items: deque[Item] = deque()
        self._count = self._read = 0  # the newest item, the newest that was read
        self._unread = self._kept = 0  # bytes
        self._readers = 0
        self.reading = False
        self._changed = asyncio.Event()

    @property
    def size(self) -> int:
        """Bytes that it holds, read or not."""
        return self._unread + self._kept

    @property
    def attached(self) -> bool:
        """Whether somebody reads it and more can come."""
        return self.reading and not self.ended

    def is_last(self, item: Item) -> bool:
        """Whether nothing comes after `item`."""
        return self.ended and item.number == self._count

    def put(self, data: bytes, status: int = 200, *, last: bool = False) -> None:
        """Add a message. One alone may be of any size; what follows an overflow is lost."""
        if self.ended:
            return
        size = _size(data)
        if self._unread and self._unread + size > self._backlog:
            self.overflown = True
            self.end()
            return
        self._count += 1
        self._unread += size
        self._items.append(Item(self._count, data, status))
        self.ended = last
        self._changed.set()

    def end(self) -> None:
        """Nothing more comes; what is there can still be read."""
        self.ended = True
        self._changed.set()

    async def read(self, after: int | None = None) -> AsyncGenerator[Item | None, None]:
        """What comes after the item `after`, by default after what was read; None when silence lasts.

        Ends with the stream, or when another reader begins.
        """
        self._readers += 1
        me, position = self._readers, self._read if after is None else after
        self.reading = True
        self._changed.set()
        try:
            while self._readers == me:
                item = self._after(position)
                if item is not None:
                    position = item.number
                    self._mark_read(item)
                    yield item
                elif self.ended:
                    return
                elif not await self._change():
                    yield None
        finally:
            if self._readers == me:
                self.reading = False

    def _after(self, position: int) -> Item | None:
        index = max(0, position - (self._count - len(self._items)))  # they are numbered without gaps
        return self._items[index] if index < len(self._items) else None

    def _mark_read(self, item: Item) -> None:
        if item.number <= self._read:
            return
        self._read = item.number
        self._unread -= _size(item.data)
        self._kept += _size(item.data)
        while self._kept > REPLAY and self._items[0].number < item.number:
            self._kept -= _size(self._items.popleft().data)

    async def _change(self) -> bool:
        """Wait for something to happen; False if nothing did for long."""
        self._changed.clear()
        try:
            async with asyncio.timeout(SILENCE):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


def _size(data: bytes) -> int:
    return len(data) + OVERHEAD

"""Waiting for the next change of what people may use."""

import asyncio

_CONCERNED = {"org", "server", "group", "member"}  # kinds of entries of the control log


class Changes:
    """`noticed` is a follower's callback."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def noticed(self, key: str, _: bytes | None, __: int) -> None:
        if key.partition(".")[0] in _CONCERNED:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def next(self) -> None:
        """Return at the next change."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

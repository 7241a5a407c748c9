"""The answer on its way to the caller: as it comes, or, for lists, without what the caller may not see."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from services.gateway.asgi import Send
from services.gateway.capture import Capture
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.listen import Listen
from services.gateway.sse import KEEP_ALIVE, Splitter, TooLong, data_of, encoded, with_data
from services.gateway.upstream import Response

# A JSON-RPC message -> the same without what the caller may not see; the same object if nothing changes.
Filter = Callable[[bytes], bytes]

_WITHOUT_BODY = {204, 304}  # whatever length they name (RFC 9110, section 8.6)
SILENCE = 25.0  # seconds; common proxies close what is silent for 30 or 60


class Downstream:
    """Passes one answer on. Raises `UpstreamFailed` when the answer breaks off or is not usable."""

    def __init__(self, send: Send, list_limit: int) -> None:
        self.started = False  # the head is sent: from here on a refusal has no form any more
        self._send, self._list_limit = send, list_limit

    async def as_it_comes(self, response: Response, out: list[Header], capture: Capture) -> None:
        """Every byte, at once."""
        length = response.header(b"content-length")
        if length and response.status not in _WITHOUT_BODY:
            out = [*out, (b"content-length", length)]
        await self._start(response.status, out)
        async for chunk in response.chunks():
            capture.feed(chunk)
            await self._body(chunk, more=True)
        await self._body(b"")

    async def message(
        self, response: Response, out: list[Header], capture: Capture, shown: Filter, *, required: bool
    ) -> None:
        """An answer that is one JSON message, as `shown`. What is too long for that passes as it is, unless
        that is `required`."""
        held, chunks = bytearray(), response.chunks()
        async for chunk in chunks:
            held += chunk
            if len(held) > self._list_limit:
                break
        if len(held) <= self._list_limit:
            await self._whole(response.status, out, shown(bytes(held)), capture)
            return
        if required:
            detail = f"its answer is longer than {self._list_limit} bytes"
            raise UpstreamFailed("upstream_bad_answer", detail)
        await self._start(response.status, out)
        await self._piece(bytes(held), capture)
        async for chunk in chunks:
            await self._piece(chunk, capture)
        await self._body(b"")

    async def events(
        self, response: Response, out: list[Header], capture: Capture, shown: Filter, *, required: bool
    ) -> None:
        """Events one by one, each as `shown`. From one that is too long for that on, all pass as they are,
        unless that is `required`."""
        splitter: Splitter | None = Splitter(self._list_limit)
        await self._start(response.status, out)
        async for chunk in response.chunks():
            try:
                pieces = [_shown(event, shown) for event in splitter.feed(chunk)] if splitter else [chunk]
            except TooLong as error:
                if required:
                    raise _too_long() from error
                assert splitter
                pieces, splitter = [splitter.rest()], None
            for piece in pieces:
                await self._piece(piece, capture)
        await self._body(b"")  # what is left without its empty line is no event

    async def listen(
        self, response: Response, out: list[Header], capture: Capture, shown: Filter, listen: Listen
    ) -> None:
        """Events of a lasting stream, with what is ours to say between them. A list can come in any of them:
        in a replay of an earlier stream, too."""
        splitter = Splitter(self._list_limit)
        await self._start(response.status, out)
        async with contextlib.aclosing(beats(response.chunks(), listen.wake, SILENCE)) as chunks:
            async for chunk in chunks:
                if chunk is None:
                    await self._body(as_events(listen.due()), more=True)
                    continue
                try:
                    events = splitter.feed(chunk)
                except TooLong as error:
                    raise _too_long() from error
                for event in events:
                    visible = _shown(event, shown)
                    await self._piece(visible, capture)
                    listen.saw(data_of(visible))
        await self._body(b"")

    async def _whole(self, status: int, out: list[Header], body: bytes, capture: Capture) -> None:
        capture.feed(body)
        await self._start(status, [*out, (b"content-length", b"%d" % len(body))])
        await self._body(body)

    async def _piece(self, piece: bytes, capture: Capture) -> None:
        capture.feed(piece)
        await self._body(piece, more=True)

    async def _start(self, status: int, out: list[Header]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": out})

    async def _body(self, body: bytes, *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _shown(event: bytes, shown: Filter) -> bytes:
    data = data_of(event)
    visible = shown(data) if data else data
    return event if visible is data else with_data(event, visible)


def _too_long() -> UpstreamFailed:
    return UpstreamFailed("upstream_bad_answer", "it sent an event that is too long")


async def beats(
    chunks: AsyncIterator[bytes], wake: asyncio.Event, silence: float
) -> AsyncGenerator[bytes | None, None]:
    """`chunks` as they come, and None whenever `wake` is set or nothing has come for `silence` seconds."""
    coming = asyncio.ensure_future(anext(chunks))
    waking = asyncio.ensure_future(wake.wait())
    try:
        while True:
            await asyncio.wait({coming, waking}, timeout=silence, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                yield coming.result()
                coming = asyncio.ensure_future(anext(chunks))
            else:
                yield None
            if waking.done() and not wake.is_set():
                waking = asyncio.ensure_future(wake.wait())
    except StopAsyncIteration:
        return
    finally:
        coming.cancel()
        waking.cancel()


def as_events(due: list[bytes]) -> bytes:
    """Messages of our own as server-sent events; if there are none, a comment that keeps the stream alive."""
    return b"".join(map(encoded, due)) or KEEP_ALIVE

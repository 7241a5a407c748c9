"""The answer on its way to the caller: as it comes, or, for lists, without what the caller may not see."""

from collections.abc import Callable

from services.gateway.asgi import Send
from services.gateway.capture import Capture
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.sse import Splitter, TooLong, data_of, with_data
from services.gateway.upstream import Response

# A JSON-RPC message -> the same without what the caller may not see; the same object if nothing changes.
Filter = Callable[[bytes], bytes]


def check_answer(response: Response) -> None:
    """Raise `UpstreamFailed` for an answer that must not be passed on."""
    if response.status == 401:
        raise UpstreamFailed("upstream_unauthorized", "it does not accept the credential stored for it")
    if 300 <= response.status < 400:
        raise UpstreamFailed("upstream_bad_answer", f"it redirects elsewhere (HTTP {response.status})")
    if response.header(b"content-encoding") not in {b"", b"identity"}:
        raise UpstreamFailed("upstream_bad_answer", "it sent an encoded body that was not asked for")


def is_event_stream(response: Response) -> bool:
    return response.header(b"content-type").lower().startswith(b"text/event-stream")


class Relay:
    """Passes one answer on. Raises `UpstreamFailed` when the answer breaks off or is not usable."""

    def __init__(self, send: Send, list_limit: int) -> None:
        self.started = False  # the head is sent: from here on a refusal has no form any more
        self._send, self._list_limit = send, list_limit

    async def as_it_comes(self, response: Response, out: list[Header], capture: Capture) -> None:
        """Every byte, at once."""
        if length := response.header(b"content-length"):
            out = [*out, (b"content-length", length)]
        await self._start(response.status, out)
        async for chunk in response.chunks():
            capture.feed(chunk)
            await self._body(chunk, more=True)
        await self._body(b"")

    async def list_message(
        self, response: Response, out: list[Header], capture: Capture, shown: Filter
    ) -> None:
        """A list that came as one JSON message."""
        body = shown(await response.read(self._list_limit))
        capture.feed(body)
        await self._start(response.status, [*out, (b"content-length", b"%d" % len(body))])
        await self._body(body)

    async def list_events(
        self, response: Response, out: list[Header], capture: Capture, shown: Filter
    ) -> None:
        """Events one by one; a list can come in any of them, in a replay of an earlier stream too."""
        splitter = Splitter(self._list_limit)
        await self._start(response.status, out)
        async for chunk in response.chunks():
            try:
                events = splitter.feed(chunk)
            except TooLong as error:
                raise UpstreamFailed("upstream_bad_answer", "it sent an event that is too long") from error
            for event in events:
                visible = _filtered(event, shown)
                capture.feed(visible)
                await self._body(visible, more=True)
        await self._body(b"")  # what is left without its empty line is no event

    async def _start(self, status: int, out: list[Header]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": out})

    async def _body(self, body: bytes, *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _filtered(event: bytes, shown: Filter) -> bytes:
    # A list has the key "tools", which can also be written with escapes.
    if b"tools" not in event and b"\\u" not in event:
        return event
    data = data_of(event)
    visible = shown(data) if data else data
    return event if visible is data else with_data(event, visible)

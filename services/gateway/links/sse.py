"""Sessions with upstreams of the HTTP+SSE transport (MCP 2024-11-05, basic/transports).

One GET holds the stream on which all messages come. Its first event, `endpoint`, says where to POST messages.
"""

import asyncio
import re
from urllib.parse import urljoin

import structlog

from libs.common.control.entries import origin_of
from libs.common.lifecycle import cancel
from services.gateway.connection import UpstreamFailed
from services.gateway.links.events import Event, events, messages_in
from services.gateway.links.port import Check, Emit, OnClosed, OnFailed
from services.gateway.links.route import EVENTS, Route, refused
from services.gateway.upstream import Target, UpstreamExchange, target_of

log = structlog.get_logger(__name__)

# What may stand in a request line; anything else could end it early.
_URL = re.compile(r"[!-~]{1,4096}")


class SseSession:
    """See `port.Session`. A new `route` counts from the next message on.

    Every answer comes on the one stream, so `on_failed` is never called: if that breaks, the session ends.
    """

    def __init__(self, route: Route, on_message: Emit, on_closed: OnClosed, on_failed: OnFailed) -> None:
        self.route = route
        self._on_message, self._on_closed = on_message, on_closed
        self._reader: asyncio.Task[None] | None = None
        self._endpoint: asyncio.Future[Target] | None = None
        self._posting: set[UpstreamExchange] = set()
        self._over: UpstreamFailed | None = None

    async def start(self) -> None:
        self._endpoint = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(self._endpoint), name="sse-session")
        try:
            async with asyncio.timeout(self.route.connect_timeout + self.route.response_timeout):
                await self._endpoint
        except TimeoutError as error:
            await self.close()
            detail = "it opened an event stream, but did not say where to send messages"
            raise UpstreamFailed("upstream_timeout", detail) from error
        except BaseException:
            await self.close()
            raise

    async def send(self, message: bytes, check: Check) -> None:
        if self._over or self._endpoint is None or not self._endpoint.done():
            raise self._over or UpstreamFailed("upstream_broke_off", "the session has not begun")
        posted = self.route.answer(
            b"POST", [], message, check, target=self._endpoint.result(), running=self._posting
        )
        async with posted as response:
            if not response.is_success:
                raise refused(response.status)
            await response.read(self.route.message_limit)  # nothing of interest, but it frees the connection

    async def close(self) -> None:
        self._end(UpstreamFailed("upstream_broke_off", "the session with it was closed"))
        await cancel(self._reader)

    def _end(self, failure: UpstreamFailed) -> bool:
        """Send nothing any longer; whether this was the end, and not one after it."""
        if self._over:
            return False
        self._over = failure
        for exchange in list(self._posting):
            exchange.abort(failure)
        return True

    async def _read(self, endpoint: "asyncio.Future[Target]") -> None:
        try:
            async with self.route.answer(b"GET", [EVENTS], lasting=True) as response:
                if not response.is_success:
                    raise refused(response.status)
                async for event in events(response, self.route.message_limit):
                    self._take(event, endpoint)
            failure = UpstreamFailed("upstream_broke_off", "it ended the stream of the session")
        except UpstreamFailed as error:
            failure = error
        except Exception as error:  # whoever waits must hear of it
            log.exception("link_failed", error=repr(error))
            failure = UpstreamFailed("upstream_broke_off", "the gateway failed to read its answer")
        if not endpoint.done():
            endpoint.set_exception(failure)
        elif self._end(failure):
            self._on_closed(failure)

    def _take(self, event: Event, endpoint: "asyncio.Future[Target]") -> None:
        if event.name == b"endpoint":
            if not endpoint.done():
                endpoint.set_result(_target(self.route.url, event.data))
        elif event.name == b"message" and event.data:
            for message in messages_in(event.data):
                self._on_message(message)


def _target(url: str, data: bytes) -> Target:
    """Where messages go, by the `endpoint` event of the stream at `url`. Raises `UpstreamFailed`.

    Another origin would get the credential, and what people send, so it is refused.
    """
    given = data.decode("latin-1").strip()
    try:
        address = urljoin(url, given) if _URL.fullmatch(given) else ""
    except ValueError:  # brackets that hold no address
        address = ""
    if not (origin := origin_of(address)):
        raise UpstreamFailed("upstream_bad_answer", "it gave no usable address for messages")
    if origin != origin_of(url):
        raise UpstreamFailed("upstream_bad_answer", f"it wants messages sent to another origin, {origin}")
    return target_of(address)

"""One `subscriptions/listen` stream for a legacy session, kept open.

MCP 2026-07-28, basic/patterns/subscriptions. A filter cannot be changed, so another stream is opened for each
change, and then the one before is ended.
"""

import asyncio
from collections.abc import Callable

import structlog

from libs.common.clock import elapsed
from libs.common.lifecycle import cancel
from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.eras import failures
from services.gateway.eras.failures import RequestFailed
from services.gateway.eras.subscriptions import Filter, changes, filter_of, without_subscription
from services.gateway.links.port import Check, Emit, Endpoint, always
from services.gateway.messages import Message, NotAMessage, members
from services.gateway.protocol import ACKNOWLEDGED, INVALID_PARAMS, METHOD_NOT_FOUND

log = structlog.get_logger(__name__)

ACKNOWLEDGED_WITHIN = 30.0  # seconds
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds between two attempts to listen again
MOST_URIS = 1000


class Listening:
    """What a session listens to. `request` makes the modern request for a filter; news go to `on_message`.

    A stream that ends is opened again, and everything that it was for is said to have changed: nobody knows
    what was missed. `check` is called for that, as for what the session sends on its own behalf.
    """

    def __init__(
        self, endpoint: Endpoint, request: Callable[[Filter], bytes], on_message: Emit, check: Check = always
    ) -> None:
        self._endpoint, self._request, self._on_message, self._check = endpoint, request, on_message, check
        self._wanted = Filter()
        self._stream: _Stream | None = None
        self._again: asyncio.Task[None] | None = None
        self._delay = FIRST_DELAY
        self._adjusting = asyncio.Lock()

    async def listen(self, lists: frozenset[str], check: Check) -> None:
        """Listen to changes of `lists`, now or as soon as the upstream can be reached."""
        self._wanted = self._wanted._replace(lists=lists)
        try:
            async with self._adjusting:
                await self._replace(self._wanted, check)
        except UpstreamFailed:
            self._listen_again()
        except Exception as error:
            # It tells none, whatever its capabilities say, or this client may not listen.
            log.info("not_listening", error=repr(error))

    async def subscribe(self, uri: str, check: Check) -> None:
        """Listen to a resource too. Raises `RequestFailed`, `UpstreamFailed`."""
        async with self._adjusting:
            wanted = self._wanted._replace(uris=self._wanted.uris | {uri})
            if len(wanted.uris) > MOST_URIS:
                detail = f"a session may subscribe to {MOST_URIS} resources"
                raise failures.failed(INVALID_PARAMS, detail)
            honoured = await self._replace(wanted, check)
            if uri not in honoured.uris:
                raise failures.failed(METHOD_NOT_FOUND, f"the server tells no changes of {uri[:200]!r}")

    async def unsubscribe(self, uri: str, check: Check) -> None:
        """Listen to a resource no longer. Raises `RequestFailed`, `UpstreamFailed`."""
        async with self._adjusting:
            if uri in self._wanted.uris:
                await self._replace(self._wanted._replace(uris=self._wanted.uris - {uri}), check)

    async def close(self) -> None:
        again, self._again = self._again, None
        await cancel(again)
        stream, self._stream = self._stream, None
        if stream:
            await stream.close()

    async def _replace(self, wanted: Filter, check: Check) -> Filter:
        """Open a stream for `wanted` in place of the one there is; what the upstream honours of it."""
        stream = None
        if any(wanted):
            stream = _Stream(self._on_message, self._ended)
            await stream.open(self._endpoint, self._request(wanted), check)
        before, self._stream, self._wanted = self._stream, stream, wanted
        if before:
            await before.close()
        return stream.honoured if stream else Filter()

    def _ended(self, stream: "_Stream") -> None:
        if stream is self._stream:
            if elapsed() - stream.opened > LONGEST_DELAY:
                self._delay = FIRST_DELAY
            self._listen_again()

    def _listen_again(self) -> None:
        self._again = asyncio.create_task(self._until_open(self._stream), name="listening-again")

    async def _until_open(self, ended: "_Stream | None") -> None:
        while True:
            await asyncio.sleep(self._delay)
            self._delay = min(self._delay * 2, LONGEST_DELAY)
            async with self._adjusting:
                if self._stream is not ended:  # adjusted meanwhile
                    return
                try:
                    honoured = await self._replace(self._wanted, self._check)
                except UpstreamFailed:
                    continue
                except Exception as error:
                    log.info("not_listening", error=repr(error))
                    return
            for notification in changes(honoured):
                self._on_message(notification)
            return


class _Stream:
    """One request that goes on. `honoured` and `opened` are known once it is acknowledged."""

    def __init__(self, on_message: Emit, on_ended: "Callable[[_Stream], None]") -> None:
        self.honoured, self.opened = Filter(), 0.0
        self._on_message, self._on_ended = on_message, on_ended
        self._acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def open(self, endpoint: Endpoint, request: bytes, check: Check) -> None:
        """Returns when it is acknowledged. Raises `RequestFailed`, `UpstreamFailed`."""
        self._task = asyncio.create_task(self._run(endpoint, request, check), name="listening")
        try:
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN):
                await self._acknowledged
        except TimeoutError:
            await self.close()
            detail = f"no subscription within {ACKNOWLEDGED_WITHIN:g} s"
            raise UpstreamFailed("upstream_timeout", detail) from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await cancel(self._task)

    async def _run(self, endpoint: Endpoint, request: bytes, check: Check) -> None:
        failure: Exception
        try:
            response = messages.read(await endpoint.request(request, self._emit, check))
            failure = UpstreamFailed("upstream_broke_off", "it ended the subscription")
            if refusal := failures.error_of(response):
                failure = RequestFailed(refusal)
        except (UpstreamFailed, NotAMessage) as error:
            failure = failures.as_upstream_failed(error)
        except Exception as error:  # the endpoint's own, for who waits for the acknowledgement
            failure = error
        if self._acknowledged.done():
            self._on_ended(self)
        else:
            self._acknowledged.set_exception(failure)

    def _emit(self, raw: bytes) -> None:
        try:
            self._take(raw, messages.read(raw))
        except NotAMessage:
            return

    def _take(self, raw: bytes, notification: Message) -> None:
        if notification.method == ACKNOWLEDGED:
            self.honoured = filter_of(bytes(members(notification.params).get("notifications", b"")))
            self.opened = elapsed()
            if not self._acknowledged.done():
                self._acknowledged.set_result(None)
        elif self._acknowledged.done() and self.honoured.wants(notification):
            self._on_message(without_subscription(raw))

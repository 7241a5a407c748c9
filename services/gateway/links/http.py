"""Sessions with upstreams of Streamable HTTP of 2025-03-26 to 2025-11-25 (MCP, basic/transports).

Each message is a POST; what a request brings comes as its answer, as JSON or as a stream of events. A GET
stream brings what belongs to no request. A stream that breaks is resumed after its last event, if events
have ids.
"""

import asyncio
import re
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from libs.common.lifecycle import cancel
from services.gateway import messages
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.links.events import addressed, answers, events, messages_in
from services.gateway.links.port import Check, Emit, OnClosed, OnFailed, always
from services.gateway.links.route import EVENTS, JSON_OR_EVENTS, Route, refused
from services.gateway.messages import Message
from services.gateway.protocol import CANCELLED, METHOD_NOT_FOUND
from services.gateway.upstream import Response

log = structlog.get_logger(__name__)

LINGER = 1.0  # seconds for a stream to end by itself after its answer, so that its connection is kept
GRACE = 10.0  # seconds for the answer to a request that was cancelled
RESUMPTIONS = 5  # attempts in a row, without an event between them, to resume the stream of a request
LONGEST_WAIT = 30.0  # seconds between two attempts, if the upstream does not ask for more
GOODBYE = 5.0  # seconds for the upstream to end the session

_VERSION = re.compile(rb"[!-~]{1,40}")


@dataclass(slots=True)
class _Stream:
    """The stream of one request, or of none: how far it has come. `id` is empty for the GET stream."""

    id: bytes = b""
    method: str = ""
    accepted: "asyncio.Future[None] | None" = None
    answered: bool = False
    last_event: bytes = b""
    retry: float | None = None  # seconds, as the upstream wants it
    came: int = 0  # events
    limit: asyncio.Timeout | None = None

    def end_within(self, seconds: float) -> None:
        if self.limit and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + seconds)

    def wait(self, attempt: int) -> float:
        """Seconds until the attempt (from 0) to resume it."""
        asked = 1.0 if self.retry is None else min(300.0, max(0.1, self.retry))
        return max(asked, min(LONGEST_WAIT, asked * 2.0 ** min(attempt, 8)))


class HttpSession:
    """See `port.Session`. A new `route` counts from the next message on."""

    def __init__(self, route: Route, on_message: Emit, on_closed: OnClosed, on_failed: OnFailed) -> None:
        self.route = route
        self._on_message, self._on_closed, self._on_failed = on_message, on_closed, on_failed
        self._session = self._version = b""
        self._streams: dict[asyncio.Task[None], _Stream] = {}
        self._over: UpstreamFailed | None = None

    async def start(self) -> None:
        """Nothing: the first message, `initialize`, begins the session."""

    async def send(self, message: bytes, check: Check) -> None:
        if self._over:
            raise self._over
        read = messages.read(message)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stream = _Stream(read.id if read.kind == "request" else b"", read.method, accepted)
        task = self._begin(self._post(message, read, check, stream), stream)
        try:
            await accepted
        except asyncio.CancelledError:
            task.cancel()
            raise
        if read.method == "notifications/initialized":
            listening = _Stream()
            self._begin(self._listen(listening), listening)
        elif read.method == CANCELLED:
            self._cancelled(read)

    async def close(self) -> None:
        if not self._end(_closed()):
            return
        await asyncio.gather(*map(cancel, self._streams))
        if self._session:
            with suppress(UpstreamFailed, TimeoutError):
                async with asyncio.timeout(GOODBYE), self._answer(b"DELETE", []):
                    pass  # whatever it says: some do not let clients end sessions (405)

    # -- the session ------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[Any, Any, None], stream: _Stream) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name="http-session")
        self._streams[task] = stream
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        stream = self._streams.pop(task)
        error = None if task.cancelled() else task.exception()
        if stream.accepted and not stream.accepted.done():
            stream.accepted.set_exception(error or self._over or _closed())
        elif error:
            log.error("link_failed", error=repr(error), exc_info=error)
            self._lose(UpstreamFailed("upstream_broke_off", "the gateway failed to read its answer"))

    def _end(self, failure: UpstreamFailed) -> bool:
        """End all streams; whether this was the end, and not one after it."""
        if self._over:
            return False
        self._over = failure
        for task in self._streams:
            if task is not asyncio.current_task():
                task.cancel()
        return True

    def _lose(self, failure: UpstreamFailed) -> None:
        if self._end(failure):
            self._on_closed(failure)

    def _lost(self) -> UpstreamFailed:
        failure = UpstreamFailed("session_lost", "it does not know the session any longer")
        self._lose(failure)
        return failure

    def _answer(
        self, method: bytes, given: list[Header], body: bytes | None = None, check: Check = always
    ) -> AbstractAsyncContextManager[Response]:
        version = [(b"mcp-protocol-version", self._version)] if self._version else []
        lasting = method == b"GET"
        return self.route.answer(
            method, [*given, *version], body, check, session=self._session, lasting=lasting
        )

    # -- a message and its answer -----------------------------------------------------------------

    async def _post(self, message: bytes, read: Message, check: Check, stream: _Stream) -> None:
        if read.method == "initialize":
            self._session = self._version = b""
        try:
            async with self._answer(b"POST", [JSON_OR_EVENTS], message, check=check) as response:
                if await self._taken(response, read, stream):
                    await self._deliver(response, stream)
            failure = UpstreamFailed("upstream_broke_off", "it ended its answer before the result")
        except UpstreamFailed as error:
            failure = error
        if stream.accepted and not stream.accepted.done():
            stream.accepted.set_exception(failure)
        elif stream.id and not stream.answered:
            await self._resume(stream, failure)

    async def _taken(self, response: Response, read: Message, stream: _Stream) -> bool:
        """Look at the head; whether messages follow. Raises `UpstreamFailed` when it was not accepted."""
        if not response.is_success:
            await self._refused(response, read, stream)
        elif read.kind != "request":
            if response.status == 202 or response.is_json:
                await response.read(self.route.message_limit)  # nothing of interest; frees the connection
        elif response.status == 202:
            raise UpstreamFailed("upstream_bad_answer", "it accepted a request without answering it")
        elif read.method == "initialize":
            self._session = response.header(b"mcp-session-id")
        if stream.accepted and not stream.accepted.done():
            stream.accepted.set_result(None)
        return bool(stream.id) and not stream.answered

    async def _refused(self, response: Response, read: Message, stream: _Stream) -> None:
        """A status that is no success: the request's answer, or the end of the session, or a failure."""
        error = await self.route.error_in(response)
        if read.method == "initialize" and error:
            self.route.saw("legacy", read.method, response.status, error)
        if response.status == 404 and self._session and _code(error) != METHOD_NOT_FOUND:
            raise self._lost()
        if not error or read.kind != "request":
            raise refused(response.status)
        stream.answered = True
        self._on_message(addressed(error, read.id))

    async def _deliver(self, response: Response, stream: _Stream) -> None:
        """Pass on what comes until the stream ends. Raises `UpstreamFailed` when it breaks."""
        if response.is_json:
            for message in messages_in(await self.route.json(response)):
                self._message(message, stream)
            return
        try:
            async with asyncio.timeout(None) as stream.limit:
                async for event in events(response, self.route.message_limit):
                    stream.came += 1
                    if event.id is not None:
                        stream.last_event = event.id
                    stream.retry = stream.retry if event.retry is None else event.retry
                    if event.name == b"message" and event.data:
                        for message in messages_in(event.data):
                            self._message(message, stream)
        except TimeoutError as error:
            raise UpstreamFailed(
                "upstream_timeout", "it does not end a request that was cancelled"
            ) from error
        finally:
            stream.limit = None

    def _message(self, message: bytes, stream: _Stream) -> None:
        if not stream.answered and answers(message, stream.id):
            stream.answered = True
            stream.end_within(LINGER)
            message = addressed(message, stream.id)
            if stream.method == "initialize":
                self._initialized(message)
        self._on_message(message)

    def _initialized(self, answer: bytes) -> None:
        self.route.saw("legacy", "initialize", 200, answer)
        with suppress(messages.NotAMessage):
            version = bytes(messages.members(messages.read(answer).result).get("protocolVersion", b""))
            version = version.strip(b'"')
            self._version = version if _VERSION.fullmatch(version) else b""

    def _cancelled(self, notification: Message) -> None:
        """The upstream may answer a cancelled request or not, and some leave its stream open for ever."""
        id = bytes(messages.members(notification.params).get("requestId", b""))
        for stream in self._streams.values():
            if stream.id and stream.id == id:
                stream.end_within(GRACE)

    # -- streams that break, and the one for everything else --------------------------------------

    async def _resume(self, stream: _Stream, failure: UpstreamFailed) -> None:
        """Fetch the rest of a request's stream that ended too early."""
        attempt = 0
        while stream.last_event and attempt < RESUMPTIONS:
            came = stream.came
            await asyncio.sleep(stream.wait(attempt))
            try:
                offered = await self._get(stream)
            except UpstreamFailed as error:
                offered, failure = True, error
            if stream.answered or self._over:
                return
            if not offered:
                break
            attempt = 0 if stream.came > came else attempt + 1
        self._on_failed(stream.id, failure)

    async def _listen(self, stream: _Stream) -> None:
        """Keep the GET stream open for as long as the session lives, if the upstream offers one."""
        attempt = 0
        while not self._over:
            came = stream.came
            try:
                if not await self._get(stream):
                    return
            except UpstreamFailed as failure:
                log.info("listening_stream_broke", server=self.route.slug, detail=failure.detail)
            attempt = 0 if stream.came > came else attempt + 1
            await asyncio.sleep(stream.wait(attempt))

    async def _get(self, stream: _Stream) -> bool:
        """Open a stream with GET, after the last event that came of it; whether the upstream offers that."""
        after = [(b"last-event-id", stream.last_event)] if stream.last_event else []
        async with self._answer(b"GET", [EVENTS, *after], check=self.route.standing) as response:
            if response.status == 404 and self._session:
                raise self._lost()
            if 400 <= response.status < 500 and response.status != 429:
                return False
            if not response.is_success:
                raise refused(response.status)
            await self._deliver(response, stream)
            return True


def _code(error: bytes) -> int:
    """The code of a JSON-RPC error response; 0 for nothing."""
    with suppress(messages.NotAMessage):
        return messages.code_of(messages.read(error).error)
    return 0


def _closed() -> UpstreamFailed:
    return UpstreamFailed("upstream_broke_off", "the session with it was closed")

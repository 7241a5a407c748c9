"""Endpoints of upstreams that speak Streamable HTTP of 2026-07-28 (basic/transports/streamable-http).

Each message is one POST, mirrored in headers; the answer is JSON or a stream that ends with it. Closing the
stream cancels the request.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing, suppress

import structlog

from services.gateway import messages
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.links.events import Event, addressed, answers, events
from services.gateway.links.parameters import Parameters, encode_header
from services.gateway.links.port import Check, Emit
from services.gateway.links.route import JSON_OR_EVENTS, Route, refused
from services.gateway.messages import Message
from services.gateway.protocol import META_VERSION
from services.gateway.upstream import Response, UpstreamExchange

log = structlog.get_logger(__name__)

# The parameter that `Mcp-Name` mirrors; those of tasks are an extension's.
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"} | {
    f"tasks/{verb}": "taskId" for verb in ("get", "update", "cancel")
}
LINGER = 0.02  # seconds for a stream to end by itself after its answer, so that its connection is kept


class ModernEndpoint:
    """See `port.Endpoint`. A new `route` counts from the next message on.

    `parameters` may be shared by the endpoints of one upstream, so that they learn from each other's lists.
    """

    def __init__(self, route: Route, parameters: Parameters | None = None) -> None:
        self.route = route
        self._parameters = parameters or Parameters()
        self._running: set[UpstreamExchange] = set()
        self._over: UpstreamFailed | None = None

    async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
        read = messages.read(message)
        async with self._post(message, read, check) as response:
            if not response.is_success:
                answer = await self._refused(response, read)
            elif response.is_json:
                answer = _answer(await self.route.json(response), read.id)
            else:
                answer = await self._streamed(response, read.id, emit)
            self._learn(read, response.status, answer)
            return addressed(answer, read.id)

    async def notify(self, message: bytes, check: Check) -> None:
        async with self._post(message, messages.read(message), check) as response:
            if not response.is_success:
                raise refused(response.status)
            if response.status == 202 or response.is_json:
                await response.read(self.route.message_limit)  # nothing of interest; frees the connection

    async def close(self) -> None:
        self._over = self._over or UpstreamFailed("upstream_broke_off", "the connection to it was closed")
        for exchange in list(self._running):
            exchange.abort(self._over)

    def _post(self, message: bytes, read: Message, check: Check) -> AbstractAsyncContextManager[Response]:
        if self._over:
            raise self._over
        parameters = self._parameters.headers(read.params) if read.method == "tools/call" else []
        given = [JSON_OR_EVENTS, *_mirror(read)]
        return self.route.answer(
            b"POST",
            given,
            message,
            check,
            extra=parameters,
            lasting=read.method == "subscriptions/listen",
            running=self._running,
        )

    async def _refused(self, response: Response, read: Message) -> bytes:
        """The error in an answer with a status of its own. Raises `UpstreamFailed` if there is none."""
        error = await self.route.error_in(response)
        if not error:
            self.route.saw("modern", read.method, response.status, b"")
            raise refused(response.status)
        return error

    async def _streamed(self, response: Response, id: bytes, emit: Emit) -> bytes:
        """The answer among the messages of a stream; notifications go to `emit`."""
        async with aclosing(events(response, self.route.message_limit)) as stream:
            async for event in stream:
                if event.name != b"message" or not event.data:
                    continue
                read = _read(event.data)
                if _answers(read, event.data, id):
                    await _drain(stream)
                    return event.data
                if read.kind == "notification":
                    emit(event.data)
                else:  # a request of the server's, or an answer to nothing: there is no such thing any more
                    log.info("unexpected_message", server=self.route.slug, kind=read.kind)
        raise UpstreamFailed("upstream_broke_off", "it ended its answer before the result")

    def _learn(self, read: Message, status: int, answer: bytes) -> None:
        self.route.saw("modern", read.method, status, answer)
        if read.method == "tools/list":
            self._parameters.learn(messages.read(answer).result)


def _mirror(read: Message) -> list[Header]:
    """What of a message its headers repeat, so that who stands between can decide without the body."""
    version, name = (
        _text(read.params, "_meta", META_VERSION),
        _text(read.params, NAMED_BY.get(read.method, "")),
    )
    mirrored = [(b"mcp-protocol-version", version), (b"mcp-method", read.method), (b"mcp-name", name)]
    return [(header, encode_header(text)) for header, text in mirrored if text]


def _text(value: bytes, *path: str) -> str:
    """The string at `path` in a JSON object; empty where there is none."""
    try:
        for name in path:
            value = bytes(messages.members(value).get(name, b""))
        return messages.text(value)
    except messages.NotAMessage:
        return ""


def _read(message: bytes) -> Message:
    try:
        return messages.read(message)
    except messages.NotAMessage as error:
        raise UpstreamFailed(
            "upstream_bad_answer", f"it sent what is no JSON-RPC message: {error}"
        ) from error


def _answers(read: Message, message: bytes, id: bytes) -> bool:
    """An error may come without an id, from who could not read it (JSON-RPC 2.0, section 5)."""
    return answers(message, id) or (bool(read.error) and read.id in {b"", b"null"})


def _answer(message: bytes, id: bytes) -> bytes:
    """`message`, which must be the response to `id`. Raises `UpstreamFailed`."""
    if not _answers(_read(message), message, id):
        raise UpstreamFailed("upstream_bad_answer", "it answered with something else than the response")
    return message


async def _drain(stream: AsyncGenerator[Event, None]) -> None:
    """Let a stream end that has nothing more to say."""
    with suppress(TimeoutError, UpstreamFailed):
        async with asyncio.timeout(LINGER):
            async for _ in stream:
                pass

"""Many callers over one process that speaks the modern revision (MCP 2026-07-28, basic/transports/stdio).

Requests go under ids and progress tokens of ours, and what comes for them is given back under theirs:
progress by its token, what a `subscriptions/listen` brings by its subscription id. A log message names no
request; it can be told whose it is while only one running request asked for any (server/utilities/logging).
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.links import renaming
from services.gateway.links.handshake import FIRST_ID
from services.gateway.links.port import Check, Emit
from services.gateway.links.process import again
from services.gateway.links.stdio import Pipe
from services.gateway.links.tasks import Owners, task_of
from services.gateway.messages import Message
from services.gateway.protocol import CANCELLED, INVALID_PARAMS, META_LOG_LEVEL, META_SUBSCRIPTION


@dataclass(eq=False)
class Request:
    """One that runs. `token` is empty where there is none."""

    id: bytes
    emit: Emit
    logs: bool
    listens: bool
    token: bytes = b""
    over: bool = False  # the process has answered, or ended
    answer: "asyncio.Future[bytes]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def fail(self, failure: UpstreamFailed) -> None:
        if not self.answer.done():
            self.answer.set_exception(failure)

    def succeed(self, raw: bytes) -> None:
        self.over = True
        if not self.answer.done():
            self.answer.set_result(raw)


class Serving:
    """One modern process, and the requests that it is working on."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self._names = count(FIRST_ID)
        self._requests: dict[int, Request] = {}
        self.owners = Owners()
        pipe.on_message, pipe.on_closed = self._take, self._end

    @property
    def in_use(self) -> bool:
        return bool(self._requests)

    async def carry(self, request: Request, raw: bytes, params: bytes, check: Check) -> bytes:
        """Send `request`, and wait for its answer. Cancelling cancels it. Raises `UpstreamFailed`."""
        name = next(self._names)
        raw, request.token = renaming.request_named(raw, params, str(name).encode())
        self._requests[name] = request
        sent = False
        try:
            await self.pipe.send(raw, check)
            sent = True
            return await request.answer
        finally:
            del self._requests[name]
            if sent and not request.over:
                self.pipe.offer(messages.notification(CANCELLED, {"requestId": name}))
            if not request.answer.cancel() and not request.answer.cancelled():
                request.answer.exception()  # it has been raised, or there was another failure before it

    def _end(self, failure: UpstreamFailed) -> None:
        for request in self._requests.values():
            request.over = True
            request.fail(again(failure))

    def _take(self, raw: bytes, message: Message) -> None:
        if message.kind == "response":
            self._answer(raw, message)
        elif message.kind == "notification":
            self._notify(raw, message)
        else:  # it must not ask, and we must not answer (basic/transports/stdio)
            self.pipe.note("a request", raw)

    def _answer(self, raw: bytes, message: Message) -> None:
        request = self._named(message.id)
        if request is None:
            return  # cancelled
        if META_SUBSCRIPTION in renaming.meta_of(message.result):
            raw = renaming.renamed(raw, "result", META_SUBSCRIPTION, request.id)
        request.succeed(messages.with_id(raw, request.id))

    def _notify(self, raw: bytes, message: Message) -> None:
        params = messages.members(message.params)
        if message.method == "notifications/progress":
            if (request := self._named(bytes(params.get(renaming.TOKEN, b"")))) and request.token:
                request.emit(renaming.progress_named(raw, message.params, request.token))
        elif message.method == CANCELLED:
            self._torn_down(self._named(bytes(params.get("requestId", b""))))
        elif subscription := renaming.meta_of(message.params).get(META_SUBSCRIPTION):
            if request := self._named(bytes(subscription)):
                request.emit(renaming.renamed(raw, "params", META_SUBSCRIPTION, request.id))
        elif request := self._hearer():
            request.emit(raw)
        else:
            self.pipe.note("to nobody in particular", raw)

    def _torn_down(self, request: Request | None) -> None:
        """The process ended a subscription; its answer, which says the same, may come or not."""
        if request and request.listens:
            meta = {META_SUBSCRIPTION: msgspec.Raw(request.id)}
            request.succeed(messages.result(request.id, {"resultType": "complete", "_meta": meta}))

    def _named(self, name: bytes) -> Request | None:
        number = renaming.number(name)
        return self._requests.get(number) if number is not None else None

    def _hearer(self) -> Request | None:
        """Whose log message it is, if only one request can have caused it."""
        hearers = [request for request in self._requests.values() if request.logs]
        return hearers[0] if len(hearers) == 1 else None


class SharedEndpoint:
    """An `Endpoint` (port.py) among those that share a process."""

    def __init__(self, serving: Serving, user: str) -> None:
        self._serving, self._user = serving, user
        serving.owners.join(user)
        self._requests: set[Request] = set()
        self._open = True

    async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
        if not self._open:
            raise _closed()
        read = messages.read(message)
        try:
            logs = META_LOG_LEVEL in renaming.meta_of(read.params)
        except messages.NotAMessage:
            return messages.error(read.id, INVALID_PARAMS, "params and _meta must be objects")
        if not self._serving.owners.may_name(read, self._user):
            return messages.error(read.id, INVALID_PARAMS, "there is no such task")
        request = Request(read.id, emit, logs, read.method == "subscriptions/listen")
        self._requests.add(request)
        try:
            answer = await self._serving.carry(request, message, read.params, check)
            with suppress(messages.NotAMessage):
                if task := task_of(messages.read(answer).result):
                    self._serving.owners.keep(task, self._user)
            return answer
        finally:
            self._requests.discard(request)

    async def notify(self, message: bytes, check: Check) -> None:
        """Cancellations are no notifications here: cancel the task that waits for the answer."""
        if messages.read(message).method != CANCELLED:
            await self._serving.pipe.send(message, check)

    async def close(self) -> None:
        self._open = False
        for request in self._requests:
            request.fail(_closed())


def _closed() -> UpstreamFailed:
    return UpstreamFailed("cancelled", "the caller has gone")

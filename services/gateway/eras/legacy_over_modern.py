"""A `Session` for a legacy client, on a modern `Endpoint`.

The session exists here only: the upstream gets self-contained requests, each with what the client said of
itself in `initialize` and the level that it set by `logging/setLevel`.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import structlog

from libs.common.lifecycle import Tasks, cancel
from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.eras import discovery, failures, inputs, translation
from services.gateway.eras.failures import RequestFailed
from services.gateway.eras.listening import Listening
from services.gateway.eras.questions import Questions
from services.gateway.eras.subscriptions import Filter, announced_lists
from services.gateway.eras.translation import Identity, inner
from services.gateway.links.port import Check, Emit, Endpoint, OnClosed, OnFailed, always
from services.gateway.messages import Message, NotAMessage, members, text
from services.gateway.protocol import CANCELLED, INVALID_PARAMS, INVALID_REQUEST, LEVELS, MAY_ASK

log = structlog.get_logger(__name__)

# Notifications of a legacy client that have no counterpart, or none that anybody waits for.
_DROPPED = {
    *("notifications/progress", "notifications/roots/list_changed", "notifications/tasks/status"),
    "notifications/elicitation/complete",
}
_PAUSE, _LONGEST_PAUSE = 0.05, 0.25  # seconds before a retry for which nothing was asked, as in the SDKs


@dataclass(frozen=True)
class Limits:
    """`requests` at once in a session; `rounds` of questions for one; `answer` seconds for each round."""

    requests: int = 64
    rounds: int = 10
    answer: float = 300.0


@dataclass(frozen=True)
class _Work:
    """One request of the client. `check` has to be called before anything for it leaves."""

    raw: bytes
    message: Message
    check: Check


class LegacyOverModern:
    """A `Session` (links/port.py). It owns `endpoint`: `close` closes it.

    What else than `UpstreamFailed` the endpoint raises before it has taken a request, `send` raises.

    `name` stands in for a server that does not say its own. `check` is for what the session sends on its own
    behalf, which is listening again. A request's own `check` is called in each round of questions.
    `on_closed` is never called: nothing upstream can end the session.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_message: Emit,
        on_closed: OnClosed,
        on_failed: OnFailed,
        *,
        name: str,
        check: Check = always,
        limits: Limits | None = None,
    ) -> None:
        self._endpoint, self._on_message, self._on_failed = endpoint, on_message, on_failed
        self._name, self._limits = name, limits or Limits()
        self._identity: Identity | None = None
        self._server = b""  # the result of server/discover
        self._log_level = ""
        self._ids = itertools.count(1)
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._background = Tasks()
        self._questions = Questions(on_message, self._limits.answer)
        self._listening = Listening(endpoint, self._listen_request, on_message, check)
        self._closed = False
        self._answers: dict[str, Callable[[_Work], Awaitable[bytes]]] = {
            "initialize": self._initialize,
            "ping": self._ping,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
        }

    async def start(self) -> None:
        """There is nothing to connect before something is sent."""

    async def send(self, message: bytes, check: Check) -> None:
        """See `Session.send`. Raises `UpstreamFailed`."""
        if self._closed:
            raise UpstreamFailed("upstream_broke_off", "the session is closed")
        try:
            parts = messages.read(message)
        except NotAMessage:
            return  # nobody to tell
        if parts.kind == "response":
            self._questions.answered(parts)
        elif parts.kind == "notification":
            await self._notified(message, parts, check)
        else:
            await self._requested(_Work(message, parts, check))

    async def close(self) -> None:
        """End everything: requests that run are cancelled upstream."""
        self._closed = True
        for task in [*self._running.values()]:
            await cancel(task)
        await self._background.cancel()
        await self._listening.close()
        await self._endpoint.close()

    # -- what the client sends --------------------------------------------------------------------

    async def _notified(self, raw: bytes, notification: Message, check: Check) -> None:
        if notification.method == CANCELLED:
            task = self._running.get(bytes(members(notification.params).get("requestId", b"")))
            if task:
                task.cancel()
        elif notification.method == "notifications/initialized":
            self._listen(check)
        elif notification.method not in _DROPPED:
            await self._endpoint.notify(raw, check)

    def _listen(self, check: Check) -> None:
        """Hear of changes of lists, as a legacy client does without asking for it."""
        lists = announced_lists(bytes(members(self._server).get("capabilities", b"")))
        if not lists:
            return
        check()
        self._background.spawn(self._listening.listen(lists, check), "listening")

    async def _requested(self, work: _Work) -> None:
        """Returns when the request was sent upstream, or answered here. Raises `UpstreamFailed`."""
        id = work.message.id
        if id in self._running:
            in_use = failures.failed(INVALID_REQUEST, "a request with this id still runs")
            self._on_message(in_use.response(id))
            return
        if len(self._running) >= self._limits.requests:
            detail = f"the session has {self._limits.requests} requests open"
            raise UpstreamFailed("upstream_busy", detail)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._running[id] = asyncio.create_task(self._serve(work, accepted), name="legacy-request")
        task.add_done_callback(lambda task: self._over(id, task, accepted))
        try:
            await accepted
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _over(self, id: bytes, task: "asyncio.Task[None]", accepted: "asyncio.Future[None]") -> None:
        if self._running.get(id) is task:
            del self._running[id]
        error = None if task.cancelled() else task.exception()
        if error and accepted.done():
            log.error("translation_failed", error=repr(error), exc_info=error)
            self._on_failed(id, UpstreamFailed("upstream_bad_answer", "the gateway failed to translate it"))
        elif error:
            accepted.set_exception(error)
        elif not accepted.done():
            accepted.set_result(None)

    async def _serve(self, work: _Work, accepted: "asyncio.Future[None]") -> None:
        def check() -> None:
            work.check()
            if not accepted.done():
                accepted.set_result(None)

        id, failure = work.message.id, None
        try:
            response = await self._answer(_Work(work.raw, work.message, check))
        except RequestFailed as refusal:
            response = refusal.response(id)
        except (UpstreamFailed, NotAMessage) as error:
            failure = failures.as_upstream_failed(error)
        del self._running[id]  # whoever hears of it may use the id again at once
        if failure is None:
            self._on_message(response)
        elif accepted.done():
            self._on_failed(id, failure)
        else:
            accepted.set_exception(failure)

    async def _answer(self, work: _Work) -> bytes:
        method = work.message.method
        translation.refuse_untranslatable(method, "legacy")
        if self._identity is None and method not in {"initialize", "ping"}:
            raise failures.failed(INVALID_REQUEST, "send initialize first")
        return await self._answers.get(method, self._forward)(work)

    # -- what is answered here --------------------------------------------------------------------

    async def _initialize(self, work: _Work) -> bytes:
        """2025-11-25, basic/lifecycle, from 2026-07-28, server/discover."""
        params = members(work.message.params)
        capabilities = discovery.without_tasks(bytes(params.get("capabilities", b"{}")))
        identity = Identity(capabilities, bytes(params.get("clientInfo", b"")))
        request = messages.request(
            self._next_id(), "server/discover", {"_meta": translation.envelope(identity)}
        )
        discovered = messages.read(await self._endpoint.request(request, _ignore, work.check))
        if error := failures.error_of(discovered):
            raise RequestFailed(error)
        version = discovery.negotiated(text(params.get("protocolVersion")))
        result = discovery.initialize_result(discovered.result, version, self._name)
        self._identity, self._server = identity, discovered.result
        return messages.result(work.message.id, msgspec.Raw(result))

    async def _ping(self, work: _Work) -> bytes:
        return messages.result(work.message.id, {})

    async def _set_level(self, work: _Work) -> bytes:
        level = text(members(work.message.params).get("level"))
        if level not in LEVELS:
            raise failures.failed(INVALID_PARAMS, f"no log level: {level[:40]!r}")
        self._log_level = level
        return messages.result(work.message.id, {})

    async def _subscribe(self, work: _Work) -> bytes:
        await self._listening.subscribe(_uri(work.message), work.check)
        return messages.result(work.message.id, {})

    async def _unsubscribe(self, work: _Work) -> bytes:
        await self._listening.unsubscribe(_uri(work.message), work.check)
        return messages.result(work.message.id, {})

    # -- what goes upstream -----------------------------------------------------------------------

    async def _forward(self, work: _Work) -> bytes:
        """The upstream's response, after as many rounds of questions as it takes (basic/patterns/mrtr)."""
        method = work.message.method
        request = translation.modern_request(work.raw, self._next_id(), self._who, self._log_level)
        for round in range(self._limits.rounds + 1):
            raw = await self._endpoint.request(request, self._on_message, work.check)
            response = messages.read(raw)
            kind = translation.result_type(response.result) if response.result else "complete"
            if kind == "complete":
                return translation.legacy_response(raw, work.message.id, method)
            if kind != "input_required" or method not in MAY_ASK:
                detail = f"its answer to {method[:100]} is of a kind that no client knows: {kind[:40]!r}"
                raise UpstreamFailed("upstream_bad_answer", detail)
            request = await self._next_round(request, response, round)
        detail = f"it asked for more in {self._limits.rounds} rounds of questions"
        raise UpstreamFailed("upstream_bad_answer", detail)

    async def _next_round(self, request: bytes, response: Message, round: int) -> bytes:
        """The request again, with what was asked for. Raises `RequestFailed`."""
        parts = members(response.result)
        answers = None
        if "inputRequests" in parts:
            answers = await self._questions.ask(inner(parts, "inputRequests"), self._who.capabilities)
        else:
            await asyncio.sleep(min(_PAUSE * 2**round, _LONGEST_PAUSE))
        return inputs.retry(request, self._next_id(), answers, parts.get("requestState"))

    def _listen_request(self, wanted: Filter) -> bytes:
        params = {"_meta": translation.envelope(self._who), "notifications": wanted.encoded()}
        return messages.request(self._next_id(), "subscriptions/listen", params)

    @property
    def _who(self) -> Identity:
        return self._identity or Identity(b"{}")

    def _next_id(self) -> bytes:
        return b"%d" % next(self._ids)


def _ignore(raw: bytes) -> None:
    """No notification is of interest while the session is being made."""


def _uri(request: Message) -> str:
    uri = text(members(request.params).get("uri"))
    if not uri:
        raise failures.failed(INVALID_PARAMS, f'{request.method} needs a "uri" in its params')
    return uri

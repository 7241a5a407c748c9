"""A legacy session with an upstream, held for a modern client: from `initialize` to its end.

Requests get ids of its own, which are their progress tokens too. What the server asks goes to the one call
that may be asked: a session does not tell which request a question belongs to.
"""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from libs.common.lifecycle import Tasks
from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.eras import discovery, failures, translation
from services.gateway.eras.calls import Call, Ear, Question
from services.gateway.eras.hearing import Hearer, Hearing
from services.gateway.eras.inquiries import Inquiries
from services.gateway.eras.translation import Identity, raw
from services.gateway.links.port import Check, OpenSession, always
from services.gateway.messages import Message, NotAMessage, members, text
from services.gateway.protocol import CANCELLED, LEGACY, LEVELS

MOST_SENDING = 64  # messages of our own that an upstream may leave waiting
ANSWERED_WITHIN = 30.0  # seconds for requests of our own, but for `initialize`


class LegacySession:
    """One session. `on_over` is called once when it has ended without `close`.

    `users` and `reserved` are the pool's: how many use it, and whether one of them has the right to be asked.
    """

    def __init__(
        self, open: OpenSession, identity: Identity, start_within: float, on_over: Callable[[], None]
    ) -> None:
        self.identity = identity
        self.users, self.reserved = 0, False
        self.initialized = b""  # the result of `initialize`
        self.hearing = Hearing(self._request)
        self.inquiries = Inquiries(identity.capabilities, self._say)
        self._session = open(self._take, self._lose, self._fail)
        self._start_within, self._on_over = start_within, on_over
        self._ids = itertools.count(1)
        self._running: dict[bytes, Call] = {}
        self._level = ""
        self._tasks = Tasks()
        self._failure: UpstreamFailed | None = None  # why it is over

    async def start(self) -> None:
        """Connect and initialize (2025-11-25, basic/lifecycle). Raises `UpstreamFailed`."""
        await self._session.start()
        info = self.identity.info or raw({"name": "unknown", "version": ""})
        capabilities = discovery.without_tasks(self.identity.capabilities)
        params = {
            "protocolVersion": LEGACY[-1],
            "capabilities": msgspec.Raw(capabilities),
            "clientInfo": msgspec.Raw(info),
        }
        response = await self._request("initialize", params, always, self._start_within)
        if failures.error_of(response):
            refusal = response.error[:200].decode(errors="replace")
            raise UpstreamFailed("upstream_bad_answer", f"it refuses to begin a session: {refusal}")
        version = text(members(response.result).get("protocolVersion"))
        if version not in LEGACY:
            raise UpstreamFailed("upstream_bad_answer", f"it speaks an unknown revision: {version[:40]!r}")
        self.initialized = response.result
        await self._session.send(messages.notification("notifications/initialized"), always)

    async def close(self, failure: UpstreamFailed | None = None) -> None:
        """End the session; what still runs fails."""
        self._end(failure or UpstreamFailed("upstream_broke_off", "the session with it was closed"))
        await self._tasks.cancel()
        await self._session.close()

    @property
    def server_info(self) -> bytes:
        return bytes(members(self.initialized).get("serverInfo", b""))

    @property
    def capabilities(self) -> bytes:
        """The server's."""
        return bytes(members(self.initialized).get("capabilities", b"{}"))

    # -- calls ------------------------------------------------------------------------------------

    def begin(
        self, request: bytes, ear: Ear, check: Check, *, to_ask: bool, on_over: Callable[[], None]
    ) -> Call:
        """Send a modern request; `to_ask`: it is the one to which questions go."""
        call = self._new(messages.read(request).method, ear, on_over)
        if to_ask:
            self.inquiries.attend(call)
        token = call.id if ear.token else b""
        self._send(call, translation.legacy_request(request, call.id, token), check)
        return call

    def cancel(self, call: Call, reason: str) -> None:
        """Nobody waits for `call` any more (2025-11-25, basic/utilities/cancellation), nor answers it."""
        if not call.over:
            self._over_with(call, failure=UpstreamFailed("upstream_broke_off", reason))
            if call.left:
                self._say(messages.cancelled(call.id, reason))
            if call.sending:
                call.sending.cancel()
        self.inquiries.refuse(call, reason)

    async def answer(self, question: Question, answer: bytes, check: Check) -> None:
        """Answer a question. Raises `UpstreamFailed`."""
        question.open = False
        await self._session.send(messages.result(question.id, msgspec.Raw(answer)), check)

    async def want_level(self, level: str) -> None:
        """Have the server log from `level` on, at least.

        There is one level for a whole session, so it never gets less, and each call takes what it asked for.
        """
        known = not self._level or LEVELS.index(level) < LEVELS.index(self._level)
        if known and discovery.has_capability(self.capabilities, "logging"):
            self._level = level
            with suppress(UpstreamFailed):  # no reason not to make the call
                await self._request("logging/setLevel", {"level": level}, always)

    def leave(self, hearer: Hearer) -> None:
        """`hearer` is gone; the server need not tell any more what only that one wanted."""
        for uri in self.hearing.leave(hearer):
            if not self._failure:
                call = self._new("resources/unsubscribe", None, lambda: None)
                self._send(call, messages.request(call.id, call.method, {"uri": uri}), always)

    async def notify(self, notification: bytes, check: Check) -> None:
        await self._session.send(notification, check)

    def _new(self, method: str, ear: Ear | None, on_over: Callable[[], None]) -> Call:
        if self._failure:
            raise self._failure
        call = Call(b"%d" % next(self._ids), method, ear, on_over)
        self._running[call.id] = call
        return call

    def _send(self, call: Call, message: bytes, check: Check) -> None:
        def leaving() -> None:
            check()
            call.left = True

        async def deliver() -> None:
            try:
                await self._session.send(message, leaving)
            except UpstreamFailed as failure:
                self._over_with(call, failure=failure)

        call.sending = self._tasks.spawn(deliver(), "legacy-session")

    async def _request(
        self, method: str, params: Any, check: Check, within: float = ANSWERED_WITHIN
    ) -> Message:
        """A request of our own. Raises `UpstreamFailed`."""
        call = self._new(method, None, lambda: None)
        self._send(call, messages.request(call.id, method, params), check)
        try:
            async with asyncio.timeout(within):
                await call.turn()
        except TimeoutError:
            detail = f"it did not answer {method} within {within:g} s"
            raise UpstreamFailed("upstream_timeout", detail) from None
        finally:
            self.cancel(call, "it was not answered in time")
        if call.failure:
            raise call.failure
        return messages.read(call.response)

    def _over_with(self, call: Call, response: bytes = b"", failure: UpstreamFailed | None = None) -> None:
        self._running.pop(call.id, None)
        self.inquiries.leave(call)
        call.end(response, failure)

    # -- what the server sends --------------------------------------------------------------------

    def _take(self, message: bytes) -> None:
        try:
            parts = messages.read(message)
            if parts.kind == "request":
                self.inquiries.take(parts)
            elif parts.kind == "notification":
                self._tells(message, parts)
            elif call := self._running.get(parts.id):
                self._over_with(call, response=message)
        except NotAMessage:
            return  # it has no id that could be answered

    def _tells(self, raw: bytes, notification: Message) -> None:
        method = notification.method
        if method == "notifications/progress":
            self._progress(raw, notification)
        elif method == "notifications/message":
            self._log(raw, notification)
        elif method == CANCELLED:
            self.inquiries.withdraw(bytes(members(notification.params).get("requestId", b"")))
        elif not self.hearing.take(raw, notification) and method not in _UNTRANSLATABLE:
            call = self.inquiries.asked or next(reversed(self._running.values()), None)
            if call and call.ear:
                call.ear.emit(raw)

    def _progress(self, raw: bytes, notification: Message) -> None:
        params = members(notification.params)
        call = self._running.get(bytes(params.get("progressToken", b"")))
        if call and call.ear and call.ear.token:
            params["progressToken"] = msgspec.Raw(call.ear.token)
            call.ear.emit(messages.with_member(raw, "params", messages.joined(params)))

    def _log(self, raw: bytes, notification: Message) -> None:
        """A legacy log message belongs to the session, a modern one to a request (server/utilities/logging).

        It goes to one call that wants it: the one that may be asked, or else the last.
        """
        level = text(members(notification.params).get("level"))
        severity = LEVELS.index(level) if level in LEVELS else len(LEVELS)
        asked = self.inquiries.asked
        for call in [*([asked] if asked else []), *reversed(self._running.values())]:
            if call.ear and call.ear.level and LEVELS.index(call.ear.level) <= severity:
                call.ear.emit(raw)
                return

    # -- its end ----------------------------------------------------------------------------------

    def _fail(self, id: bytes, failure: UpstreamFailed) -> None:
        if call := self._running.get(id):
            self._over_with(call, failure=failure)

    def _lose(self, failure: UpstreamFailed) -> None:
        if not self._failure:
            self._end(failure)
            self._on_over()

    def _end(self, failure: UpstreamFailed) -> None:
        self._failure = self._failure or failure
        for call in [*self._running.values()]:
            self._over_with(call, failure=failure)
        self.hearing.end(failure)

    def _say(self, message: bytes) -> None:
        """Send something of our own, in the background; who asks and does not listen is given up."""
        if self._failure:
            return
        if len(self._tasks) - len(self._running) > MOST_SENDING:
            self._lose(UpstreamFailed("upstream_bad_answer", "it asks without taking the answers"))
            return
        self._tasks.spawn(self._send_quietly(message), "legacy-session")

    async def _send_quietly(self, message: bytes) -> None:
        with suppress(UpstreamFailed):  # the session says so itself, if it is lost
            await self._session.send(message, always)


# Of the legacy era only (changelog 2026-07-28, major change 6, minor change 11).
_UNTRANSLATABLE = {"notifications/elicitation/complete", "notifications/tasks/status"}

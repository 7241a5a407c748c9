"""An `Endpoint` for a modern client, on legacy `Session`s with the upstream.

The sessions and the calls that wait for input are one caller's: make one endpoint for each caller and server.
"""

from dataclasses import dataclass, field

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.eras import discovery, failures, inputs, translation
from services.gateway.eras.calls import Ear
from services.gateway.eras.failures import RequestFailed
from services.gateway.eras.hearing import Hearer
from services.gateway.eras.held import Asking, Held
from services.gateway.eras.legacy_session import LegacySession
from services.gateway.eras.session_pool import SessionLimits, SessionPool
from services.gateway.eras.subscriptions import Filter, filter_of
from services.gateway.eras.translation import (
    Identity,
    meta_of,
)
from services.gateway.links.port import Check, Emit, OpenSession
from services.gateway.messages import Message, NotAMessage, members, text
from services.gateway.protocol import (
    CANCELLED,
    INVALID_PARAMS,
    LEVELS,
    MAY_ASK,
    META_CAPABILITIES,
    META_INFO,
    META_LOG_LEVEL,
    META_VERSION,
    MODERN,
    UNSUPPORTED_VERSION,
    URL_ELICITATION_REQUIRED,
)


@dataclass(frozen=True)
class Limits:
    """`requests` at once; `held` calls that wait for input `lifetime` seconds; `uris` of one listener."""

    requests: int = 128
    held: int = 32
    lifetime: float = 300.0
    uris: int = 1000
    sessions: SessionLimits = field(default_factory=SessionLimits)


@dataclass(frozen=True)
class _Work:
    """One request of the client, what it says of who asks, and how to reach it."""

    raw: bytes
    message: Message
    identity: Identity
    ear: Ear
    check: Check


class ModernOverLegacy:
    """An `Endpoint` (links/port.py).

    `prefix` begins each `requestState` (held.py says how), so that a retry can be brought to where its call
    is held. A request's `check` is called right before the message that carries it leaves, and before a
    session is opened for it.
    """

    def __init__(self, open: OpenSession, prefix: str, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._pool = SessionPool(open, self._limits.sessions)
        self._held = Held(prefix, self._limits.held, self._limits.lifetime, self._expired)
        self._count = 0

    @property
    def idle(self) -> bool:
        """Whether it holds nothing: no request, no session, no call that waits for input."""
        return not self._count and self._pool.empty and self._held.empty

    async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
        """See `Endpoint.request`. Raises `UpstreamFailed`."""
        parts = messages.read(message)
        if self._count >= self._limits.requests:
            raise UpstreamFailed("upstream_busy", f"you have {self._limits.requests} requests to it open")
        self._count += 1
        try:
            return await self._answer(_work(message, parts, emit, check))
        except RequestFailed as failure:
            return failure.response(parts.id)
        except NotAMessage as error:
            raise failures.as_upstream_failed(error) from error
        finally:
            self._count -= 1

    async def notify(self, message: bytes, check: Check) -> None:
        """Send a notification to the newest session; without one there is nobody whom it could concern.

        A request is cancelled by cancelling its task, not by `notifications/cancelled`, which names an id
        that several clients may have used. Raises `UpstreamFailed`.
        """
        sessions = self._pool.sessions
        if sessions and messages.read(message).method != CANCELLED:
            await sessions[-1].notify(message, check)

    async def close(self) -> None:
        """End all sessions, and with them what runs."""
        self._held.close()
        await self._pool.close(UpstreamFailed("upstream_broke_off", "the connection to it was closed"))

    async def _answer(self, work: _Work) -> bytes:
        method = work.message.method
        if method == "server/discover":
            return await self._discover(work)
        if method == "subscriptions/listen":
            return await self._listen(work)
        translation.refuse_untranslatable(method, "modern")
        state = members(work.message.params).get("requestState") if method in MAY_ASK else None
        if state is not None:
            return await self._resume(work, text(state))
        return await self._run(work)

    # -- requests that go upstream ----------------------------------------------------------------

    async def _run(self, work: _Work) -> bytes:
        method, params = work.message.method, work.message.params
        if inputs.declined(inputs.answers_of(params)):  # of URLs, see `inputs.required_urls`
            raise failures.failed(failures.INPUT_DECLINED, "the server needs what was declined")
        to_ask = method in MAY_ASK and inputs.may_be_asked(work.identity.capabilities)
        digest = inputs.subject_digest(method, params) if to_ask else b""
        work.check()
        session = await self._pool.take(work.identity, to_ask=to_ask)
        try:
            if work.ear.level:
                await session.want_level(work.ear.level)
            call = session.begin(
                work.raw,
                work.ear,
                work.check,
                to_ask=to_ask,
                on_over=lambda: self._pool.give_back(session, to_ask=to_ask),
            )
        except BaseException:
            self._pool.give_back(session, to_ask=to_ask)
            raise
        return await self._turn(Asking(session, call, digest), work)

    async def _turn(self, asking: Asking, work: _Work) -> bytes:
        """The response of the call, or what it asks (2026-07-28, basic/patterns/mrtr)."""
        session, call = asking.session, asking.call
        call.ear = work.ear
        try:
            await call.turn()
        except BaseException:
            session.cancel(call, "the client cancelled the request")
            raise
        finally:
            call.ear = None
        if call.over:
            session.inquiries.settle(call)
            if call.failure:
                raise call.failure
            return self._response(call.response, session, work)
        return self._ask(asking, work)

    def _response(self, response: bytes, session: LegacySession, work: _Work) -> bytes:
        method, error = work.message.method, failures.error_of(messages.read(response))
        if messages.code_of(error) == URL_ELICITATION_REQUIRED and method in MAY_ASK:
            result = inputs.required_urls(error, work.identity.capabilities)
            return messages.result(work.message.id, msgspec.Raw(result))
        return translation.modern_response(response, work.message.id, method, session.server_info)

    def _ask(self, asking: Asking, work: _Work) -> bytes:
        try:
            state = self._held.hold(asking)
        except UpstreamFailed as failure:
            asking.session.cancel(asking.call, failure.detail)
            raise
        questions = {key: msgspec.Raw(each.encoded()) for key, each in asking.call.questions.items()}
        return messages.result(work.message.id, msgspec.Raw(inputs.input_required(questions, state)))

    async def _resume(self, work: _Work, state: str) -> bytes:
        """Take a held call up again with the answers; what was not answered is asked once more."""
        asking = self._held.find(state)
        if asking is None:
            detail = (
                "no call waits for this requestState: it is used, its time is over, or the gateway restarted"
            )
            raise failures.failed(INVALID_PARAMS, detail)
        if asking.digest != inputs.subject_digest(work.message.method, work.message.params):
            detail = "the requestState is for another request"
            raise failures.failed(INVALID_PARAMS, detail)
        answers = inputs.answers_of(work.message.params)
        work.check()
        self._held.release(state)
        asking.call.ear = work.ear
        try:
            for key, question in asking.call.questions.items():
                if key in answers:
                    await asking.session.answer(question, bytes(answers[key]), work.check)
        except BaseException:
            asking.session.cancel(asking.call, "the client's answer could not be delivered")
            raise
        return await self._turn(asking, work)

    def _expired(self, asking: Asking) -> None:
        asking.session.cancel(asking.call, "the client did not answer what was asked in time")

    # -- what is answered here --------------------------------------------------------------------

    async def _discover(self, work: _Work) -> bytes:
        """2026-07-28, server/discover, from what the server said when the session began."""
        work.check()
        session = await self._pool.take(work.identity, to_ask=False)
        self._pool.give_back(session, to_ask=False)
        result = discovery.discover_result(session.initialized)
        return messages.result(work.message.id, msgspec.Raw(result))

    async def _listen(self, work: _Work) -> bytes:
        """2026-07-28, basic/patterns/subscriptions. It ends when it is cancelled or the session is lost."""
        wanted = self._filter(work.message)
        work.check()
        session = await self._pool.take(work.identity, to_ask=False)
        hearer = Hearer(work.message.id, work.ear.emit)
        try:
            await session.hearing.join(hearer, wanted, session.capabilities, work.check)
            hearer.acknowledge()
            raise await hearer.ended()
        finally:
            session.leave(hearer)
            self._pool.give_back(session, to_ask=False)

    def _filter(self, request: Message) -> Filter:
        try:
            wanted = filter_of(bytes(members(request.params).get("notifications", b"")))
        except NotAMessage as error:
            raise failures.failed(INVALID_PARAMS, f"no filter: {error}") from error
        if len(wanted.uris) > self._limits.uris:
            detail = f"a subscription may name {self._limits.uris} resources"
            raise failures.failed(INVALID_PARAMS, detail)
        return wanted


def _work(raw: bytes, request: Message, emit: Emit, check: Check) -> _Work:
    """What `_meta` says (2026-07-28, basic/index "Per-request protocol fields"). Raises `RequestFailed`."""
    try:
        meta = meta_of(request.params)
        members(meta[META_CAPABILITIES])
        version = text(meta[META_VERSION])
    except (KeyError, NotAMessage):
        detail = f"each request needs {META_VERSION} and {META_CAPABILITIES} in its _meta"
        raise failures.failed(INVALID_PARAMS, detail) from None
    if version != MODERN:
        data = {"supported": [MODERN], "requested": version}
        raise failures.failed(UNSUPPORTED_VERSION, "unsupported protocol version", data)
    level = text(meta.get(META_LOG_LEVEL))
    if META_LOG_LEVEL in meta and level not in LEVELS:
        raise failures.failed(INVALID_PARAMS, f"no log level: {level[:40]!r}")
    identity = Identity(bytes(meta[META_CAPABILITIES]), bytes(meta.get(META_INFO, b"")))
    return _Work(raw, request, identity, Ear(emit, bytes(meta.get("progressToken", b"")), level), check)

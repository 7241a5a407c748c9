"""Many sessions over one process that speaks a legacy revision.

The process knows one client, which is us, without capabilities. Each session has its requests under ids and
progress tokens of ours, and gets what belongs to it. What the process says to nobody in particular (log
messages, notifications of extensions) may tell of anybody's request: the sessions hear it as long as they
have all been one person's, and administrators otherwise (Process.errors).
"""

from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.links import renaming
from services.gateway.links.handshake import FIRST_ID, answer_for_nobody
from services.gateway.links.port import Check
from services.gateway.links.process import again
from services.gateway.links.stdio import Pipe
from services.gateway.links.tasks import Owners, task_of
from services.gateway.messages import Members, Message
from services.gateway.protocol import CANCELLED, LEGACY, LEVELS, LIST_CHANGES

if TYPE_CHECKING:
    from services.gateway.links.shared_session import SharedSession


class Call(NamedTuple):
    """A request that the process has not answered."""

    session: "SharedSession"
    id: bytes
    uri: str  # of the resource that it subscribes to; empty if it does not


class Sharing:
    """One legacy process, and the sessions that share it."""

    def __init__(self, pipe: Pipe, initialized: bytes) -> None:
        """`initialized` is the InitializeResult (raw JSON)."""
        self.pipe = pipe
        self._result = messages.members(initialized)
        self._names = count(FIRST_ID)
        self._sessions: set[SharedSession] = set()
        self.owners = Owners()
        self.calls: dict[int, Call] = {}
        self.tokens: dict[int | None, tuple[SharedSession, bytes]] = {}
        pipe.on_message, pipe.on_closed = self._take, self._end

    @property
    def in_use(self) -> bool:
        return bool(self._sessions)

    def join(self, session: "SharedSession") -> None:
        """Raises `UpstreamFailed` when the process has ended."""
        if self.pipe.failure:
            raise self.pipe.failure
        self._sessions.add(session)
        self.owners.join(session.user)

    def leave(self, session: "SharedSession") -> None:
        """Forget it, and tell the process that nobody waits for its answers any more."""
        self._sessions.discard(session)
        for name in [name for name, call in self.calls.items() if call.session is session]:
            self.cancel(name, None)
        self.tokens = {name: kept for name, kept in self.tokens.items() if kept[0] is not session}
        for uri in session.subscriptions:
            if not self.is_subscribed(uri):
                id = str(next(self._names)).encode()
                self.pipe.offer(messages.request(id, "resources/unsubscribe", {"uri": uri}))

    def initialized_for(self, params: bytes) -> Members:
        """The InitializeResult for a client that asks with `params`.

        A revision that is older than that of the process is its own answer: it is contained in the newer one,
        and a client that gets another may only leave (MCP 2025-11-25, basic/lifecycle, Version Negotiation).
        """
        wanted = renaming.text(params, "protocolVersion")
        spoken = renaming.text(messages.joined(self._result), "protocolVersion")
        result = dict(self._result)
        if wanted in LEGACY and spoken in LEGACY and LEGACY.index(wanted) < LEGACY.index(spoken):
            result["protocolVersion"] = msgspec.Raw(msgspec.json.encode(wanted))
        result["capabilities"] = msgspec.Raw(_without_task_list(bytes(result.get("capabilities", b"{}"))))
        return result

    async def forward(self, call: Call, raw: bytes, params: bytes, check: Check) -> None:
        """Send a request under a name of ours. Raises `UpstreamFailed`."""
        name = next(self._names)
        raw, token = renaming.request_named(raw, params, str(name).encode())
        self.calls[name] = call
        if token:
            self.tokens[name] = (call.session, token)
        try:
            await self.pipe.send(raw, check)
        except BaseException:
            self.calls.pop(name, None)
            self.tokens.pop(name, None)
            raise

    def cancel(self, name: int, params: Members | None) -> None:
        """Tell the process that nobody waits for `name` any more; an answer that still comes is dropped."""
        self.calls.pop(name, None)
        self.tokens.pop(name, None)
        named = (params or {}) | {"requestId": msgspec.Raw(str(name).encode())}
        self.pipe.offer(messages.notification(CANCELLED, named))

    def is_subscribed(self, uri: str) -> bool:
        return any(uri in session.subscriptions for session in self._sessions)

    def subscribers(self, uri: str) -> "list[SharedSession]":
        """Who hears of changes of the resource: who subscribed to it, or to what it is a part of."""
        return [
            session
            for session in self._sessions
            if any(uri == whole or uri.startswith(whole.rstrip("/") + "/") for whole in session.subscriptions)
        ]

    def most_verbose(self) -> str:
        """The log level that serves all sessions that asked for one."""
        return LEVELS[min(session.level for session in self._sessions if session.level is not None)]

    # -- from the process -------------------------------------------------------------------------

    def _end(self, failure: UpstreamFailed) -> None:
        sessions, self._sessions = self._sessions, set()
        self.calls.clear()
        self.tokens.clear()
        for session in sessions:
            session.end(again(failure))

    def _take(self, raw: bytes, message: Message) -> None:
        if message.kind == "response":
            self._answer(raw, message)
        elif message.kind == "request":
            self.pipe.offer(answer_for_nobody(message))
        else:
            self._notify(raw, message)

    def _answer(self, raw: bytes, message: Message) -> None:
        name = renaming.number(message.id)
        call = self.calls.pop(name, None) if name is not None else None
        if name is None or call is None:
            return  # cancelled, or our own
        task = ""
        with suppress(messages.NotAMessage):  # a strange result is the caller's to judge
            task = task_of(message.result)
        if task:
            self.owners.keep(task, call.session.user)
        # Progress of a task goes on after this answer; each session keeps so many.
        self.tokens.pop(call.session.keep_task(task, name) if task else name, None)
        if message.error:
            call.session.subscriptions.discard(call.uri)
        call.session.deliver(messages.with_id(raw, call.id))

    def _notify(self, raw: bytes, message: Message) -> None:
        if message.method == "notifications/progress":
            self._progress(raw, message)
        elif message.method == CANCELLED:
            pass  # of a request of its own, which was refused at once
        elif (hearers := self._hearers(message)) is None:
            self.pipe.note("to nobody in particular", raw)
        else:
            for session in list(hearers):
                session.deliver(raw)

    def _progress(self, raw: bytes, message: Message) -> None:
        name = renaming.number(messages.members(message.params).get(renaming.TOKEN, b""))
        if name in self.tokens:
            session, token = self.tokens[name]
            session.deliver(renaming.progress_named(raw, message.params, token))

    def _hearers(self, message: Message) -> "Iterable[SharedSession] | None":
        """Who gets a notification; None: it cannot be told whom it is for."""
        match message.method:
            case method if method in LIST_CHANGES.values():
                return self._sessions
            case "notifications/resources/updated":
                return self.subscribers(renaming.text(message.params, "uri"))
            case "notifications/tasks/status":
                task = renaming.text(message.params, "taskId")
                return [session for session in self._sessions if task in session.tasks]
        if self.owners.users > 1:
            return None
        if message.method == "notifications/message":
            level = _rank(renaming.text(message.params, "level"))
            return [session for session in self._sessions if session.hears(level)]
        return self._sessions


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def _without_task_list(capabilities: bytes) -> bytes:
    """Capabilities without `tasks.list`: it would show each session the tasks of all."""
    members = messages.members(capabilities)
    if "tasks" not in members:
        return capabilities
    tasks = messages.members(bytes(members["tasks"]))
    tasks.pop("list", None)
    return messages.with_member(capabilities, "tasks", messages.joined(tasks))

"""One session among those that share a legacy process."""

import asyncio

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.links import renaming
from services.gateway.links.port import Check, Emit, OnClosed
from services.gateway.links.sharing import Call, Sharing
from services.gateway.messages import Message, NotAMessage
from services.gateway.protocol import CANCELLED, INVALID_PARAMS, LEVELS, METHOD_NOT_FOUND

INFO = LEVELS.index("info")
MOST_KEPT = 1024  # subscriptions, or tasks, of one session
# What concerns capabilities that we have not, or requests that nobody was asked.
TO_NOBODY = {
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
}


class SharedSession:
    """A `Session` (port.py) of `user` among those that share a process."""

    def __init__(self, sharing: Sharing, user: str, on_message: Emit, on_closed: OnClosed) -> None:
        self.user = user
        self.subscriptions: set[str] = set()  # URIs
        self.tasks: dict[str, int] = {}  # task id -> name of the request that created it, oldest first
        self.level: int | None = None  # of log messages that it asked for, an index of `LEVELS`
        self._sharing = sharing
        self._on_message, self._on_closed = on_message, on_closed
        self._open = False

    async def start(self) -> None:
        self._sharing.join(self)
        self._open = True

    async def send(self, message: bytes, check: Check) -> None:
        if not self._open:
            raise UpstreamFailed("upstream_broke_off", "the session has ended")
        read = messages.read(message)
        try:
            if read.kind == "request":
                await self._request(message, read, check)
            elif read.kind == "notification":
                await self._notify(message, read, check)
        except NotAMessage:  # its params are no object
            self._answer(messages.error(read.id, INVALID_PARAMS, "params must be an object"), check)

    async def close(self) -> None:
        if self._open:
            self._open = False
            self._sharing.leave(self)

    def deliver(self, raw: bytes) -> None:
        """A message for this session."""
        if self._open:
            self._on_message(raw)

    def end(self, failure: UpstreamFailed) -> None:
        """The process has ended."""
        if self._open:
            self._open = False
            self._on_closed(failure)

    def hears(self, level: int) -> bool:
        """Whether it wants log messages of `level`. Who never said so is spared what others made verbose."""
        return level >= (INFO if self.level is None else self.level)

    def keep_task(self, task: str, name: int) -> int | None:
        """Remember a task of this session. Returns the name of one that is forgotten for it."""
        self.tasks[task] = name
        return self.tasks.pop(next(iter(self.tasks))) if len(self.tasks) > MOST_KEPT else None

    async def _request(self, raw: bytes, read: Message, check: Check) -> None:
        if answer := self._answered_here(read):
            self._answer(answer, check)
            return
        uri = renaming.text(read.params, "uri") if read.method == "resources/subscribe" else ""
        if uri:
            self.subscriptions.add(uri)  # what changes before the answer has come is heard
        if read.method == "logging/setLevel":
            raw = self._with_level(raw, read.params)
        try:
            call = Call(self, read.id, uri)
            await self._sharing.forward(call, raw, messages.read(raw).params, check)
        except BaseException:
            self.subscriptions.discard(uri)
            raise

    def _answered_here(self, read: Message) -> bytes:
        """The answer to what the process need not, or must not, be asked; empty for all else."""
        match read.method:
            case "initialize":
                return messages.result(read.id, self._sharing.initialized_for(read.params))
            case "tasks/list":
                detail = "tasks/list: it would list the tasks of all sessions that share this connection"
                return messages.error(read.id, METHOD_NOT_FOUND, detail)
            case _ if not self._sharing.owners.may_name(read, self.user):
                return messages.error(read.id, INVALID_PARAMS, "there is no such task")
            case "resources/subscribe" if len(self.subscriptions) >= MOST_KEPT:
                return messages.error(read.id, INVALID_PARAMS, f"more than {MOST_KEPT} subscriptions")
            case "resources/unsubscribe":
                uri = renaming.text(read.params, "uri")
                self.subscriptions.discard(uri)
                return messages.result(read.id, {}) if self._sharing.is_subscribed(uri) else b""
        return b""

    async def _notify(self, raw: bytes, read: Message, check: Check) -> None:
        if read.method in TO_NOBODY:
            return
        if read.method != CANCELLED:
            await self._sharing.pipe.send(raw, check)
            return
        params = messages.members(read.params)
        id = bytes(params.get("requestId", b""))
        for name, call in list(self._sharing.calls.items()):
            if call.session is self and renaming.same(call.id, id):
                self._sharing.cancel(name, params)

    def _with_level(self, raw: bytes, params: bytes) -> bytes:
        """A logging/setLevel with the level that serves all sessions; one that is none passes as it is."""
        level = renaming.text(params, "level")
        if level not in LEVELS:
            return raw
        self.level = LEVELS.index(level)
        wanted = msgspec.json.encode(self._sharing.most_verbose())
        return messages.with_member(raw, "params", messages.with_member(params, "level", wanted))

    def _answer(self, answer: bytes, check: Check) -> None:
        """Answer in the place of the process, after `send` has returned."""
        check()
        asyncio.get_running_loop().call_soon(self.deliver, answer)

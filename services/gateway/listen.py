"""What the gateway itself says on an open stream: that a list has changed for the caller, and that it lives.

A change of policy changes what the caller sees in lists, and the upstream knows nothing of it. Only streams
of `subscriptions/listen` are told (MCP 2026-07-28, basic/patterns/subscriptions): after the acknowledgement,
and what was both asked for and acknowledged. On the streams of earlier revisions a server may only send what
it declared at `initialize`, which a lane without sessions has not seen: their clients learn it from errors.
"""

import asyncio
from typing import Any

import msgspec

from libs.common.control.entries import Server
from libs.common.decision.ladder import Decision
from services.gateway import messages
from services.gateway.protocol import ACKNOWLEDGED, LIST_CHANGES, META_SUBSCRIPTION


class _Params(msgspec.Struct):
    notifications: Any = None
    meta: Any = msgspec.field(name="_meta", default=None)


_params = msgspec.json.Decoder(_Params).decode


class Listen:
    """One open stream of a caller. Without `params` it is one on which nothing was asked of us.

    `id` and `params` are those of the request, raw JSON; `decision` admitted it. `wake` is set when there is
    something to say. Knows messages only: how they are written is the lane's.
    """

    def __init__(self, decision: Decision, id: bytes = b"null", params: bytes = b"") -> None:
        self.wake = asyncio.Event()
        self._id, self._key = id, _value(id)
        self._asked = _switched_on(_read(params)) if params else set()
        self._honored: set[str] = set()
        self._open = False  # acknowledged, and not ended
        self._owed: set[str] = set()
        self._decision, self._view = decision, _view(decision)

    def noticed(self, decision: Decision) -> None:
        """The control log has changed; `decision` is how the stream would be decided on now."""
        if _rests_on(decision) == _rests_on(self._decision):
            return
        before, self._decision, self._view = self._view, decision, _view(decision)
        self._owed |= {key for key in self._asked if before[key] != self._view[key]}
        self._call()

    def saw(self, message: bytes) -> None:
        """The upstream's `message` goes to the caller now."""
        if not self._asked:
            return
        try:
            read = messages.read(message)
        except messages.NotAMessage:
            return
        if read.method == ACKNOWLEDGED and not self._honored:
            params = _read(read.params)
            if isinstance(params.meta, dict) and params.meta.get(META_SUBSCRIPTION) == self._key:
                self._open, self._honored = True, self._asked & _switched_on(params)
                self._call()
        elif read.kind == "response" and _value(read.id) == self._key:
            self._open = False

    def due(self) -> list[bytes]:
        """The messages to send now, each once."""
        self.wake.clear()
        if not self._open:
            return []
        due, self._owed = self._owed & self._honored, set()
        params = {"_meta": {META_SUBSCRIPTION: msgspec.Raw(self._id)}}
        return [messages.notification(LIST_CHANGES[key], params) for key in LIST_CHANGES if key in due]

    def _call(self) -> None:
        if self._open and self._owed & self._honored:
            self.wake.set()


def _rests_on(decision: Decision) -> tuple[object, ...]:
    """What `_view` looks at, as the very same objects: most changes of the log are none of this stream."""
    return id(decision.server), id(decision.group), decision.credential


def _view(decision: Decision) -> dict[str, object]:
    """What the caller's lists depend on, for each kind of list."""
    server, group = decision.server, decision.group
    access = group.servers.get(server.slug) if server and group else None
    if server is None or access is None:
        return dict.fromkeys(LIST_CHANGES)
    common = (server.url, server.command, decision.credential, access.default)
    return {
        "toolsListChanged": (common, access.tools, _tools(server)),
        "promptsListChanged": (common, access.prompts),
        "resourcesListChanged": (common, access.resources),
    }


def _tools(server: Server) -> tuple[object, ...]:
    """Not the digests: a definition that is approved in silence, as it was seen first, changes no list."""
    held = () if server.pinning == "off" else (server.quarantined.keys(), server.new_tools)
    return frozenset(server.tools), server.tools_off.keys(), held


def _read(params: bytes) -> _Params:
    try:
        return _params(params)
    except messages.UNREADABLE:
        return _Params()


def _switched_on(params: _Params) -> set[str]:
    wanted = params.notifications
    return {key for key in LIST_CHANGES if wanted.get(key) is True} if isinstance(wanted, dict) else set()


def _value(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except messages.UNREADABLE:
        return None

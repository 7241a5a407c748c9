"""`subscriptions/listen` at `/mcp`: one stream out of one for each server."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec

from services.gateway.aggregate.changes import Changes
from services.gateway.aggregate.names import resource_of
from services.gateway.aggregate.rewriting import items, public_notification, text, with_params
from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import Emit, Endpoint, always
from services.gateway.messages import Members, NotAMessage, code_of, joined, members, notification, read
from services.gateway.protocol import ACKNOWLEDGED, LIST_CHANGES, META_SUBSCRIPTION
from services.gateway.refusals import UNAVAILABLE, UPSTREAM_FAILED

RESOURCES = "resourceSubscriptions"
_FOR_NOW = {UPSTREAM_FAILED, UNAVAILABLE}  # errors that pass
RETRY_FIRST, RETRY_MOST = 1.0, 60.0  # seconds until a server whose stream ended is asked again


class Listening:
    """One listen request. The streams of the servers carry its id, so their messages need no other."""

    def __init__(
        self,
        servers: Callable[[], list[str]],
        endpoint: Callable[[str], Endpoint],
        changes: Changes,
        message: bytes,
        emit: Emit,
    ) -> None:
        self._servers, self._endpoint, self._changes = servers, endpoint, changes
        self._following: dict[str, asyncio.Task[None]] = {}
        self._message, self._asked, self._emit = message, read(message), emit
        self._params = members(self._asked.params)
        self._filter = members(bytes(self._params.get("notifications", b"{}")))

    async def run(self) -> bytes:
        """Pass on what the servers tell until the caller goes away, which cancels this. A server that is down
        is asked again; one that the caller may use from now on, or no longer, changes every list."""
        self._emit(self._acknowledgement())
        self._begin(self._servers())
        try:
            while True:
                await self._changes.next()
                if set(servers := self._servers()) != self._known:
                    self._begin(servers)
                    self._tell_of_change()
        finally:
            for task in self._following.values():
                task.cancel()

    def _begin(self, servers: list[str]) -> None:
        """Follow these servers and no others."""
        self._known = set(servers)
        for gone in self._following.keys() - self._known:
            self._following.pop(gone).cancel()
        for server in servers:
            if server not in self._following and (wanted := self._of(server)):
                self._following[server] = asyncio.create_task(self._follow(server, wanted))

    def _tell_of_change(self) -> None:
        for asked, method in LIST_CHANGES.items():
            if self._wants(asked):
                self._emit(notification(method, {"_meta": self._meta}))

    def _wants(self, change: str) -> bool:
        return bytes(self._filter.get(change, b"")) == b"true"

    @property
    def _meta(self) -> dict[str, msgspec.Raw]:
        return {META_SUBSCRIPTION: msgspec.Raw(self._asked.id)}

    def _acknowledgement(self) -> bytes:
        honored = {key: value for key, value in self._filter.items() if key in {*LIST_CHANGES, RESOURCES}}
        return notification(ACKNOWLEDGED, {"notifications": honored, "_meta": self._meta})

    def _of(self, server: str) -> Members:
        """The part of the filter that concerns `server`; empty for none."""
        wanted = {change: self._filter[change] for change in LIST_CHANGES if self._wants(change)}
        asked = items(bytes(self._filter.get(RESOURCES, b"[]")))
        places = [place for uri in asked if (place := resource_of(text(uri)))]
        if uris := [place.name for place in places if place.server == server]:
            wanted[RESOURCES] = msgspec.Raw(msgspec.json.encode(uris))
        return wanted

    async def _follow(self, server: str, wanted: Members) -> None:
        def pass_on(message: bytes) -> None:
            with suppress(NotAMessage):  # what cannot be read means nothing to anybody
                if read(message).method != ACKNOWLEDGED:
                    self._emit(public_notification(message, server))

        message = with_params(self._message, self._params | {"notifications": msgspec.Raw(joined(wanted))})
        pause = RETRY_FIRST
        while True:
            try:
                answer = read(await self._endpoint(server).request(message, pass_on, always))
                if not answer.error:
                    pause = RETRY_FIRST
                elif code_of(answer.error) not in _FOR_NOW:
                    return  # it cannot, or the caller may not
            except UpstreamFailed:
                pass
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_MOST)

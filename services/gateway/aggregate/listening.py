"""`subscriptions/listen` at `/mcp`: one stream out of one for each server."""

import asyncio
from collections.abc import Callable

import msgspec

from services.gateway.aggregate.names import resource_of
from services.gateway.aggregate.rewriting import items, public_notification, text, with_params
from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import Emit, Endpoint, always
from services.gateway.messages import Members, Message, joined, members, notification, read

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
RESOURCES = "resourceSubscriptions"
CHANGES = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")
RETRY_FIRST, RETRY_MOST = 1.0, 60.0  # seconds until a server whose stream ended is asked again


class Listening:
    """One listen request. The streams of the servers carry its id, so their messages need no other."""

    def __init__(
        self,
        servers: list[str],
        endpoint: Callable[[str], Endpoint],
        message: bytes,
        asked: Message,
        emit: Emit,
    ) -> None:
        self._servers, self._endpoint = servers, endpoint
        self._message, self._asked, self._emit = message, asked, emit
        self._params = members(asked.params)
        self._filter = members(bytes(self._params.get("notifications", b"{}")))

    async def run(self) -> bytes:
        """Pass on what the servers tell until the caller goes away. A server that is down is asked again."""
        self._emit(self._acknowledgement())
        async with asyncio.TaskGroup() as group:
            for server in self._servers:
                if wanted := self._of(server):
                    group.create_task(self._follow(server, wanted))
            await asyncio.Event().wait()  # until cancelled: that is how a caller ends it
        raise AssertionError("unreachable")

    def _acknowledgement(self) -> bytes:
        honored = {key: value for key, value in self._filter.items() if key in {*CHANGES, RESOURCES}}
        meta = {SUBSCRIPTION_ID: msgspec.Raw(self._asked.id)}
        return notification(ACKNOWLEDGED, {"notifications": honored, "_meta": meta})

    def _of(self, server: str) -> Members:
        """The part of the filter that concerns `server`; empty for none."""
        wanted = {key: self._filter[key] for key in CHANGES if bytes(self._filter.get(key, b"")) == b"true"}
        asked = items(bytes(self._filter.get(RESOURCES, b"[]")))
        places = [place for uri in asked if (place := resource_of(text(uri)))]
        if uris := [place.name for place in places if place.server == server]:
            wanted[RESOURCES] = msgspec.Raw(msgspec.json.encode(uris))
        return wanted

    async def _follow(self, server: str, wanted: Members) -> None:
        def pass_on(message: bytes) -> None:
            if read(message).method != ACKNOWLEDGED:
                self._emit(public_notification(message, server))

        message = with_params(self._message, self._params | {"notifications": msgspec.Raw(joined(wanted))})
        pause = RETRY_FIRST
        while True:
            try:
                answer = read(await self._endpoint(server).request(message, pass_on, always))
                if answer.error:
                    return  # it cannot, or the caller may not
                pause = RETRY_FIRST
            except UpstreamFailed:
                pass
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_MOST)

"""The endpoint behind `/mcp`: each request goes on to the server that it is about, lists go to all."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from libs.common.decision.subjects import LONGEST
from services.gateway.aggregate.changes import Changes
from services.gateway.aggregate.listening import Listening
from services.gateway.aggregate.merging import Part, merged, page_of
from services.gateway.aggregate.names import (
    Place,
    candidates,
    is_hashed,
    place_of,
    public_name,
    resource_of,
)
from services.gateway.aggregate.rewriting import (
    public_notification,
    public_result,
    set_string,
    text,
    with_params,
)
from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import Check, Emit, Endpoint, always
from services.gateway.messages import (
    Members,
    Message,
    NotAMessage,
    code_of,
    error,
    joined,
    members,
    read,
    result,
)
from services.gateway.protocol import (
    INVALID_PARAMS,
    LISTS,
    LOCKGATE,
    META_SERVER,
    METHOD_NOT_FOUND,
    MODERN,
    Listed,
)
from services.gateway.refusals import UPSTREAM_FAILED

PAGES, BYTES = 100, 16 * 1024 * 1024  # of one server's list
AT_ONCE = 32  # servers asked at the same time
NAMES_KEPT = 100_000

INSTRUCTIONS = (
    "Tools and prompts of several servers, named <server>__<name>; resources are mcp.<server>+<uri>. "
    "What a server cannot offer now is named in _meta of the lists."
)


class Names:
    """Public names that have to be looked up, as lists showed them. Shared by all callers: a name stands for
    the same place for everybody, and who may use it is decided at the call."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, Place] = OrderedDict()

    def learn(self, server: str, names: Iterable[str]) -> None:
        for name in names:
            public = public_name(server, name)
            if is_hashed(public) and len(name) <= LONGEST["tool"]:  # nobody may call longer ones
                self._places[public] = Place(server, name)
                self._places.move_to_end(public)
        while len(self._places) > NAMES_KEPT:
            self._places.popitem(last=False)

    def find(self, public: str) -> Place | None:
        return self._places.get(public)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an aggregate works with, for one caller.

    `servers` names those that the caller may use now; `endpoint` gives the governed endpoint of one of them;
    `known` the tools of one that the control log names. `deadline` in seconds, for a server's part of a list.
    """

    servers: Callable[[], list[str]]
    endpoint: Callable[[str], Endpoint]
    known: Callable[[str], Iterable[str]]
    names: Names
    changes: Changes
    deadline: float


class Aggregate(Endpoint):
    """One caller's view of everything (an `Endpoint` of the modern era)."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._methods: Mapping[str, Callable[[bytes, Message, Emit], Any]] = {
            "server/discover": self._discover,
            "tools/call": self._named("tools/list"),
            "prompts/get": self._named("prompts/list"),
            "resources/read": self._read,
            "completion/complete": self._complete,
            "subscriptions/listen": self._listen,
            **dict.fromkeys(LISTS, self._list),
        }

    async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
        check()
        asked = read(message)
        method = self._methods.get(asked.method)
        if method is None:
            detail = f"{asked.method} cannot be asked of all servers at once; use the URL of one server"
            return error(asked.id, METHOD_NOT_FOUND, detail)
        try:
            answer: bytes = await method(message, asked, emit)
        except NotAMessage as problem:
            return error(asked.id, INVALID_PARAMS, f"the params cannot be read: {problem}")
        return answer

    async def notify(self, message: bytes, check: Check) -> None:
        """Notifications of a client concern requests, and those end with their stream: nothing to pass on."""

    async def close(self) -> None:
        """The endpoints of the servers belong to whoever made them."""

    # -- everything at once -----------------------------------------------------------------------

    async def _discover(self, _: bytes, asked: Message, __: Emit) -> bytes:
        capabilities = {
            "tools": {"listChanged": True},
            "prompts": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "completions": {},
        }
        discovered = {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": capabilities,
            "instructions": INSTRUCTIONS,
            "ttlMs": 60_000,
            "cacheScope": "private",
            "_meta": {META_SERVER: LOCKGATE},
        }
        return result(asked.id, discovered)

    async def _list(self, message: bytes, asked: Message, _: Emit) -> bytes:
        if "cursor" in members(asked.params):
            return error(asked.id, INVALID_PARAMS, "there is one page only, so no cursor is valid")
        listing, limit = LISTS[asked.method], asyncio.Semaphore(AT_ONCE)

        async def part(server: str) -> Part:
            async with limit:
                return await self._part(server, message, listing)

        parts = await asyncio.gather(*map(part, self._around.servers()))
        return result(asked.id, merged(listing, list(parts)))

    async def _part(self, server: str, message: bytes, listing: Listed) -> Part:
        """One server's list, whole, or why it cannot be had within the deadline."""
        try:
            async with asyncio.timeout(self._around.deadline):
                return await self._pages(server, message, listing)
        except TimeoutError:
            return Part(server, problem=f"it did not answer within {self._around.deadline:g} s")
        except UpstreamFailed as failure:
            return Part(server, problem=failure.detail)
        except NotAMessage:
            return Part(server, problem="its list cannot be read")

    async def _pages(self, server: str, message: bytes, listing: Listed) -> Part:
        endpoint, part = self._around.endpoint(server), Part(server)
        params, size = members(read(message).params), 0
        for _ in range(PAGES):
            answer = read(await endpoint.request(with_params(message, params), _ignore, always))
            if answer.error:
                return Part(server, problem=_problem(answer.error))
            found, cursor = page_of(answer.result, listing)
            size += len(answer.result)
            if size > BYTES:
                return Part(server, problem=f"its list is longer than {BYTES} bytes")
            part.items += found
            if not cursor:
                break
            params = params | {"cursor": msgspec.Raw(cursor)}
        if listing.named_by == "name":
            self._around.names.learn(server, [text(members(item).get("name", b"")) for item in part.items])
        return part

    async def _listen(self, message: bytes, _: Message, emit: Emit) -> bytes:
        around = self._around
        return await Listening(around.servers, around.endpoint, around.changes, message, emit).run()

    # -- one server -------------------------------------------------------------------------------

    def _named(self, list_method: str) -> Callable[[bytes, Message, Emit], Any]:
        async def run(message: bytes, asked: Message, emit: Emit) -> bytes:
            params = members(asked.params)
            name = text(bytes(params.get("name", b"")))
            place = await self._find(name, message, list_method)
            if place is None:
                return error(asked.id, INVALID_PARAMS, f"Unknown name: {name}")
            return await self._forward(place, message, set_string(params, "name", place.name), emit)

        return run

    async def _read(self, message: bytes, asked: Message, emit: Emit) -> bytes:
        params = members(asked.params)
        uri = text(bytes(params.get("uri", b"")))
        place = resource_of(uri)
        if place is None:
            return error(asked.id, INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri})
        return await self._forward(place, message, set_string(params, "uri", place.name), emit)

    async def _complete(self, message: bytes, asked: Message, emit: Emit) -> bytes:
        params = members(asked.params)
        ref = members(bytes(params.get("ref", b"")))
        member = "name" if "name" in ref else "uri"
        public = text(bytes(ref.get(member, b"")))
        found = self._find(public, message, "prompts/list") if member == "name" else None
        place = await found if found else resource_of(public)
        if place is None:
            return error(asked.id, INVALID_PARAMS, f"Unknown reference: {public}")
        own = msgspec.Raw(joined(set_string(ref, member, place.name)))
        return await self._forward(place, message, params | {"ref": own}, emit)

    async def _forward(self, place: Place, message: bytes, params: Members, emit: Emit) -> bytes:
        def public(notification: bytes) -> None:
            with suppress(NotAMessage):  # what cannot be read means nothing to anybody
                emit(public_notification(notification, place.server))

        try:
            endpoint = self._around.endpoint(place.server)
            answer = await endpoint.request(with_params(message, params), public, always)
        except UpstreamFailed as failure:
            detail = f"Lockgate: {place.server}: {failure.detail}"
            return error(read(message).id, UPSTREAM_FAILED, detail, {"reason": failure.reason})
        return public_result(answer, place.server)

    async def _find(self, public: str, message: bytes, list_method: str) -> Place | None:
        """What `public` stands for. A hashed name that nobody has listed yet is looked for."""
        if not is_hashed(public):
            return place_of(public)
        around = self._around
        servers = candidates(public, around.servers())
        for server in servers:
            around.names.learn(server, around.known(server))
        if found := around.names.find(public):
            return found
        wanted = with_params(message, _only_meta(members(read(message).params)))
        wanted = joined(members(wanted) | {"method": msgspec.Raw(msgspec.json.encode(list_method))})
        for server in servers:
            await self._part(server, wanted, LISTS[list_method])
        return around.names.find(public)


def _only_meta(params: Members) -> Members:
    """The part of a request's params that belongs to any request of that client."""
    meta = members(bytes(params.get("_meta", b"{}")))
    meta.pop("progressToken", None)
    return {"_meta": msgspec.Raw(joined(meta))}


def _problem(failure: bytes) -> str:
    """Why a list was refused. A server that does not know the method has nothing of that kind."""
    if code_of(failure) == METHOD_NOT_FOUND:
        return ""
    return text(bytes(members(failure).get("message", b'"it answered with an error"')))[:500]


def _ignore(_: bytes) -> None:
    """Notifications on the way to a list are nobody's."""

"""What servers offer, asked on behalf of administrators: requests of Lockgate's own, nobody's calls."""

import asyncio
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from libs.common.bus import Bus
from libs.common.control.entries import ORGANIZATION, Server
from libs.common.control.follower import Follower
from libs.common.decision.pins import is_nameable
from libs.common.definitions import Definition, TooLong, pack
from libs.common.errors import LockgateError, NotFound, Unavailable
from libs.common.requests import LEARN, Learned, LearnServer, Offered
from services.gateway import messages
from services.gateway.bridge.upstreams import Upstreams
from services.gateway.connection import UpstreamFailed
from services.gateway.credentials import NONE, Opened, Wallet
from services.gateway.decoding import Ambiguous
from services.gateway.links.port import Endpoint, always
from services.gateway.messages import NotAMessage
from services.gateway.pins.shown import shown_in
from services.gateway.protocol import LISTS, METHOD_NOT_FOUND, OWN_META

AT_ONCE = 4  # servers at this replica
PAGES = 100  # of one list
MOST = 10_000  # entries of one list
MOST_DEFINED = 2000  # tools of which the definitions are told; policy takes no more of them
DESCRIPTION = 200  # characters
ANSWER = 900_000  # bytes; a message on the bus has at most 1 MiB
DEFINITIONS = 300_000  # bytes of it that descriptions must leave for the definitions of tools
POLL = 0.02  # seconds


class CannotLearn(LockgateError):
    """The server cannot be asked, or does not answer as it should."""

    status, type, title = 502, "cannot-learn", "The server does not say what it offers"


class Learning:
    """Answers `gateway.learn`; the replicas share the work."""

    def __init__(self, bus: Bus, follower: Follower, wallet: Wallet, upstreams: Upstreams) -> None:
        self._bus, self._follower, self._wallet, self._upstreams = bus, follower, wallet, upstreams

    async def start(self) -> None:
        for _ in range(AT_ONCE):  # one subscription answers one request after the other
            await self._bus.serve(LEARN, LearnServer, self._learn)

    async def _learn(self, query: LearnServer) -> Learned:
        try:
            async with asyncio.timeout(query.within):
                return await self._ask(query)
        except TimeoutError as error:
            raise CannotLearn(f"It did not answer within {query.within:g} seconds.") from error
        except UpstreamFailed as error:
            raise CannotLearn(_sentence(error)) from error
        except NotAMessage as error:
            raise CannotLearn("It answered with what is no list.") from error

    async def _ask(self, query: LearnServer) -> Learned:
        server = await self._known(query)
        key, credential = await self._credential(server)
        async with self._upstreams.own_endpoint(server, key, credential) as endpoint:
            offered = await _capabilities(endpoint)
            lists = {method: await _list(endpoint, method, offered) for method in LISTS}
        return await asyncio.to_thread(_learned, lists)

    async def _known(self, query: LearnServer) -> Server:
        """The server's entry, as new as was asked for."""
        servers = self._follower.tables.servers
        while (server := servers.get(query.slug)) is None or server.version < query.version:
            if query.version == 0:
                raise NotFound(f"There is no server {query.slug}.")
            await asyncio.sleep(POLL)
        return server

    async def _credential(self, server: Server) -> tuple[str, Opened]:
        """The organization's, with its key; none where the server wants none."""
        if server.auth == "none":
            return "", NONE
        key = f"{server.slug}.{ORGANIZATION}"
        stored = self._follower.tables.credentials.get(key)
        if stored is None or not stored.is_for(server):
            raise CannotLearn("The organization has no credential for it.")
        try:
            return key, self._wallet.held(key) or await self._wallet.open(key)
        except Unavailable as error:
            raise CannotLearn("Its credential cannot be had now.") from error


async def _capabilities(endpoint: Endpoint) -> set[str]:
    answer = await _request(endpoint, "server/discover", {})
    if answer.error:
        raise UpstreamFailed("upstream_bad_answer", _complaint("server/discover", answer.error))
    return set(messages.members(bytes(messages.members(answer.result).get("capabilities", b""))))


class _Lists(NamedTuple):
    """What a server lists of one kind, and its pages as they came, each a JSON array."""

    offered: list[Offered]
    pages: list[bytes]


async def _list(endpoint: Endpoint, method: str, capabilities: set[str]) -> _Lists:
    """All pages of a list; nothing of what the server does not have. Raises `UpstreamFailed`."""
    listed = LISTS[method]
    found = _Lists([], [])
    if method.partition("/")[0] not in capabilities:
        return found
    params: dict[str, Any] = {}
    for _ in range(PAGES):
        answer = await _request(endpoint, method, params)
        if answer.error:
            if messages.code_of(answer.error) == METHOD_NOT_FOUND:
                return found
            raise UpstreamFailed("upstream_bad_answer", _complaint(method, answer.error))
        result = messages.members(answer.result)
        page = bytes(result.get(listed.member, b"[]"))
        found.offered.extend(_offered(page, listed.named_by))
        found.pages.append(page)
        if len(found.offered) > MOST or sum(len(each.name) for each in found.offered) > ANSWER:
            break
        cursor = result.get("nextCursor")
        if cursor is None or bytes(cursor) == b"null":
            return found
        params = {"cursor": cursor}
    raise UpstreamFailed("upstream_bad_answer", f"its answer to {method} does not come to an end")


async def _request(endpoint: Endpoint, method: str, params: dict[str, Any]) -> messages.Message:
    request = messages.request(b"1", method, params | {"_meta": OWN_META})
    return messages.read(await endpoint.request(request, lambda _: None, always))


def _offered(raw: bytes, named_by: str) -> list[Offered]:
    try:
        entries = msgspec.json.decode(raw, type=list[dict[str, Any]])
    except messages.UNREADABLE as error:
        raise NotAMessage(str(error)) from error
    named = [entry for entry in entries if isinstance(entry.get(named_by), str)]
    return [Offered(name=entry[named_by], description=_first_line(entry)) for entry in named]


def _first_line(entry: dict[str, Any]) -> str:
    description = entry.get("description")
    lines = description.strip().splitlines() if isinstance(description, str) else []
    return lines[0][:DESCRIPTION] if lines else ""


def _sentence(error: UpstreamFailed) -> str:
    if error.reason == "upstream_unauthorized":  # it may have got none
        return "It answered with HTTP status 401: it wants a credential, or refuses the one it got."
    return f"{error.detail[:1].upper()}{error.detail[1:]}."


def _complaint(method: str, error: bytes) -> str:
    # Not what it says: that may repeat the credential.
    return f"it answered {method} with the error {messages.code_of(error)}"


def _learned(lists: Mapping[str, _Lists]) -> Learned:
    """The answer, as much of it as fits on the bus: the definitions of tools, then the descriptions, lose
    their texts first. Raises `CannotLearn`. Takes its time for long lists."""
    learned = Learned(
        tools=lists["tools/list"].offered,
        prompts=lists["prompts/list"].offered,
        resources=lists["resources/list"].offered,
        templates=lists["resources/templates/list"].offered,
    )
    definitions = _definitions(lists["tools/list"].pages)
    fitting = _fitting(learned, DEFINITIONS if definitions else 0)
    if not definitions:
        return fitting
    room = (ANSWER - len(msgspec.json.encode(fitting))) // 4 * 3  # Base64
    try:
        return msgspec.structs.replace(fitting, definitions=pack(definitions, room))
    except TooLong as error:
        raise CannotLearn("Its lists are too long.") from error


def _definitions(pages: list[bytes]) -> list[Definition]:
    """Those of the tools in the list of these `pages`. Raises `CannotLearn`."""
    found: dict[tuple[str, str], Definition] = {}
    try:
        for tool in chain.from_iterable(map(shown_in, pages)):
            if is_nameable(tool.name):
                one = Definition(name=tool.name, digest=tool.digest, text=tool.text)
                found.setdefault((tool.name, tool.digest), one)
    except Ambiguous as error:
        raise CannotLearn(f"Its list of tools can be read in two ways: {error}.") from error
    except messages.UNREADABLE as error:
        raise CannotLearn("Its list of tools cannot be read.") from error
    return list(found.values())[:MOST_DEFINED]


def _fitting(learned: Learned, reserve: int) -> Learned:
    """`learned`, without descriptions if it would be too long for the bus with `reserve` bytes more."""
    if len(msgspec.json.encode(learned)) + reserve <= ANSWER:
        return learned
    bare = Learned(
        tools=_bare(learned.tools),
        prompts=_bare(learned.prompts),
        resources=_bare(learned.resources),
        templates=_bare(learned.templates),
    )
    if len(msgspec.json.encode(bare)) > ANSWER:
        raise CannotLearn("Its lists are too long.")
    return bare


def _bare(offered: list[Offered]) -> list[Offered]:
    return [Offered(name=item.name) for item in offered]

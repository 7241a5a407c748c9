"""Finds out which era a new process speaks (MCP 2026-07-28, basic/transports/stdio, Backward Compatibility).

It is asked in one era, and in the other when it refuses or keeps silent for `PATIENCE`: programs such as npx
may still be fetching what they run, and answer both in the end. The first that succeeds decides.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import Era, always
from services.gateway.links.stdio import Pipe
from services.gateway.messages import Message
from services.gateway.protocol import LEGACY, LOCKGATE, METHOD_NOT_FOUND, MODERN, OWN_META

PATIENCE = 3.0  # seconds

# Ids of our questions; whoever takes the pipe over begins with a later one.
_IDS: dict[Era, bytes] = {"modern": b"1", "legacy": b"2"}
FIRST_ID = 3


class Greeted(NamedTuple):
    """The era that a process speaks, and its DiscoverResult or InitializeResult (raw JSON)."""

    era: Era
    result: bytes


class Handshake:
    """The beginning of a conversation over `pipe`, on behalf of nobody: without capabilities of a client, as
    a request of the server could not be passed on to anybody."""

    def __init__(self, pipe: Pipe, order: Sequence[Era]) -> None:
        """`order`: the eras to ask for, at most one after the other."""
        self._pipe, self._order = pipe, order
        self._found: asyncio.Future[Greeted] = asyncio.get_running_loop().create_future()
        self._refused: set[Era] = set()
        self._heard = asyncio.Event()  # an answer of any kind
        pipe.on_message, pipe.on_closed = self._take, self._end

    async def run(self, within: float) -> Greeted:
        """Ask. Raises `UpstreamFailed`."""
        try:
            async with asyncio.timeout(within):
                await self._ask()
                greeted = await self._found
                if greeted.era == "legacy":
                    await self._pipe.send(messages.notification("notifications/initialized"), always)
                return greeted
        except TimeoutError as error:
            detail = f"its process did not say within {within:g} s which protocol it speaks"
            raise UpstreamFailed("upstream_timeout", detail) from error
        finally:
            if self._found.done() and not self._found.cancelled():
                self._found.exception()  # it has been seen, or nobody waits any more

    async def _ask(self) -> None:
        for era in self._order:
            await self._pipe.send(_question(era), always)
            if era == self._order[-1]:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._heard.wait()
            if self._found.done():
                return

    def _take(self, raw: bytes, message: Message) -> None:
        if message.kind == "request":
            self._pipe.offer(answer_for_nobody(message))
        elif message.kind == "notification":
            self._pipe.note("during the handshake", raw)
        else:
            self._take_answer(message)

    def _take_answer(self, message: Message) -> None:
        self._heard.set()
        for era, id in _IDS.items():
            if message.id != id:
                continue
            if _accepted(era, message.result):
                self._succeed(Greeted(era, message.result))
            else:
                self._refuse(era)

    def _succeed(self, greeted: Greeted) -> None:
        if not self._found.done():
            self._found.set_result(greeted)

    def _refuse(self, era: Era) -> None:
        self._refused.add(era)
        if self._refused >= set(self._order):
            self._end(
                UpstreamFailed("upstream_bad_answer", "it speaks no revision of MCP that is known here")
            )

    def _end(self, failure: UpstreamFailed) -> None:
        self._heard.set()
        if not self._found.done():
            self._found.set_exception(failure)


def answer_for_nobody(request: Message) -> bytes:
    """The answer to a request of a server, where there is nobody to pass it to."""
    if request.method == "ping":
        return messages.result(request.id, {})
    detail = f"{request.method}: several sessions share this connection, so that there is nobody to ask"
    return messages.error(request.id, METHOD_NOT_FOUND, detail)


def _question(era: Era) -> bytes:
    if era == "legacy":
        params = {"protocolVersion": LEGACY[-1], "capabilities": {}, "clientInfo": LOCKGATE}
        return messages.request(_IDS[era], "initialize", params)
    return messages.request(_IDS[era], "server/discover", {"_meta": OWN_META})


class _Discovered(msgspec.Struct):
    supported: list[str] = msgspec.field(name="supportedVersions")


class _Initialized(msgspec.Struct):
    version: str = msgspec.field(name="protocolVersion")


def _accepted(era: Era, result: bytes) -> bool:
    """Whether a result says that the process speaks a revision of `era` that is known here."""
    try:
        if era == "legacy":
            return msgspec.json.decode(result, type=_Initialized).version != MODERN
        return MODERN in msgspec.json.decode(result, type=_Discovered).supported
    except messages.UNREADABLE:
        return False

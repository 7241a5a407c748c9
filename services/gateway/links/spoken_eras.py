"""Which eras an upstream of Streamable HTTP speaks, as this replica has learned it (MCP 2026-07-28,
basic/versioning): from answers that pass, and by asking. Nothing is known for ever; upstreams are upgraded.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import msgspec

from libs.common.clock import elapsed
from libs.common.lifecycle import cancel
from services.gateway import messages
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.links.events import answers, events
from services.gateway.links.port import Era
from services.gateway.links.route import JSON_OR_EVENTS, Route, Saw, refused
from services.gateway.messages import Message
from services.gateway.protocol import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    LEGACY,
    LOCKGATE,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    MODERN,
    OWN_META,
    UNSUPPORTED_VERSION,
)
from services.gateway.upstream import Response

Spoken: TypeAlias = Literal["legacy", "modern", "both"]
Told: TypeAlias = dict[Era, bool]  # whether it speaks an era; nothing where the answer does not tell

KEPT_FOR = 600.0  # seconds
MOST = 10_000  # facts that are kept
# Seconds to the head of an answer: a server that does not know the question may keep silent.
ASK_WITHIN = 10.0

_OF_MODERN = {HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION}
_ID = b'"lockgate-era"'


class _Error(msgspec.Struct):
    code: int = 0
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Versions(msgspec.Struct):
    """Of a discover result, or of the data of an error about versions."""

    supported: list[str] = []
    discovered: list[str] = msgspec.field(name="supportedVersions", default=[])


def learned(asked: Era, method: str, status: int, message: bytes) -> Told:
    """What an answer tells: to a request in the form of the era `asked`, with this HTTP status and body.

    `message` may be anything that came, or nothing.
    """
    answer, error = _read(message)
    if error and error.code in _OF_MODERN and (status == 400 or error.code == UNSUPPORTED_VERSION):
        return _of_refusal(asked, error)
    if asked == "modern":
        return _of_modern_answer(method, status, answer, error.code if error else 0)
    if answer.result and method == "initialize":
        return {"legacy": True}
    if error and method == "initialize" and error.code == METHOD_NOT_FOUND:
        return {"modern": True, "legacy": False}
    return {}


def _of_refusal(asked: Era, error: _Error) -> Told:
    """By the errors that only the modern era has; one about versions may say which there are.

    A server of both eras may name its modern ones only, so that says nothing of the legacy era unless it was
    asked in that.
    """
    told: Told = {"modern": True} if asked == "modern" else {"modern": True, "legacy": False}
    if error.code == UNSUPPORTED_VERSION and (versions := _versions(bytes(error.data)).supported):
        told["modern"] = any(version >= MODERN for version in versions)
        if any(version < MODERN for version in versions):
            told["legacy"] = True
    return told


def _of_modern_answer(method: str, status: int, answer: Message, code: int) -> Told:
    if 200 <= status < 300:
        if method == "server/discover":
            return {"modern": any(version >= MODERN for version in _versions(answer.result).discovered)}
        # A lenient legacy server may answer too, but not in this form.
        return {"modern": True} if "resultType" in _members(answer.result) else {}
    if status == 404 and code == METHOD_NOT_FOUND and method != "server/discover":
        return {"modern": True}
    if status == 400 and code == INVALID_PARAMS and answer.id not in {b"", b"null"}:
        return {"modern": True}
    if status in {400, 404, 405, 406, 415, 501}:
        return {"modern": False}
    return {}  # 401, 429, 5xx and their like: it was not the era that was answered


def _read(message: bytes) -> tuple[Message, _Error | None]:
    try:
        answer = messages.read(message)
        return answer, msgspec.json.decode(answer.error, type=_Error) if answer.error else None
    except (messages.NotAMessage, *messages.UNREADABLE):
        return Message("response", b"", "", b"", b"", b""), None


def _versions(raw: bytes) -> _Versions:
    with suppress(*messages.UNREADABLE):
        return msgspec.json.decode(raw, type=_Versions)
    return _Versions()


def _members(raw: bytes) -> messages.Members:
    with suppress(messages.NotAMessage):
        return messages.members(raw)
    return {}


class SpokenEras:
    """What is known of each server (by slug, and URL, so that a new address is a new server)."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str, Era], tuple[bool, float]] = {}
        self._probes: dict[tuple[object, ...], asyncio.Task[Spoken]] = {}

    def speaks(self, slug: str, url: str, era: Era) -> bool | None:
        """Whether a server speaks `era`, if that is known."""
        spoken, at = self._facts.get((slug, url, era), (None, 0.0))
        return spoken if elapsed() - at < KEPT_FOR else None

    def known(self, slug: str, url: str) -> Spoken | None:
        """All that a server speaks, if that is known."""
        modern, legacy = self.speaks(slug, url, "modern"), self.speaks(slug, url, "legacy")
        if modern is None or legacy is None:
            return None
        if modern and legacy:
            return "both"
        return "modern" if modern else "legacy"

    def saw(self, slug: str, url: str, learned: Told) -> None:
        """Take note of what an answer told. If it contradicts what is known, both are forgotten."""
        if any(self.speaks(slug, url, era) not in {None, spoken} for era, spoken in learned.items()):
            self.forget(slug, url)
            return
        moment = elapsed()
        for era, spoken in learned.items():
            self._facts.pop((slug, url, era), None)
            self._facts[slug, url, era] = (spoken, moment)
        while len(self._facts) > MOST:
            del self._facts[next(iter(self._facts))]

    def watcher(self, slug: str, url: str) -> Saw:
        """For `Route.saw`: learns from the answers that come by it."""
        return lambda asked, method, status, message: self._heard(
            slug, url, learned(asked, method, status, message)
        )

    def _heard(self, slug: str, url: str, told: Told) -> None:
        """Take note of what the answer to somebody's request told. That an era is refused proves nothing, for
        one can ask so that it is; it is a reason to ask ourselves."""
        if any(self.speaks(slug, url, era) and not spoken for era, spoken in told.items()):
            self.forget(slug, url)
        else:
            self.saw(slug, url, {era: True for era, spoken in told.items() if spoken})

    def forget(self, slug: str, url: str) -> None:
        self._facts.pop((slug, url, "modern"), None)
        self._facts.pop((slug, url, "legacy"), None)

    async def probe(self, route: Route) -> Spoken:
        """Ask the upstream, unless it is known. Who asks with the same credential at the same time shares the
        answer. Raises `UpstreamFailed`.
        """
        if known := self.known(route.slug, route.url):
            return known
        credential = route.credential
        key = (route.slug, route.url, *credential.headers, *credential.query.items())
        if key not in self._probes:
            task = self._probes[key] = asyncio.create_task(self._probe(route), name="era-probe")
            task.add_done_callback(lambda task: self._probed(key, task))
        return await asyncio.shield(self._probes[key])

    async def stop(self) -> None:
        for task in list(self._probes.values()):
            await cancel(task)

    def _probed(self, key: Any, task: "asyncio.Task[Spoken]") -> None:
        del self._probes[key]
        if not task.cancelled():
            task.exception()  # those who waited have it; perhaps nobody does any more

    async def _probe(self, route: Route) -> Spoken:
        modern = await _discover(route)
        legacy = await _initialize(route) if modern else True
        self.forget(route.slug, route.url)
        self.saw(route.slug, route.url, {"modern": modern, "legacy": legacy})
        if modern and legacy:
            return "both"
        return "modern" if modern else "legacy"


async def _discover(route: Route) -> bool:
    """Whether it answers in the modern era. Raises `UpstreamFailed`, also where the answer does not tell."""
    given = [(b"mcp-protocol-version", MODERN.encode()), (b"mcp-method", b"server/discover")]
    question = messages.request(_ID, "server/discover", {"_meta": OWN_META})
    async with _asked(route, question, given) as response:
        answer = await _message(route, response)
        told = learned("modern", "server/discover", response.status, answer).get("modern")
        if told is None:
            raise refused(response.status)
        return told


async def _initialize(route: Route) -> bool:
    """Whether a modern upstream lets legacy clients in too; the session is ended at once."""
    params = {"protocolVersion": LEGACY[-1], "capabilities": {}, "clientInfo": LOCKGATE}
    async with _asked(route, messages.request(_ID, "initialize", params), []) as response:
        session = response.header(b"mcp-session-id")
        answer = await _message(route, response)
        told = learned("legacy", "initialize", response.status, answer).get("legacy", False)
    if session:
        version = [(b"mcp-protocol-version", LEGACY[-1].encode())]
        with suppress(UpstreamFailed):
            async with route.answer(b"DELETE", version, session=session):
                pass
    return told


def _asked(route: Route, question: bytes, given: list[Header]) -> AbstractAsyncContextManager[Response]:
    patient = replace(route, response_timeout=min(route.response_timeout, ASK_WITHIN))
    return patient.answer(b"POST", [JSON_OR_EVENTS, *given], question)


async def _message(route: Route, response: Response) -> bytes:
    """The message in an answer, whatever its status; empty if there is none. Raises `UpstreamFailed`."""
    try:
        async with asyncio.timeout(ASK_WITHIN):
            if response.is_json:
                return await response.read(route.message_limit)
            if not response.is_success or not response.is_event_stream:
                return b""
            async with aclosing(events(response, route.message_limit)) as stream:
                async for event in stream:
                    if event.data and answers(event.data, _ID):
                        return event.data
    except TimeoutError as error:
        detail = f"it did not finish its answer within {ASK_WITHIN:g} s"
        raise UpstreamFailed("upstream_timeout", detail) from error
    except messages.NotAMessage:
        pass
    return b""

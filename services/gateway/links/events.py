"""Messages from upstreams, out of event streams and bodies."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.sse import Splitter, TooLong, data_of
from services.gateway.upstream import Response

TURN = 256  # events of one piece before everybody else has a turn

_FIELD = re.compile(rb"^(event|id|retry)(?:: ?([^\n\0]*))?$", re.MULTILINE)
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event (WHATWG HTML, 9.2). `id` is None where it has none, `retry` is in seconds."""

    name: bytes
    data: bytes
    id: bytes | None = None
    retry: float | None = None


async def events(response: Response, limit: int) -> AsyncGenerator[Event, None]:
    """The events of an answer as they come, each of at most `limit` bytes. Raises `UpstreamFailed`."""
    if not response.is_event_stream:
        raise UpstreamFailed("upstream_bad_answer", "it answered with something else than JSON or events")
    splitter = Splitter(limit)
    async for chunk in response.chunks():
        try:
            whole = splitter.feed(chunk)
        except TooLong as error:
            detail = f"it sent an event of more than {limit} bytes"
            raise UpstreamFailed("upstream_bad_answer", detail) from error
        for number, raw in enumerate(whole, 1):
            yield event_of(raw)
            if number % TURN == 0:
                await asyncio.sleep(0)


def event_of(raw: bytes) -> Event:
    """The fields of one event."""
    fields = {found[1]: found[2] or b"" for found in _FIELD.finditer(raw.replace(b"\r", b"\n"))}
    retry = fields.get(b"retry", b"")
    seconds = int(retry) / 1000 if retry.isdigit() and len(retry) < 10 else None
    return Event(fields.get(b"event") or b"message", data_of(raw), fields.get(b"id"), seconds)


def messages_in(data: bytes) -> list[bytes]:
    """One message, or those of a batch (JSON-RPC 2.0, section 6; 2025-03-26 allows them).

    Raises `UpstreamFailed` when it is anything else.
    """
    try:
        found = [bytes(raw) for raw in _array(data)] if data.lstrip()[:1] == b"[" else [data]
        for message in found:
            messages.read(message)
    except (messages.NotAMessage, *messages.UNREADABLE) as error:
        raise UpstreamFailed(
            "upstream_bad_answer", f"it sent what is no JSON-RPC message: {error}"
        ) from error
    return found


def answers(message: bytes, id: bytes) -> bool:
    """Whether `message` is the response to the request `id` (raw JSON), which may be spelled differently."""
    if not id:
        return False
    read = messages.read(message)
    return read.kind == "response" and _same(read.id, id)


def _same(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    try:
        return type(a := json.loads(one)) is type(b := json.loads(other)) and bool(a == b)
    except ValueError:  # none, or an integer beyond Python's limit
        return False


def addressed(message: bytes, id: bytes) -> bytes:
    """The response `message` with the id spelled as in the request, by which its sender waits for it."""
    return message if messages.read(message).id == id else messages.with_id(message, id)

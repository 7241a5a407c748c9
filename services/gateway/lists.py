"""What a caller may see of a list: tools that the group may not use are left out.

The result is cut apart and put together again as raw JSON, so that unknown fields, large integers and the
order of members arrive as the upstream wrote them.
"""

from collections.abc import Callable

import msgspec

from services.gateway.envelope import Envelope

FILTERED = {"tools/list"}
# A filtered list is one caller's view: nobody may share it, and it should not be kept long (MCP 2026-07-28).
PRIVATE = {"cacheScope": msgspec.Raw(b'"private"')}
MAX_TTL_MS = 5_000


class Unfilterable(Exception):
    """The answer cannot be understood, so nothing of it may be shown."""


class _Tool(msgspec.Struct):
    name: str


_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_tool = msgspec.json.Decoder(_Tool).decode
_encode = msgspec.json.encode


def filter_tools(message: bytes, may_use: Callable[[str], bool]) -> bytes:
    """A JSON-RPC `message` without the tools for which `may_use(name)` is false.

    Messages that hold no list of tools come back as they are. Raises `Unfilterable`.
    """
    try:
        outer = _object(message)
        result = bytes(outer.get("result", b""))
        if not result.startswith(b"{"):
            return message
        members = _object(result)
        if "tools" not in members:
            return message
        tools = _array(members["tools"])
        kept = [tool for tool in tools if may_use(_tool(tool).name)]
        modern = "cacheScope" in members or "ttlMs" in members or "resultType" in members
        if len(kept) == len(tools) and not modern:
            return message
        members["tools"] = msgspec.Raw(_encode(kept))
        if modern:
            members |= PRIVATE | {"ttlMs": msgspec.Raw(str(_ttl(members.get("ttlMs"))).encode())}
        return _encode(outer | {"result": msgspec.Raw(_encode(members))})
    except msgspec.DecodeError as error:
        raise Unfilterable(str(error)) from error


def _ttl(given: msgspec.Raw | None) -> int:
    try:
        asked = msgspec.json.decode(given, type=int) if given is not None else 0
    except msgspec.DecodeError:
        return 0
    return max(0, min(asked, MAX_TTL_MS))


def is_filtered(envelope: Envelope) -> bool:
    """Whether the answer to this request has to be filtered."""
    return envelope.kind == "request" and envelope.method in FILTERED

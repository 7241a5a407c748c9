"""Names and URIs inside messages, from a server's own to public ones and back.

Messages are cut apart and put together as raw JSON, so that unknown members and large numbers survive.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from services.gateway.aggregate.names import public_uri
from services.gateway.messages import UNREADABLE, Members, NotAMessage, joined, members, with_member

_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode


def text(raw: bytes) -> str:
    """A JSON string. Raises `NotAMessage` if it is none."""
    try:
        return _string(raw)
    except UNREADABLE as error:
        raise NotAMessage(str(error)) from error


def items(raw: bytes) -> Sequence[bytes]:
    """The elements of a JSON array, each raw. Raises `NotAMessage` if it is none."""
    try:
        return [bytes(item) for item in _array(raw)]
    except UNREADABLE as error:
        raise NotAMessage(str(error)) from error


def renamed(item: bytes, member: str, new: Callable[[str], str]) -> bytes:
    """The object `item` with the string in `member` replaced; as it is if there is none."""
    parts = members(item)
    return joined(set_string(parts, member, new(text(parts[member])))) if member in parts else item


def with_params(message: bytes, params: Members) -> bytes:
    """The request `message` with other params."""
    return with_member(message, "params", joined(params))


def set_string(parts: Members, member: str, value: str) -> Members:
    """`parts` with a string in `member`."""
    return parts | {member: msgspec.Raw(_encode(value))}


def public_result(response: bytes, server: str) -> bytes:
    """A response of `server` with public URIs wherever a result names a resource.

    Results name resources in `contents` (resources/read), in `content` blocks (tools/call) and in the
    `content` of `messages` (prompts/get).
    """
    outer = members(response)
    if "result" not in outer:
        return response
    result = members(bytes(outer["result"]))
    changed: dict[str, Any] = {}
    if "contents" in result:
        changed["contents"] = _each(result["contents"], lambda item: _public(item, server))
    if "content" in result:
        changed["content"] = _each(result["content"], lambda block: _block(block, server))
    if "messages" in result:
        changed["messages"] = _each(result["messages"], lambda message: _message(message, server))
    return joined(outer | {"result": msgspec.Raw(joined(result | changed))}) if changed else response


def public_notification(notification: bytes, server: str) -> bytes:
    """A notification of `server` with a public URI, if it names a resource."""
    outer = members(notification)
    if "params" not in outer:
        return notification
    params = members(bytes(outer["params"]))
    if "uri" not in params:
        return notification
    return with_params(notification, set_string(params, "uri", public_uri(server, text(params["uri"]))))


def _message(message: bytes, server: str) -> bytes:
    parts = members(message)
    if not bytes(parts.get("content", b"")).startswith(b"{"):
        return message
    return joined(parts | {"content": msgspec.Raw(_block(bytes(parts["content"]), server))})


def _block(block: bytes, server: str) -> bytes:
    """A content block (MCP 2026-07-28, schema: `ContentBlock`)."""
    parts = members(block)
    kind = bytes(parts.get("type", b""))
    if kind == b'"resource_link"':
        return _public(block, server)
    if kind == b'"resource"' and "resource" in parts:
        return joined(parts | {"resource": msgspec.Raw(_public(bytes(parts["resource"]), server))})
    return block


def _public(item: bytes, server: str) -> bytes:
    return renamed(item, "uri", lambda uri: public_uri(server, uri))


def _each(array: msgspec.Raw, change: Callable[[bytes], bytes]) -> msgspec.Raw:
    if not bytes(array).startswith(b"["):  # an extension's own member of that name
        return array
    return msgspec.Raw(_encode([msgspec.Raw(change(item)) for item in items(bytes(array))]))

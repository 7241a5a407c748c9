"""JSON-RPC messages as raw JSON: read one, change one member, leave the rest byte for byte (pure).

`envelope.py` is for what comes from clients and must be strict; this is for what is known to be one message.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from services.gateway.protocol import CANCELLED

Kind: TypeAlias = Literal["request", "notification", "response"]
Members: TypeAlias = dict[str, msgspec.Raw]


# What decoders raise: for what is no JSON or not of the wanted shape, no UTF-8, or nested too deep.
UNREADABLE = (ValueError, RecursionError)


class NotAMessage(Exception):
    """The bytes are no single JSON-RPC message."""


class Message(NamedTuple):
    """One message. `id`, `params`, `result` and `error` are raw JSON, empty where absent."""

    kind: Kind
    id: bytes
    method: str
    params: bytes
    result: bytes
    error: bytes


class _Message(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()
    method: str = ""
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_message = msgspec.json.Decoder(_Message).decode
_members = msgspec.json.Decoder(Members).decode
_encode = msgspec.json.encode


def read(raw: bytes) -> Message:
    """The parts of `raw`. Raises `NotAMessage`."""
    try:
        decoded = _message(raw)
    except UNREADABLE as problem:
        raise NotAMessage(str(problem)) from problem
    id, outcome, failure = bytes(decoded.id), bytes(decoded.result), bytes(decoded.error)
    if decoded.method:
        kind: Kind = "request" if id else "notification"
    elif outcome or failure:
        kind = "response"
    else:
        raise NotAMessage("neither a request nor a response")
    return Message(kind, id, decoded.method, bytes(decoded.params), outcome, failure)


def members(raw: bytes) -> Members:
    """The members of a JSON object, each raw; of nothing, none. Raises `NotAMessage`."""
    try:
        return _members(raw) if raw else {}
    except UNREADABLE as error:
        raise NotAMessage(str(error)) from error


def text(value: bytes | None) -> str:
    """The text of a raw JSON string; empty for anything else."""
    try:
        return msgspec.json.decode(value, type=str) if value else ""
    except UNREADABLE:
        return ""


def code_of(error: bytes) -> int:
    """The code of a raw error object; 0 if it has none that is an integer."""
    try:
        return msgspec.json.decode(members(error).get("code", b"0"), type=int)
    except (*UNREADABLE, NotAMessage):
        return 0


def joined(parts: Members) -> bytes:
    """The JSON object of `parts`, each as it was."""
    return _encode(parts)


def with_member(raw: bytes, name: str, value: bytes) -> bytes:
    """The object `raw` with `name` set to the JSON `value`; everything else stays as it stands."""
    return joined(members(raw) | {name: msgspec.Raw(value)})


def with_id(raw: bytes, id: bytes) -> bytes:
    """`raw` with another id (raw JSON)."""
    return with_member(raw, "id", id)


def request(id: bytes, method: str, params: Any = None) -> bytes:
    """A request; `params` may hold `msgspec.Raw`."""
    body = {"jsonrpc": "2.0", "id": msgspec.Raw(id), "method": method}
    return _encode(body if params is None else body | {"params": params})


def notification(method: str, params: Any = None) -> bytes:
    body = {"jsonrpc": "2.0", "method": method}
    return _encode(body if params is None else body | {"params": params})


def cancelled(id: bytes, reason: str) -> bytes:
    """The notification that the request `id` (raw JSON) is cancelled."""
    return notification(CANCELLED, {"requestId": msgspec.Raw(id), "reason": reason})


def result(id: bytes, value: Any) -> bytes:
    """A response with a result; `value` may hold or be `msgspec.Raw`."""
    return _encode({"jsonrpc": "2.0", "id": msgspec.Raw(id), "result": value})


def error(id: bytes, code: int, message: str, data: Any = None) -> bytes:
    """A response with an error (JSON-RPC 2.0, section 5.1)."""
    body = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return _encode({"jsonrpc": "2.0", "id": msgspec.Raw(id or b"null"), "error": body})

"""Errors, and their codes in both eras (pure).

MCP 2026-07-28, basic/index "Error Codes": -32002 and -32042 are of earlier revisions and must not be sent any
more; -32020 to -32099 are the specification's, and were the implementations' own before.
"""

from typing import Any

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.messages import Message, NotAMessage
from services.gateway.protocol import INTERNAL_ERROR, INVALID_PARAMS, RESOURCE_NOT_FOUND

# Lockgate's own, outside of the range that JSON-RPC reserves (see refusals.py).
INPUT_TIMED_OUT = -31408
INPUT_DECLINED = -31499


class RequestFailed(Exception):
    """The request is answered with a JSON-RPC error, here raw JSON."""

    def __init__(self, error: bytes) -> None:
        super().__init__(error.decode(errors="replace"))
        self.error = error

    def response(self, id: bytes) -> bytes:
        """The response to the request `id` (raw JSON)."""
        return messages.joined(
            {"jsonrpc": msgspec.Raw(b'"2.0"'), "id": msgspec.Raw(id), "error": msgspec.Raw(self.error)}
        )


def failed(code: int, message: str, data: Any = None) -> RequestFailed:
    """An error of Lockgate's, to be raised."""
    error = {"code": code, "message": f"Lockgate: {message}"}
    return RequestFailed(msgspec.json.encode(error if data is None else error | {"data": data}))


def error_of(response: Message) -> bytes:
    """The raw error object of a response, empty if it has none; some peers write `null` beside a result."""
    return b"" if response.error == b"null" else response.error


def as_upstream_failed(error: UpstreamFailed | NotAMessage) -> UpstreamFailed:
    """What is no message cannot be an answer."""
    if isinstance(error, UpstreamFailed):
        return error
    return UpstreamFailed("upstream_bad_answer", f"its answer cannot be read: {error}")


def legacy_error(method: str, error: bytes) -> bytes:
    """The raw error object that a legacy client gets for a modern one.

    A resource that is not found is -32602 with its `uri` as data (2026-07-28, server/resources "Error
    Handling"); other errors with that code stay what they are.
    """
    if method == "resources/read" and messages.code_of(error) == INVALID_PARAMS and _names_uri(error):
        return messages.with_member(error, "code", b"%d" % RESOURCE_NOT_FOUND)
    return error


def modern_error(error: bytes) -> bytes:
    """The raw error object that a modern client gets for a legacy one.

    A code from what is now the specification's range would be misread, so it moves into the data.
    """
    code = messages.code_of(error)
    if code == RESOURCE_NOT_FOUND:
        return messages.with_member(error, "code", b"%d" % INVALID_PARAMS)
    if -32099 <= code <= -32020:
        members = messages.members(error)
        data = {"legacyCode": code, "legacyData": members.get("data")}
        return messages.joined(
            members | {"code": msgspec.Raw(b"%d" % INTERNAL_ERROR), "data": msgspec.Raw(_encode(data))}
        )
    return error


def _names_uri(error: bytes) -> bool:
    try:
        return "uri" in messages.members(messages.members(error)["data"])
    except (NotAMessage, KeyError):
        return False


def _encode(data: dict[str, Any]) -> bytes:
    return msgspec.json.encode({name: value for name, value in data.items() if value is not None})

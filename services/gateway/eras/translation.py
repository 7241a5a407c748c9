"""Requests and results, from one era to the other (pure).

Messages are raw JSON, and members that neither era defines pass byte for byte. Sections are of MCP 2026-07-28
unless another revision is named.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import msgspec

from services.gateway.eras import failures
from services.gateway.links.port import Era
from services.gateway.messages import UNREADABLE, Members, NotAMessage, joined, members, text
from services.gateway.protocol import (
    META_CAPABILITIES,
    META_INFO,
    META_LOG_LEVEL,
    META_SERVER,
    META_VERSION,
    METHOD_NOT_FOUND,
    MODERN,
)

# server/utilities/caching "Cacheable Results"
CACHEABLE = {
    *("server/discover", "tools/list", "prompts/list"),
    *("resources/list", "resources/templates/list", "resources/read"),
}

_LEGACY_ONLY = {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
_MODERN_ONLY = {"server/discover", "subscriptions/listen"}
_ENVELOPE = (META_VERSION, META_CAPABILITIES, META_INFO, META_LOG_LEVEL)
# basic/patterns/mrtr "Client Requirements": what a retry carries.
RETRY = ("inputResponses", "requestState")


_Change: TypeAlias = Callable[[bytes], bytes]


class Identity(NamedTuple):
    """What a client says of itself: raw JSON objects. `info` is empty where it says nothing."""

    capabilities: bytes
    info: bytes = b""


def raw(value: object) -> msgspec.Raw:
    """`value` as JSON."""
    return msgspec.Raw(msgspec.json.encode(value))


def inner(parts: Members, name: str) -> Members:
    """The members of the object `name` in `parts`; of nothing and of null, none. Raises `NotAMessage`."""
    value = bytes(parts.get(name, b""))
    return {} if value == b"null" else members(value)


def elements(array: bytes) -> list[msgspec.Raw]:
    """The elements of a JSON array. Raises `NotAMessage`."""
    try:
        return msgspec.json.decode(array, type=list[msgspec.Raw])
    except UNREADABLE as error:
        raise NotAMessage(str(error)) from error


def meta_of(params: bytes) -> Members:
    """The `_meta` of raw params. Raises `NotAMessage` if there is one that is no object."""
    return inner(members(params), "_meta")


def without(parts: Members, *names: str) -> Members:
    return {name: value for name, value in parts.items() if name not in names}


def with_meta(parts: Members, meta: Members) -> Members:
    """`parts` with that `_meta`, or without any if it is empty."""
    return parts | {"_meta": msgspec.Raw(joined(meta))} if meta else without(parts, "_meta")


def refuse_untranslatable(method: str, speaks: Era) -> None:
    """Raise `RequestFailed` for a method that has no counterpart for a client of this era."""
    if method.startswith("tasks/"):
        detail = "tasks of MCP 2025-11-25 and of 2026-07-28 are two different designs"
        raise failures.failed(METHOD_NOT_FOUND, f"{method} cannot be translated for this server: {detail}")
    if speaks == "modern" and method in _LEGACY_ONLY:
        detail = f"{method} is not part of MCP {MODERN}, which this client speaks"
        raise failures.failed(METHOD_NOT_FOUND, detail)
    if speaks == "legacy" and method in _MODERN_ONLY:
        detail = f"{method} is part of MCP {MODERN} only, and this session speaks an earlier revision"
        raise failures.failed(METHOD_NOT_FOUND, detail)


# -- requests --------------------------------------------------------------------------------------


def modern_request(request: bytes, id: bytes, identity: Identity, log_level: str = "") -> bytes:
    """A legacy request as a modern one (basic/index "Per-request protocol fields").

    What would gain a meaning that it did not have goes: `task` asks for a task, which a server without them
    ignores (2025-11-25, basic/utilities/tasks), and the members of a retry.
    """
    message = members(request)
    params = without(inner(message, "params"), "task", *RETRY)
    meta = without(inner(params, "_meta"), *_ENVELOPE) | envelope(identity, log_level)
    return joined(message | {"id": msgspec.Raw(id), "params": msgspec.Raw(joined(with_meta(params, meta)))})


def envelope(identity: Identity, log_level: str = "") -> Members:
    """The members of `_meta` that every modern request has."""
    meta = {META_VERSION: raw(MODERN), META_CAPABILITIES: msgspec.Raw(identity.capabilities)}
    if identity.info:
        meta[META_INFO] = msgspec.Raw(identity.info)
    if log_level:
        meta[META_LOG_LEVEL] = raw(log_level)
    return meta


def legacy_request(request: bytes, id: bytes, progress_token: bytes = b"") -> bytes:
    """A modern request as a legacy one, with another progress token, or with none."""
    message = members(request)
    params = without(inner(message, "params"), *RETRY)
    meta = without(inner(params, "_meta"), "progressToken", *_ENVELOPE)
    if progress_token:
        meta["progressToken"] = msgspec.Raw(progress_token)
    return joined(message | {"id": msgspec.Raw(id), "params": msgspec.Raw(joined(with_meta(params, meta)))})


# -- results ---------------------------------------------------------------------------------------


def result_type(result: bytes) -> str:
    """The `resultType`; what has none is complete (basic/index "ResultType")."""
    value = members(result).get("resultType")
    return "complete" if value is None else text(value)


def legacy_response(response: bytes, id: bytes, method: str) -> bytes:
    """The modern response to `method`, an error or a complete result, as a legacy one."""
    return _response(
        response,
        id,
        lambda error: failures.legacy_error(method, error),
        lambda result: _legacy_result(method, result),
    )


def modern_response(response: bytes, id: bytes, method: str, server_info: bytes) -> bytes:
    """A legacy response to `method` as a modern one."""
    return _response(
        response, id, failures.modern_error, lambda result: modern_result(method, result, server_info)
    )


def _response(response: bytes, id: bytes, error: _Change, result: _Change) -> bytes:
    message = members(response)
    if bytes(message.get("error", b"null")) != b"null":
        changed = {"error": msgspec.Raw(error(bytes(message["error"])))}
    else:  # some servers send `"error": null` beside a result
        message = without(message, "error")
        changed = {"result": msgspec.Raw(result(bytes(message["result"])))}
    return joined(message | {"id": msgspec.Raw(id)} | changed)


def _legacy_result(method: str, result: bytes) -> bytes:
    parts = without(members(result), "resultType", *(("ttlMs", "cacheScope") if method in CACHEABLE else ()))
    if "_meta" in parts:
        parts = with_meta(parts, without(inner(parts, "_meta"), META_SERVER))
    if method == "tools/call" and not _is_object(parts.get("structuredContent")):
        parts = without(parts, "structuredContent")
    if method == "tools/list" and "tools" in parts:
        parts["tools"] = msgspec.Raw(_legacy_tools(parts["tools"]))
    return joined(parts)


def _legacy_tools(tools: bytes) -> bytes:
    """Tools whose structured output is no object lose the schema of it, and their results that output.

    Earlier revisions know objects only, and their clients reject others; the same stands as text in the
    result (SEP-2106 "Backward Compatibility").
    """
    listed = [members(tool) for tool in elements(tools)]
    return msgspec.json.encode(
        [tool if _has_legacy_output(tool) else without(tool, "outputSchema") for tool in listed]
    )


def _has_legacy_output(tool: Members) -> bool:
    return "outputSchema" not in tool or text(inner(tool, "outputSchema").get("type")) == "object"


def _is_object(value: bytes | None) -> bool:
    return value is None or bytes(value).lstrip().startswith(b"{")


def modern_result(method: str, result: bytes, server_info: bytes) -> bytes:
    """A legacy result as a complete modern one (basic/index "ResultType", server/utilities/caching).

    A legacy server says nothing about freshness, so the result is stale at once, and nobody else's.
    """
    parts = members(result) | {"resultType": raw("complete")}
    if method in CACHEABLE:
        parts |= {"ttlMs": msgspec.Raw(b"0"), "cacheScope": raw("private")}
    if server_info:
        meta = {META_SERVER: msgspec.Raw(server_info)} | inner(parts, "_meta")
        parts = with_meta(parts, meta)
    return joined(parts)

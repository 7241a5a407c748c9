"""The JSON-RPC envelope of a request, parsed just far enough to decide on it.

The body is forwarded as it came, so what is decided here must be what the upstream will run. Anything two
parsers could read in two ways is refused: duplicate keys, keys of the protocol in another case, anything but
strict UTF-8 JSON, headers that contradict the body (MCP 2026-07-28, basic/transports/streamable-http;
JSON-RPC 2.0, section 4).
"""

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

import msgspec

META_VERSION = "io.modelcontextprotocol/protocolVersion"
# The parameter that says on what a method acts.
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
# The longest that are recorded, in characters; tool names are at most 128 by the specification.
LONGEST = {"method": 128, "name": 256, "uri": 4096}
# Some decoders (Go's) ignore the case of keys. A key that is one of these in another case is refused.
MESSAGE_KEYS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
PARAMS_KEYS = frozenset({"name", "uri", "arguments", "_meta"})
# Bodies with more separators than this are costly to check: not on the event loop.
SIMPLE = 10_000

Kind: TypeAlias = Literal["request", "notification", "response"]


class Malformed(Exception):
    """The body is no single JSON-RPC message, or headers and body disagree.

    `reason` is a reason id, `code` a JSON-RPC error code, `detail` a sentence for the caller.
    """

    def __init__(self, reason: str, code: int, detail: str, id: bytes = b"null") -> None:
        super().__init__(detail)
        self.reason, self.code, self.detail, self.id = reason, code, detail, id


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message. `id` and `params` are raw JSON; `name` is the tool, prompt or resource acted on."""

    kind: Kind
    id: bytes
    method: str
    name: str
    params: bytes
    modern: bool


class _Message(msgspec.Struct):
    jsonrpc: Any = None
    id: msgspec.Raw = msgspec.Raw()
    method: Any = None
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Params(msgspec.Struct):
    name: Any = None
    uri: Any = None
    meta: Any = msgspec.field(name="_meta", default=None)


_message = msgspec.json.Decoder(_Message).decode
_params = msgspec.json.Decoder(_Params).decode
_id = msgspec.json.Decoder(str | int).decode


def is_simple(body: bytes) -> bool:
    """Whether parsing `body` takes no longer than a few milliseconds."""
    return len(body) < SIMPLE or body.count(b",") + body.count(b"{") + body.count(b"[") < SIMPLE


def parse(body: bytes) -> Envelope:
    """The envelope of `body`. Raises `Malformed`."""
    _check_strict(body)
    try:
        message = _message(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed("invalid_request", -32600, f"not a JSON-RPC message: {error}") from error
    if message.jsonrpc != "2.0":
        raise Malformed("invalid_request", -32600, 'the member "jsonrpc" must be "2.0"')
    id = bytes(message.id)
    if id:
        _check_id(id)
    if message.method is None:
        return _response(message, id)
    if not isinstance(message.method, str) or not 0 < len(message.method) <= LONGEST["method"]:
        raise Malformed("invalid_request", -32600, '"method" must be a short string', id or b"null")
    if message.result or message.error:
        raise Malformed("invalid_request", -32600, "both a request and a response", id or b"null")
    name, modern = _subject(message.method, bytes(message.params), id or b"null")
    kind: Kind = "request" if id else "notification"
    return Envelope(kind, id or b"null", message.method, name, bytes(message.params), modern)


def _response(message: _Message, id: bytes) -> Envelope:
    """The client's answer to a request of the server (revisions before 2026-07-28)."""
    if not id or bool(message.result) == bool(message.error):
        raise Malformed("invalid_request", -32600, "neither a request nor a response", id or b"null")
    return Envelope("response", id, "", "", bytes(message.result or message.error), False)


def _subject(method: str, params: bytes, id: bytes) -> tuple[str, bool]:
    """What the method acts on, and whether the message is of the modern era."""
    field = NAMED_BY.get(method)
    try:
        decoded = _params(params) if params else _Params()
    except msgspec.DecodeError:
        raise Malformed("invalid_params", -32602, 'the member "params" must be an object', id) from None
    modern = isinstance(decoded.meta, dict) and META_VERSION in decoded.meta
    if field is None:
        return "", modern
    name = getattr(decoded, field)
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST[field]:
        detail = f'{method} needs a "{field}" of at most {LONGEST[field]} characters in its params'
        raise Malformed("invalid_params", -32602, detail, id)
    return name, modern


def _check_id(id: bytes) -> None:
    try:
        _id(id)
    except msgspec.DecodeError:
        raise Malformed("invalid_request", -32600, 'the member "id" must be a string or an integer') from None


def _check_strict(body: bytes) -> None:
    """Refuse what is not strict JSON, and objects in which a key stands twice, at any depth."""
    try:
        decoded = _STRICT.decode(body.decode())
    except _Duplicate as error:
        raise Malformed(
            "duplicate_key", -32600, f"the key {error.args[0][:60]!r} stands twice in an object"
        ) from None
    except (ValueError, RecursionError) as error:
        raise Malformed("malformed_json", -32700, f"not JSON: {error}") from None
    if isinstance(decoded, list):
        raise Malformed("batch", -32600, "batches are not part of MCP: send one message at a time")
    if not isinstance(decoded, dict):
        raise Malformed("invalid_request", -32600, "a message is a JSON object")
    _check_case(decoded, MESSAGE_KEYS)
    params = decoded.get("params")
    if isinstance(params, dict):
        _check_case(params, PARAMS_KEYS)


def _check_case(members: dict[str, object], known: frozenset[str]) -> None:
    for key in members:
        if key not in known and key.casefold() in known:
            detail = f"the key {key!r} is {key.casefold()!r} in another case"
            raise Malformed("ambiguous_key", -32600, detail)


class _Duplicate(Exception):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    decoded = dict(pairs)
    if len(decoded) != len(pairs):
        seen: set[str] = set()
        raise _Duplicate(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return decoded


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def check_headers(envelope: Envelope, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse headers that say something else than the body. Raises `Malformed`.

    Modern messages must carry `Mcp-Method`, and `Mcp-Name` where the method has a subject. Older clients
    need not, but some do: what is there has to be true, each time it is there.
    """
    if envelope.kind == "response":
        return
    expected = {b"mcp-method": envelope.method}
    if envelope.name:
        expected[b"mcp-name"] = envelope.name
    missing = set(expected) if envelope.modern else set()
    for name, value in headers:
        if name in expected:
            missing.discard(name)
            if decode_header(value) != expected[name]:
                raise _mismatch(f"the header {name.decode().title()} and the body disagree", envelope)
    if missing:
        raise _mismatch(f"the header {min(missing).decode().title()} is missing", envelope)


def _mismatch(detail: str, envelope: Envelope) -> Malformed:
    return Malformed("header_mismatch", -32020, detail, envelope.id)


def decode_header(value: bytes) -> str | None:
    """The text of a header value; unsafe text comes as `=?base64?…?=`. None if it is neither."""
    value = value.strip(b" \t")  # httptools leaves trailing white space
    try:
        if value.startswith(b"=?base64?") and value.endswith(b"?="):
            return base64.b64decode(value[9:-2], validate=True).decode()
        return value.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None

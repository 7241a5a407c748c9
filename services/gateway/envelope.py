"""The JSON-RPC envelope of a request, parsed just far enough to decide on it.

The body is forwarded as it came, so what is decided here must be what the upstream will run. Anything two
parsers could read in two ways is refused: duplicate keys, keys of the protocol in another case, anything but
strict UTF-8 JSON, headers that contradict the body (MCP 2026-07-28, basic/transports/streamable-http;
JSON-RPC 2.0, section 4).
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, NoReturn, TypeAlias

import msgspec

from libs.common.decision.subjects import WITH_ARGUMENTS, Subject, Unnamed, subjects_of
from services.gateway.protocol import INVALID_PARAMS, INVALID_REQUEST, META_VERSION, PARSE_ERROR

LONGEST_METHOD = 128  # characters
DEEPEST = 128  # objects and arrays within each other; other parsers have a limit too, and a smaller stack
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
    """One message. `id` and `params` are raw JSON; `version` is that of `_meta`, where it is text.

    `modern`: it is of the era of 2026-07-28, for its `_meta` says a protocol version.
    """

    kind: Kind
    id: bytes
    method: str
    params: bytes
    subjects: tuple[Subject, ...] = ()
    modern: bool = False
    version: str = ""
    task: str = ""  # the task that the message is about (tasks extension)
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of the tool or prompt, decoded

    @property
    def name(self) -> str:
        """The tool, prompt or resource acted on; empty if there is none, or several."""
        return self.subjects[0].name if len(self.subjects) == 1 else ""


class _Message(msgspec.Struct):
    jsonrpc: Any = None
    id: msgspec.Raw = msgspec.Raw()
    method: Any = None
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_message = msgspec.json.Decoder(_Message).decode
_id = msgspec.json.Decoder(str | int).decode


def is_simple(body: bytes) -> bool:
    """Whether parsing `body` takes no longer than a few milliseconds."""
    return len(body) < SIMPLE or body.count(b",") + body.count(b"{") + body.count(b"[") < SIMPLE


def parse(body: bytes) -> Envelope:
    """The envelope of `body`. Raises `Malformed`."""
    decoded = _strict(body)
    try:
        message = _message(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed("invalid_request", INVALID_REQUEST, f"not a JSON-RPC message: {error}") from error
    if message.jsonrpc != "2.0":
        raise Malformed("invalid_request", INVALID_REQUEST, 'the member "jsonrpc" must be "2.0"')
    id = bytes(message.id)
    if id:
        _check_id(id)
    if message.method is None:
        return _response(message, id)
    if not isinstance(message.method, str) or not 0 < len(message.method) <= LONGEST_METHOD:
        raise Malformed("invalid_request", INVALID_REQUEST, '"method" must be a short string', id or b"null")
    if message.result or message.error:
        raise Malformed("invalid_request", INVALID_REQUEST, "both a request and a response", id or b"null")
    return _call(message.method, id, bytes(message.params), decoded.get("params", {}))


def _response(message: _Message, id: bytes) -> Envelope:
    """The client's answer to a request of the server (revisions before 2026-07-28)."""
    if not id or bool(message.result) == bool(message.error):
        raise Malformed("invalid_request", INVALID_REQUEST, "neither a request nor a response", id or b"null")
    return Envelope("response", id, "", bytes(message.result or message.error))


def _call(method: str, id: bytes, raw: bytes, params: object) -> Envelope:
    """A request or notification; `raw` are its params as they stand, `params` the same decoded."""
    kind: Kind = "request" if id else "notification"
    id = id or b"null"
    if not isinstance(params, dict):
        raise Malformed("invalid_params", INVALID_PARAMS, 'the member "params" must be an object', id)
    try:
        subjects = subjects_of(method, params)
    except Unnamed as error:
        raise Malformed("invalid_params", INVALID_PARAMS, str(error), id) from None
    meta = params.get("_meta")
    version = meta.get(META_VERSION, _ABSENT) if isinstance(meta, dict) else _ABSENT
    task = params.get("taskId") if method.startswith("tasks/") else ""
    modern = version is not _ABSENT
    arguments = (params.get("arguments") or {}) if method in WITH_ARGUMENTS else {}
    if not isinstance(arguments, dict):  # an upstream may decode them all the same, and rules would see none
        raise Malformed("invalid_params", INVALID_PARAMS, '"arguments" in the params must be an object', id)
    return Envelope(kind, id, method, raw, subjects, modern, _text(version), _text(task), arguments)


_ABSENT = object()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _check_id(id: bytes) -> None:
    try:
        _id(id)
    except msgspec.DecodeError:
        raise Malformed(
            "invalid_request", INVALID_REQUEST, 'the member "id" must be a string or an integer'
        ) from None


# -- strictness ------------------------------------------------------------------------------------


def _strict(body: bytes) -> dict[str, object]:
    """`body` decoded. Refuses what is not strict JSON, or has a key twice in an object, however deep."""
    _check_depth(body)
    try:
        decoded = _STRICT.decode(body.decode())
    except _Duplicate as error:
        raise Malformed(
            "duplicate_key", INVALID_REQUEST, f"the key {error.args[0][:60]!r} stands twice in an object"
        ) from None
    except (ValueError, RecursionError) as error:
        raise Malformed("malformed_json", PARSE_ERROR, f"not JSON: {error}") from None
    if isinstance(decoded, list):
        raise Malformed("batch", INVALID_REQUEST, "batches are not part of MCP: send one message at a time")
    if not isinstance(decoded, dict):
        raise Malformed("invalid_request", INVALID_REQUEST, "a message is a JSON object")
    _check_case(decoded, _KEYS)
    return decoded


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)  # or the unfinished rest: linear
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def _check_depth(body: bytes) -> None:
    """Refuse deep nesting before anything recursive sees it. The body need not be JSON."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > DEEPEST:
        raise Malformed(
            "too_deep", INVALID_REQUEST, f"objects and arrays are nested more than {DEEPEST} deep"
        )


# Some decoders (Go's) ignore the case of keys. Of the keys on which a decision rests, and in the objects
# where they stand, only this spelling is taken: key in small letters -> the key, or it and what is below it.
_Keys: TypeAlias = dict[str, "str | tuple[str, _Keys]"]


def _keys(*names: str, **inner: _Keys) -> _Keys:
    return {name.casefold(): name for name in names} | {
        name.casefold(): (name, keys) for name, keys in inner.items()
    }


_KEYS = _keys(
    *("jsonrpc", "id", "method", "result", "error"),
    params=_keys(
        *("name", "uri", "arguments", "taskId"),
        _meta=_keys(META_VERSION),
        ref=_keys("type", "name", "uri", "uriTemplate"),
        notifications=_keys(
            *("toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions")
        ),
    ),
)


def _check_case(members: dict[str, object], keys: _Keys) -> None:
    for key, value in members.items():
        known = keys.get(key.casefold(), key)
        name, inner = known if isinstance(known, tuple) else (known, None)
        if key != name:
            raise Malformed("ambiguous_key", INVALID_REQUEST, f"the key {key!r} is {name!r} in another case")
        if inner is not None and isinstance(value, dict):
            _check_case(value, inner)


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


# -- headers that mirror the body ------------------------------------------------------------------

# Methods whose subject stands in `Mcp-Name` (MCP 2026-07-28, basic/transports/streamable-http).
_MIRRORED = {"tools/call", "prompts/get", "resources/read"}
# Of these, two that differ would be read in two ways: some readers take the first, some the last.
_ONCE = {b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-session-id", b"last-event-id"}
_PARAMETER = b"mcp-param-"


def check_headers(envelope: Envelope, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse headers that say something else than the body, or two things at once. Raises `Malformed`.

    Modern messages must carry `MCP-Protocol-Version`, `Mcp-Method`, and `Mcp-Name` where the method has a
    subject. Older clients need not, but some do: what is there has to be true, each time it is there. What
    argument an `Mcp-Param-*` mirrors only the tool's schema says: it must be readable, and goes on to the
    upstream, which has to compare it.
    """
    headers = list(headers)
    _check_single(envelope, headers)
    if envelope.kind == "response":
        return
    expected, optional = _expected(envelope)
    missing = set(expected) if envelope.modern else set()
    for name, value in headers:
        if name in expected or name in optional:
            missing.discard(name)
            text = decode_header(value) if name == b"mcp-name" else value.strip(b" \t").decode("latin-1")
            if text != (expected | optional)[name]:
                raise _mismatch(f"the header {_title(name)} and the body disagree", envelope)
    if missing:
        raise _mismatch(f"the header {_title(min(missing))} is missing", envelope)


def _expected(envelope: Envelope) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """The headers that a modern message must have, and those that are true if they are there."""
    expected = {b"mcp-method": envelope.method}
    if envelope.method in _MIRRORED:
        expected[b"mcp-name"] = envelope.name
    if envelope.modern:
        expected[b"mcp-protocol-version"] = envelope.version
    return expected, {b"mcp-name": envelope.task} if envelope.task else {}


def _check_single(envelope: Envelope, headers: list[tuple[bytes, bytes]]) -> None:
    seen: dict[bytes, bytes] = {}
    for name, value in headers:
        parameter = name.startswith(_PARAMETER)
        if not parameter and name not in _ONCE:
            continue
        if seen.setdefault(name, value.strip(b" \t")) != value.strip(b" \t"):
            raise _mismatch(f"the header {_title(name)} stands twice, with different values", envelope)
        if parameter and decode_header(value) is None:
            raise _mismatch(f"the header {_title(name)} cannot be decoded", envelope)


def _title(name: bytes) -> str:
    return name.decode("latin-1").title()


def _mismatch(detail: str, envelope: Envelope) -> Malformed:
    return Malformed("header_mismatch", -32020, detail, envelope.id)


def decode_header(value: bytes) -> str | None:
    """The text of a header value; what is not printable ASCII comes as `=?base64?…?=`. None if it is neither.

    Only canonical Base64 counts, as in the official SDK: one text has one encoding.
    """
    value = value.strip(b" \t")  # httptools leaves trailing white space
    try:
        if not (value.startswith(b"=?base64?") and value.endswith(b"?=") and len(value) >= 11):
            return value.decode("ascii") if not _UNSAFE.search(value) else None
        decoded = base64.b64decode(value[9:-2], validate=True)
        return decoded.decode() if base64.b64encode(decoded) == value[9:-2] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


_UNSAFE = re.compile(rb"[^\t -~]")

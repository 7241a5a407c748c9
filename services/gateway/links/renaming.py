"""What names a request beside its id, where several callers share a pipe: its progress token and, for a
`subscriptions/listen`, the subscription id in what it brings (pure). All names are raw JSON.
"""

import msgspec

from services.gateway import messages
from services.gateway.messages import Members

TOKEN = "progressToken"  # noqa: S105 (no secret: MCP, basic/utilities/progress)


def meta_of(part: bytes) -> Members:
    """The `_meta` of params or of a result; empty where there is none. Raises `NotAMessage`."""
    return messages.members(bytes(messages.members(part).get("_meta", b"")))


def renamed(raw: bytes, within: str, name: str, value: bytes) -> bytes:
    """The message `raw` with `_meta.<name>` of its `within` ("params" or "result") set to `value`."""
    part = bytes(messages.members(raw)[within])
    meta = messages.with_member(bytes(messages.members(part)["_meta"]), name, value)
    return messages.with_member(raw, within, messages.with_member(part, "_meta", meta))


def request_named(raw: bytes, params: bytes, name: bytes) -> tuple[bytes, bytes]:
    """A request with `name` for its id and, if it has one, its progress token, which is returned too."""
    token = bytes(meta_of(params).get(TOKEN, b""))
    if token:
        raw = renamed(raw, "params", TOKEN, name)
    return messages.with_id(raw, name), token


def progress_named(raw: bytes, params: bytes, token: bytes) -> bytes:
    """A progress notification with another token."""
    return messages.with_member(raw, "params", messages.with_member(params, TOKEN, token))


def number(raw: bytes | msgspec.Raw) -> int | None:
    """A name as we give them: an integer. None for any other."""
    text = bytes(raw)
    return int(text) if text.isdigit() and len(text) < 20 else None


def text(part: bytes, name: str) -> str:
    """The member `name` of an object, if it is a string; else empty. Raises `NotAMessage`."""
    return messages.text(messages.members(part).get(name))


def same(one: bytes, other: bytes) -> bool:
    """Whether two ids are the same, however they are written."""
    if one.startswith(b'"') and other.startswith(b'"'):
        return _string(one) == _string(other)
    return one == other


def _string(raw: bytes) -> str:
    try:
        return str(msgspec.json.decode(raw))
    except messages.UNREADABLE as error:
        raise messages.NotAMessage(str(error)) from error

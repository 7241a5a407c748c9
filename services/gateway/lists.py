"""What a caller may see of a result: lists without what the group may not use, and nothing for shared caches.

A result is cut apart and put together again as raw JSON, so that unknown fields, large integers and the
order of members arrive as the upstream wrote them.
"""

import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec

from libs.common.decision.ladder import MayUse
from services.gateway.decoding import decode, refuse_twice
from services.gateway.envelope import Envelope
from services.gateway.pins.shown import Shown, shown
from services.gateway.protocol import LISTS

# Cacheable too (MCP 2026-07-28, server/utilities/caching). Who may see these was decided at the request, so
# their lifetime is the upstream's to say.
_PERSONAL = {"resources/read", "server/discover"}
# What went through policy and a credential is one caller's view: nobody may share it.
_PRIVATE = msgspec.Raw(b'"private"')
_COMPLETE = msgspec.Raw(b'"complete"')
_ZERO = msgspec.Raw(b"0")
# A list should not be kept long: policy may change. Calls are decided whatever a client has cached.
MAX_TTL_MS = 5_000


_LISTS = {listed.member: listed for listed in LISTS.values()}  # by the member of a result that is the list
_RESULT, _KEYS = frozenset({"result"}), frozenset(_LISTS)
_NAMES = {each.named_by: frozenset({each.named_by}) for each in _LISTS.values()}
# To read a list takes up to a microsecond for each of its parts, in which nobody else is served.
MOST_PARTS = 400_000
# A key can be written with escapes.
_MAY_HOLD_LIST = re.compile(rb"tools|prompts|resource|\\u", re.IGNORECASE)


# Takes in the tools that a list shows, and tells the names that nobody should see.
Showed: TypeAlias = Callable[[Sequence[Shown]], Collection[str]]


class Unfilterable(Exception):
    """The answer cannot be understood, so nothing of it may be shown."""


_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


def is_filtered(envelope: Envelope) -> bool:
    """Whether the answer to this request is a list of what the caller may use."""
    return envelope.kind == "request" and envelope.method in LISTS


def is_personal(envelope: Envelope) -> bool:
    """Whether the answer to this request says how it may be cached, without being such a list."""
    return envelope.kind == "request" and envelope.modern and envelope.method in _PERSONAL


def may_hold_list(data: bytes) -> bool:
    """Whether `data`, of an answer to whatever request, is worth a look by `filter_lists`."""
    return _MAY_HOLD_LIST.search(data) is not None


def filter_lists(
    message: bytes, may_use: MayUse, showed: Showed | None = None, *, modern: bool = False
) -> bytes:
    """A JSON-RPC `message` without the entries of lists for which `may_use(kind, name)` is false.

    `showed` is told first which tools it lists.

    Messages that hold no list come back as they are, and lists of which nothing is left out, unless they are
    of the modern era (the request is, or the result has a field of it): these say how they may be cached.
    Raises `Unfilterable`.
    """
    return _each(message, partial(_filtered, may_use=may_use, showed=showed, modern=modern))


def as_private(message: bytes) -> bytes:
    """A JSON-RPC `message` of the modern era, its result for the caller's own cache only.

    Raises `Unfilterable`.
    """

    def private(one: bytes) -> bytes:
        outer, members = _parts(one)
        if members is None or not _is_cacheable(members):
            return one
        return _joined(outer, members | {"cacheScope": _PRIVATE, "ttlMs": members.get("ttlMs", _ZERO)})

    return _each(message, private)


def _each(message: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Apply `change` to a message, or to each of a batch (2025-03-26 lets servers answer with one)."""
    try:
        if not message.lstrip(b" \t\r\n").startswith(b"["):
            return change(message)
        given = [bytes(one) for one in _array(message)]
        kept = [change(one) for one in given]
        return message if kept == given else b"[" + b",".join(kept) + b"]"
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Unfilterable(str(error)) from error


def _parts(message: bytes) -> tuple[dict[str, msgspec.Raw], dict[str, msgspec.Raw] | None]:
    """The members of a message, and those of its result, if that is an object."""
    outer = _object(message)
    result = bytes(outer.get("result", b""))
    return outer, _object(result) if result.startswith(b"{") else None


def _joined(outer: dict[str, msgspec.Raw], members: dict[str, msgspec.Raw]) -> bytes:
    return _encode(outer | {"result": msgspec.Raw(_encode(members))})


def _filtered(message: bytes, may_use: MayUse, showed: Showed | None, modern: bool) -> bytes:
    decoded = _unambiguous(message) if may_hold_list(message) else {}
    if _LISTS.keys().isdisjoint(decoded):
        return message
    outer, members = _parts(message)
    assert members is not None
    changed = {
        key: _kept(key, members[key], decoded[key], may_use, showed) for key in _LISTS if key in members
    }
    modern = modern or not {"cacheScope", "ttlMs", "resultType"}.isdisjoint(members)
    if modern and _is_cacheable(members):
        changed |= {"cacheScope": _PRIVATE, "ttlMs": msgspec.Raw(b"%d" % _ttl(decoded.get("ttlMs")))}
    if all(members.get(key) == value for key, value in changed.items()):
        return message
    return _joined(outer, members | changed)


def _kept(key: str, raw: msgspec.Raw, decoded: Any, may_use: MayUse, showed: Showed | None) -> msgspec.Raw:
    """The list `raw` without what the caller may not use; itself if that is all of it."""
    listed = _LISTS[key]
    if not isinstance(decoded, list):
        raise Unfilterable(f'"{key}" is not a list')
    names, entries = [_name(entry, listed.named_by) for entry in decoded], _array(raw)
    hidden = showed(shown(entries, decoded)) if showed and listed.kind == "tool" else ()
    kept = [
        entry
        for entry, name in zip(entries, names, strict=True)
        if name not in hidden and may_use(listed.kind, name)
    ]
    return raw if len(kept) == len(entries) else msgspec.Raw(_encode(kept))


def _name(entry: Any, named_by: str) -> str:
    if not isinstance(entry, dict):
        raise Unfilterable("an entry is not an object")
    refuse_twice(entry, _NAMES[named_by])
    name = entry.get(named_by)
    if not isinstance(name, str):
        raise Unfilterable(f'an entry has no "{named_by}"')
    return name


def _is_cacheable(members: dict[str, msgspec.Raw]) -> bool:
    """Results that ask for input first carry no caching hints, and should not get any."""
    return members.get("resultType", _COMPLETE) == _COMPLETE or "cacheScope" in members


def _ttl(asked: object) -> int:
    return max(0, min(asked, MAX_TTL_MS)) if isinstance(asked, int) else 0


# -- keys that stand twice -------------------------------------------------------------------------


def _unambiguous(message: bytes) -> dict[str, Any]:
    """The result of `message`, decoded; empty if there is none that is an object.

    Raises `Unfilterable` or `Ambiguous` where readers could find one list or another in it.
    """
    if message.count(b",") + message.count(b"[") + message.count(b"{") > MOST_PARTS:
        raise Unfilterable(f"it has more than {MOST_PARTS} parts")
    outer = decode(message.decode())
    result = outer.get("result") if isinstance(outer, dict) else None
    if not isinstance(result, dict):
        result = {}
    for members, known in ((outer, _RESULT), (result, _KEYS)):
        if isinstance(members, dict):
            refuse_twice(members, known)
    return result

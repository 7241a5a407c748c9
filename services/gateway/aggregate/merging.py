"""One list out of many servers' lists."""

from dataclasses import dataclass, field

import msgspec

from services.gateway.aggregate.names import public_name, public_uri
from services.gateway.aggregate.rewriting import items, renamed
from services.gateway.messages import NotAMessage, members
from services.gateway.protocol import Listed

# How long a client may keep a merged list, in milliseconds. Not at all while a server is missing from it.
TTL_MS = 5_000
UNAVAILABLE = "io.lockgate/unavailable"  # in `_meta` of a list: server -> why its part is missing


@dataclass(slots=True)
class Part:
    """What one server contributes: its items, raw, with their own names; or why there are none."""

    server: str
    items: list[bytes] = field(default_factory=list)
    problem: str = ""


def merged(listing: Listed, parts: list[Part]) -> dict[str, object]:
    """The result for the caller, servers in the order of `parts`. A part that cannot be read is a problem."""
    shown: list[msgspec.Raw] = []
    problems: dict[str, str] = {}
    for part in parts:
        if part.problem:
            problems[part.server] = part.problem
            continue
        try:
            shown += [msgspec.Raw(_public(listing, part.server, item)) for item in part.items]
        except NotAMessage:
            problems[part.server] = "its list cannot be read"
    result: dict[str, object] = {
        "resultType": "complete",
        listing.member: shown,
        "ttlMs": 0 if problems else TTL_MS,
        "cacheScope": "private",
    }
    return result | {"_meta": {UNAVAILABLE: problems}} if problems else result


def page_of(result: bytes, listing: Listed) -> tuple[list[bytes], bytes]:
    """The items of one page, and the raw cursor of the next, empty on the last. Raises `NotAMessage`."""
    parts = members(result)
    cursor = bytes(parts.get("nextCursor", b""))
    return list(items(bytes(parts.get(listing.member, b"[]")))), b"" if cursor == b"null" else cursor


def _public(listing: Listed, server: str, item: bytes) -> bytes:
    """`item` of `server` with its public name. Raises `NotAMessage`."""
    new = public_uri if listing.named_by.startswith("uri") else public_name
    return renamed(item, listing.named_by, lambda name: new(server, name))

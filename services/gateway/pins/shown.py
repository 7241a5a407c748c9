"""The digests of the tools in a list. A digest covers all that a model reads, so it is made of every tool in
every list that passes; tools that were seen before, byte by byte, cost no more than a hash."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from libs.common.decision.pins import PINNED, canonical, digest
from services.gateway.decoding import decode, refuse_twice, refuse_twice_within

REMEMBERED = 50_000  # tools, each with its digest and the hash of its bytes

_MEMBERS = frozenset(PINNED)
_digests: OrderedDict[bytes, str] = OrderedDict()


class Shown(NamedTuple):
    """A tool as it stands in a list."""

    name: str
    digest: str
    entry: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Its canonical definition."""
        return canonical(self.entry)


def shown(raw: Sequence[msgspec.Raw], entries: Sequence[Mapping[str, Any]]) -> list[Shown]:
    """The tools of a list, given raw and as `decode` decodes them, each with a name.

    Raises `Ambiguous` for a definition that readers could understand in two ways, and `TooDeep`. Not for
    threads.
    """
    return [
        Shown(entry["name"], _remembered(bytes(each), entry), entry)
        for each, entry in zip(raw, entries, strict=True)
    ]


def shown_in(array: bytes) -> list[Shown]:
    """The same of a list as it came, for any thread; entries without a name are left out.

    Raises `ValueError` too.
    """
    entries = decode(array.decode())
    named = (entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str))
    return [Shown(entry["name"], _digest(entry), entry) for entry in named]


def _remembered(raw: bytes, entry: Mapping[str, Any]) -> str:
    key = hashlib.sha256(raw).digest()
    if known := _digests.get(key):
        _digests.move_to_end(key)
        return known
    _digests[key] = made = _digest(entry)
    if len(_digests) > REMEMBERED:
        _digests.popitem(last=False)
    return made


def _digest(entry: Mapping[str, Any]) -> str:
    refuse_twice(entry, _MEMBERS)
    refuse_twice_within([entry.get(member) for member in PINNED])
    return digest(canonical(entry))

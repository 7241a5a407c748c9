"""JSON of upstreams, decoded so that what readers could understand in two ways is noticed."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

DEEPEST = 128


class Ambiguous(ValueError):
    """A key stands twice in an object, at least for some readers."""

    def __init__(self) -> None:
        super().__init__("a key stands twice in an object")


class TooDeep(ValueError):
    """Objects and lists stand in each other more than `DEEPEST` times."""

    def __init__(self) -> None:
        super().__init__(f"it is nested more than {DEEPEST} times")


class _Repeated(dict[str, Any]):
    """A JSON object in which a key stands twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    return decoded if len(decoded) == len(pairs) else _Repeated(decoded)


_marking = json.JSONDecoder(object_pairs_hook=_pairs)


def decode(text: str) -> Any:
    """The JSON `text`, for the two functions below. Raises `ValueError` and `RecursionError`."""
    return _marking.decode(text)


def refuse_twice(members: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raise `Ambiguous` unless `known` keys stand once, also for readers to whom `Tools` is `tools`."""
    folded = _folded(known)
    if isinstance(members, _Repeated) or any(
        key not in known and key.casefold() in folded for key in members
    ):
        raise Ambiguous


def refuse_twice_within(value: Any, depth: int = 0) -> None:
    """Raise `Ambiguous` if a key stands twice in any object of `value`, or `TooDeep`."""
    if isinstance(value, _Repeated):
        raise Ambiguous
    if depth > DEEPEST:
        raise TooDeep
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        refuse_twice_within(inner, depth + 1)


@lru_cache(16)
def _folded(known: frozenset[str]) -> frozenset[str]:
    return frozenset(key.casefold() for key in known)

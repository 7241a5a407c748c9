"""Two definitions of a tool side by side, for people (pure)."""

import json
import re
import unicodedata
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any, NamedTuple

MOST = 500  # differences; who changes more has made another tool
MOST_LINES = 400  # of a text that is compared line by line

# Letters of other scripts are for people; these are not, or are not what they seem. The last ones are letters
# and marks that have no shape.
_SENTENCE = re.compile(r"\n|(?<=[.!?;]) ")
_UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
_SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)


class Difference(NamedTuple):
    """A place (RFC 6901) at which the two differ; `None` where there is nothing. `lines` is set for texts:
    what went begins with "- ", what came with "+ ", what stayed with two spaces."""

    path: str
    before: str | None
    after: str | None
    lines: list[str]


def differences(before: str, after: str) -> list[Difference]:
    """What differs between two canonical definitions, at most `MOST`. Empty ones are absent.

    All is written so that what cannot be seen, or looks like an ASCII letter in a name, can be told apart.
    """
    old, new = (dict(_leaves(json.loads(text))) if text else {} for text in (before, after))
    paths = [path for path in dict.fromkeys([*old, *new]) if old.get(path) != new.get(path)]
    return [_difference(path, old.get(path), new.get(path)) for path in paths[:MOST]]


def readable(text: str) -> str:
    """A canonical definition with line breaks and indentation, still JSON."""
    return visible(json.dumps(json.loads(text), indent=2, ensure_ascii=False)) if text else ""


def visible(text: str, *, name: bool = False) -> str:
    """`text` with an escape of JSON for each character that cannot be seen; in a `name` for all outside
    ASCII."""
    return "".join(
        _escaped(char) if (name and not char.isascii()) or _is_unseen(char) else char for char in text
    )


def _leaves(value: Any) -> Iterator[tuple[str, "_Leaf"]]:
    """What is no object or list, or is an empty one, with its place. Without recursion: some are deep."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, value = waiting.pop()
        inner = _inner(value)
        if not inner:
            yield path, _Leaf(type(value).__name__, value)
        waiting += [(f"{path}/{_token(key)}", item) for key, item in reversed(inner)]


class _Leaf(NamedTuple):
    """`kind` tells `1` from `true`, which Python does not."""

    kind: str
    value: Any


def _inner(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _token(key: str | int) -> str:
    return visible(str(key), name=True).replace("~", "~0").replace("/", "~1")


def _difference(path: str, old: _Leaf | None, new: _Leaf | None) -> Difference:
    present = [leaf.value for leaf in (old, new) if leaf]
    if not all(isinstance(value, str) for value in present):
        return Difference(path, old and _json(old.value), new and _json(new.value), [])
    before, after = (_written(leaf.value) if leaf else None for leaf in (old, new))
    return Difference(path, before, after, _lines(before or "", after or ""))


def _written(text: str) -> str:
    """`text` so that an escape in it is told from a character that is escaped here."""
    return visible(text.replace("\\u", "\\\\u"))


def _json(value: Any) -> str:
    return visible(json.dumps(value, ensure_ascii=False))


def _lines(before: str, after: str) -> list[str]:
    """Line by line, and within long ones sentence by sentence; nothing of texts too long for that."""
    old, new = _SENTENCE.split(before), _SENTENCE.split(after)
    if max(len(old), len(new)) > MOST_LINES:
        return []
    found: list[str] = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            found += [f"  {line}" for line in old[i:j]]
        else:
            found += [f"- {line}" for line in old[i:j]] + [f"+ {line}" for line in new[k:m]]
    return found


def _is_unseen(char: str) -> bool:
    return char not in " \n" and (unicodedata.category(char) in _UNSEEN or bool(_SHAPELESS.match(char)))


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1]

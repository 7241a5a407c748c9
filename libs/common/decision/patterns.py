"""What the pattern of a `matches` costs (pure): the library compiles it anew at each evaluation.

What a pattern holds is compiled as often as it is counted: `\\w{1,64}` is 64 times `\\w`, a set of all the
letters of Unicode, and takes 20 milliseconds in which a gateway serves nobody.
"""

import re

# About how many microseconds each takes. Sets of Unicode are large, other sets and characters small.
_LETTERS, _DIGITS, _WIDE, _PLAIN = 350, 30, 8, 1
_SETS = dict.fromkeys("wWpP", _LETTERS) | dict.fromkeys("dD", _DIGITS) | dict.fromkeys("sS", _WIDE)
_BY_CASE = 3  # times as much where a flag is set: all that differs by case only is in it too

_PART = re.compile(
    r"""
    (?P<escape> \\ (?: [pPxuU] \{ [^}]* \} | [pP] . | . )? )
  | (?P<count>  \{ \s* (?P<least>\d+) \s* (?: , \s* (?P<most>\d*) \s* )? \} )
  | (?P<open>   \( (?: \? (?: P?<[^>]*> | [a-zA-Z-]*:? ) )? )
  | (?P<set>    \[ \^? \]? )
  | (?P<other>  . )
    """,
    re.VERBOSE | re.DOTALL,
)
_FLAG, _SPACED = re.compile(r"\(\?[a-zA-Z]"), re.compile(r"\(\?[a-zA-Z]*x")


def cost(pattern: str) -> float:
    """About how long it takes to compile `pattern` (Rust's regex syntax), in microseconds; infinite where
    that cannot be told. Of what is no pattern, any number."""
    if _SPACED.search(pattern):  # white space and comments anywhere
        return float("inf")
    held, closing, last = [0], [""], 0  # by open bracket what it holds, and its end; the last part
    for part in _PART.finditer(pattern):
        text, kind, is_set = part[0], part.lastgroup, closing[-1] == "]"
        if kind == "set" or (kind == "open" and not is_set):
            held.append(_WIDE if kind == "set" else 0)
            closing.append("]" if kind == "set" else ")")
            continue
        if kind == "other" and text in "*+?" and not is_set:
            continue  # of the last part, as it is
        if kind == "count" and not is_set:
            held[-1] -= last
            last *= max(int(part["least"]), int(part["most"] or 0), 1)
        elif text == closing[-1]:
            closing.pop()
            last = held.pop()
        else:
            last = _weight(text)
        held[-1] += last
    return sum(held) * (_BY_CASE if _FLAG.search(pattern) else 1)


def _weight(text: str) -> int:
    if text.startswith("\\"):
        return _SETS.get(text[1:2], _PLAIN)
    return _WIDE if text == "." else len(text) * _PLAIN

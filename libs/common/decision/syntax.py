"""The words of a CEL expression, and where they stand (cel-spec, "Syntax"). For expressions that compile."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_WORD = re.compile(
    r"""
    (?P<space>    \s+ | //[^\n]* )
  | (?P<string>   (?: [bB]?[rR] | [rR][bB] ) (?: '{3} .*? '{3} | "{3} .*? "{3} | '[^'\n]*' | "[^"\n]*" )
                | [bB]? (?: '{3} (?:\\.|.)*? '{3} | "{3} (?:\\.|.)*? "{3}
                          | ' (?:\\.|[^'\\\n])* ' | " (?:\\.|[^"\\\n])* " ) )
  | (?P<other>    0[xX][0-9a-fA-F]+[uU]? | \d+(?:\.\d+)?(?:[eE][+-]?\d+)?[uU]? | [A-Za-z_]\w* | . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


class Token(NamedTuple):
    """`start` counts characters from 0. A string keeps its quotes."""

    text: str
    start: int
    is_string: bool


def tokens(source: str) -> Iterator[Token]:
    """The words of `source` in order, without white space and comments."""
    for found in _WORD.finditer(source):
        if found.lastgroup != "space":
            yield Token(found[0], found.start(), found.lastgroup == "string")

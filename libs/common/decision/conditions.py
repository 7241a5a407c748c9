"""Conditions of rules: CEL over a fixed set of variables, checked before they are run.

What is checked is what fails at every call otherwise (a misspelt name), and what makes a caller's arguments
expensive: conditions run on the event loop of gateways. Loops (`all`, `exists`, `map`…) may be two deep, and
the deeper, the smaller the arguments that a condition sees (arguments.py); patterns of `matches` are literal,
and what it takes to compile them is bounded (patterns.py).

The language is that of cel-spec, "List of Standard Definitions", as far as the library has it. Functions of
time take a zone of the IANA database (`now.getHours("Europe/Berlin")`) as there.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import cel

from libs.common.decision import zones
from libs.common.decision.patterns import cost
from libs.common.decision.syntax import Token, tokens
from libs.common.errors import BadRequest

LENGTH = 2000  # characters
NESTING = 2  # loops in loops
PATTERNS = 10_000  # microseconds that all patterns of a condition may take, each time they are looked for
IN_LOOPS = 10  # times as much as outside

# Each variable with its fields; None where they are not known beforehand.
VARIABLES: dict[str, tuple[str, ...] | None] = {
    "user": ("id", "email", "name", "role"),
    "group": ("id", "name"),
    "client": ("id", "name"),
    "server": ("slug", "name"),
    "method": (),
    "kind": (),
    "name": (),
    "tool": (),
    "arguments": None,
    "now": (),
}
LOOPS = ("all", "exists", "exists_one", "existsOne", "map", "filter")
MACROS = ("has", *LOOPS)
ZONED = tuple(zones.FUNCTIONS)
METHODS = ("contains", "endsWith", "matches", "size", "startsWith", *ZONED)
FUNCTIONS = ("bytes", "double", "duration", "dyn", "int", "size", "string", "timestamp", "type", "uint")

_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


class InvalidCondition(BadRequest):
    """The condition cannot be used. `line` and `column` count from 1, `position` from 0, in characters."""

    type, title = "invalid-condition", "The condition cannot be used as it is"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was checked. `nesting`: how deep its loops are in each other; a pattern in one is like
    another."""

    program: Any
    variables: frozenset[str]
    nesting: int

    def reads(self, variable: str) -> bool:
        return variable in self.variables


@lru_cache(4096)
def condition(source: str) -> Condition:
    """The condition in `source`, compiled. Raises `InvalidCondition`."""
    if len(source) > LENGTH:
        _refuse(source, LENGTH, f"a condition has at most {LENGTH} characters")
    program = _compile(source)
    found = list(tokens(source))
    _check_names(source, found, program)
    for call in _calls(found, ZONED):
        _check_zone(source, found, call)
    depths = _depths(source, found)
    _check_lists(source, found)
    nesting = max(*depths, _check_patterns(source, found, depths))
    return Condition(program, frozenset(program.variables()) & VARIABLES.keys(), nesting)


def _refuse(source: str, position: int, problem: str) -> NoReturn:
    before = source[:position]
    line, column = before.count("\n") + 1, position - before.rfind("\n")
    raise InvalidCondition(
        f"line {line}, column {column}: {problem}", line=line, column=column, position=position
    )


def _compile(source: str) -> Any:
    try:
        return cel.compile(source)
    except ValueError as error:
        told = str(error).removeprefix(f"Failed to parse expression '{source}': ")
        place = _PLACE.match(told)
        if place is None:
            _refuse(source, 0, told[:200])
        line, column, problem = int(place[1]), int(place[2]), place[3]
        start = sum(len(text) + 1 for text in source.split("\n")[: line - 1])
        _refuse(source, min(start + column - 1, len(source)), problem.removeprefix("Syntax error: ")[:200])


# -- names -----------------------------------------------------------------------------------------


def _check_names(source: str, found: Sequence[Token], program: Any) -> None:
    """Whether all variables, fields and functions are known."""
    bound = _bound(found)
    unknown = set(program.variables()) - VARIABLES.keys() - bound
    strange = {name for name in program.functions() if name.isidentifier()} - {*METHODS, *FUNCTIONS}
    for i, token in enumerate(found):
        is_member = _text(found, i - 1) == "."
        if token.text.isidentifier() and _text(found, i + 1) == "(":
            _check_call(source, token, is_member, strange)
        elif not is_member and token.text in unknown:
            known = ", ".join(VARIABLES)
            _refuse(source, token.start, f"there is no variable {token.text!r}; there are {known}")
        elif not is_member and token.text in VARIABLES.keys() - bound and _text(found, i + 1) == ".":
            _check_field(source, found, i)
    if unknown or strange:
        _refuse(source, 0, f"unknown here: {', '.join(sorted(unknown | strange))}")


def _check_call(source: str, token: Token, is_member: bool, strange: set[str]) -> None:
    """Whether there is such a function, called as it is here."""
    name = token.text
    if name in strange & {*MACROS}:
        _refuse(source, token.start, f"{name}() does not take these")
    if name in strange:
        known = ", ".join(sorted({*METHODS, *FUNCTIONS, *MACROS}))
        _refuse(source, token.start, f"there is no function {name}() here; there are {known}")
    if is_member and name in FUNCTIONS and name not in METHODS:
        _refuse(source, token.start, f"{name}() has what it is for in its brackets: {name}(…)")
    if not is_member and name in METHODS and name not in FUNCTIONS:
        _refuse(source, token.start, f"{name}() is called on what it is for: ….{name}(…)")


def _check_field(source: str, found: Sequence[Token], variable: int) -> None:
    """`variable . field`; methods are no fields."""
    fields, field = VARIABLES[found[variable].text], variable + 2
    if fields is None or field >= len(found) or _text(found, field + 1) == "(":
        return
    if found[field].text not in fields:
        known = f"it has {', '.join(fields)}" if fields else "it has no fields"
        name = f"{found[variable].text}.{found[field].text}"
        _refuse(source, found[field].start, f"there is no {name}; {known}")


def _bound(found: Sequence[Token]) -> set[str]:
    """The names that loops give to what they go through."""
    return {_text(found, first) for first in _calls(found, LOOPS)}


# -- cost ------------------------------------------------------------------------------------------


def _depths(source: str, found: Sequence[Token]) -> list[int]:
    """In how many loops each word stands."""
    opened: list[bool] = []  # of each open bracket, whether it is that of a loop
    depths: list[int] = []
    loops = {first - 1 for first in _calls(found, LOOPS)}
    for i, token in enumerate(found):
        if token.text == "(":
            opened.append(i in loops)
        elif token.text == ")" and opened:
            opened.pop()
        depths.append(sum(opened))
        if depths[-1] > NESTING:
            _refuse(source, token.start, f"loops may be {NESTING} deep in each other, and not more")
    return depths


def _check_patterns(source: str, found: Sequence[Token], depths: Sequence[int]) -> int:
    """Whether the patterns are literal and take no time. Returns how deep those in loops are, as loops."""
    spent, deepest = 0.0, 0
    for first in _calls(found, ("matches",)):
        start = found[first].start
        if not _is_literal(found, first):
            _refuse(source, start, "the pattern of matches() must stand there as one text")
        if depths[first] >= NESTING:
            _refuse(source, start, "matches() may stand in a loop, but not in loops in loops")
        if depths[first]:
            deepest = depths[first] + 1
        spent += cost(str(cel.compile(found[first].text).execute())) * (IN_LOOPS if depths[first] else 1)
        if spent > PATTERNS:
            advice = r"large sets that are counted, such as \w{1,64}, take long: [a-z0-9_]{1,64} does not"
            _refuse(source, start, f"it takes too long to look for this pattern; {advice}")
    return deepest


def _check_lists(source: str, found: Sequence[Token]) -> None:
    """The library copies the list that map() makes with each element: there must be nothing large in it."""
    for first in _calls(found, ("map",)):
        open_brackets = 1
        for i in range(first, len(found)):
            open_brackets += {"(": 1, ")": -1}.get(found[i].text, 0)
            if not open_brackets:
                break
            if found[i].text == "arguments" and _text(found, i - 1) != ".":
                problem = "map() takes no arguments but what it goes through; use exists()"
                _refuse(source, found[i].start, problem)


def _check_zone(source: str, found: Sequence[Token], first: int) -> None:
    """Zones may be computed; one that stands there has to exist."""
    token = found[first]
    if not _is_literal(found, first) or token.text[0] not in "'\"":
        return
    try:
        zones.zone(token.text.strip("'\""))
    except ValueError as error:
        _refuse(source, token.start, str(error))


def _calls(found: Sequence[Token], names: Sequence[str]) -> Iterator[int]:
    """Where the first arguments of the methods called `names` begin."""
    for i in range(len(found) - 3):
        if found[i].text == "." and found[i + 1].text in names and found[i + 2].text == "(":
            yield i + 3


def _is_literal(found: Sequence[Token], i: int) -> bool:
    return found[i].is_string and _text(found, i + 1) in {")", ","}


def _text(found: Sequence[Token], i: int) -> str:
    return found[i].text if 0 <= i < len(found) else ""

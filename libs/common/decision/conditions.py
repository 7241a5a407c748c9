"""Conditions of rules: CEL over a fixed set of variables, checked before they are run.

What is checked is what fails at every call otherwise (a misspelt name), and what makes a caller's arguments
expensive: conditions run on the event loop of gateways. Loops (`all`, `exists`, `map`…) may be two deep, and
the deeper, the smaller the arguments that a condition sees (arguments.py); patterns of `matches` are literal.

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
from libs.common.decision.syntax import Token, tokens
from libs.common.errors import BadRequest

LENGTH = 2000  # characters
NESTING = 2  # loops in loops

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
    """A condition that was checked. `nesting`: how deep its loops are in each other."""

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
    for pattern in _calls(found, ("matches",)):
        if not _is_literal(found, pattern):
            _refuse(source, found[pattern].start, "the pattern of matches() must stand there as one text")
    for call in _calls(found, ZONED):
        _check_zone(source, found, call)
    nesting = _nesting(source, found)
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


def _nesting(source: str, found: Sequence[Token]) -> int:
    opened: list[bool] = []  # of each open bracket, whether it is that of a loop
    deepest = 0
    loops = {first - 1 for first in _calls(found, LOOPS)}
    for i, token in enumerate(found):
        if token.text == "(":
            opened.append(i in loops)
            deepest = max(deepest, sum(opened))
            if deepest > NESTING:
                _refuse(source, token.start, f"loops may be {NESTING} deep in each other, and not more")
        elif token.text == ")" and opened:
            opened.pop()
    return deepest


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

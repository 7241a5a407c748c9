"""Conditions as they are checked when a rule is saved: what is refused, and where the mistake stands."""

import threading

import pytest

from libs.common.decision.conditions import LENGTH, InvalidCondition, condition
from libs.common.decision.patterns import cost

MISTAKES: dict[str, tuple[str, str]] = {
    # name: the condition with ⟨ where the mistake is, and a part of the message
    "an end too early": ("tool == ⟨", "mismatched input"),
    "in the second line": ("tool == 'x' &&\n  foo(⟨", "mismatched input"),
    "behind letters that are more than a byte": ("'äö😀' == tool ⟨@ x", "token recognition error"),
    "an empty condition of white space": ("  ⟨", "mismatched input"),
    "a variable that is none": ("tool == 'tol' || ⟨tol == 'x'", "no variable 'tol'"),
    "a field that is none": ("user.name == 'x' && user.⟨mail == 'y'", "no user.mail"),
    "a field of a text": ("tool.⟨name == 'x'", "no tool.name"),
    "a function that is none": ("tool.⟨lower() == 'x'", "no function lower()"),
    "a method called as a function": ("⟨contains(tool, 'x')", "called on what it is for"),
    "a function called as a method": ("arguments.x.⟨int() == 1", "brackets"),
    "a loop without its body": ("[1].⟨map(x) == [1]", "does not take these"),
    "optional syntax": ("arguments⟨.?x.orValue(1) == 1", "unsupported syntax"),
    "a pattern that the caller gives": ("tool.matches(⟨arguments.pattern)", "as one text"),
    "a pattern that the caller completes": ("tool.matches(⟨'a' + arguments.pattern)", "as one text"),
    "a zone that is none": ("now.getHours(⟨'Europe/Berlln') > 8", "no time zone 'Europe/Berlln'"),
    "a pattern that takes tens of milliseconds": ("arguments.x.matches(⟨r'^\\w{1,64}$')", "too long"),
    "one that is written with escapes": ("arguments.x.matches(⟨'^\\\\w{1,64}$')", "too long"),
    "several that take as much together": (
        "arguments.x.matches(r'^\\w{20}$') && arguments.x.matches(⟨r'^\\w{20}$')",
        "too long",
    ),
    "one that does so in a loop": ("arguments.to.all(x, x.matches(⟨r'^\\w{1,3}$'))", "too long"),
    "a pattern in loops in loops": ("arguments.a.all(x, x.all(y, y.matches(⟨'a')))", "in loops in loops"),
    "a list of large things": ("arguments.a.map(x, ⟨arguments.a).size() > 3", "goes through"),
    "one that is made in a loop": ("arguments.a.all(x, x.map(y, [⟨arguments.a]) == [])", "goes through"),
    "loops too deep": (
        "arguments.a.all(x, x.all(y, y.all⟨(z, z == 1)))",
        "2 deep",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place(name: str) -> None:
    marked, message = MISTAKES[name]
    position, source = marked.index("⟨"), marked.replace("⟨", "")
    with pytest.raises(InvalidCondition, match="line") as caught:
        condition(source)
    before = source[:position].split("\n")
    assert caught.value.extra == {"line": len(before), "column": len(before[-1]) + 1, "position": position}
    assert message in caught.value.detail


@pytest.mark.parametrize(
    ("source", "nesting"),
    [
        ("tool == 'x'", 0),
        ("tool in ['a', 'b'] && !(name in [])", 0),
        ("arguments.to.all(a, a.endsWith('@x.example'))", 1),
        ("arguments.a.filter(x, x > 1).map(y, y * 2).exists(z, z == 4)", 1),
        ("arguments.a.all(x, x.b.exists(y, y == 1)) && arguments.c.all(x, x == 1)", 2),
        ("has(arguments.a) && size(arguments.a) > 2 && arguments.a.size() > 2", 0),
        (r"""tool == 'x.all(a, b.all(' && r'\' == tool && "\"x.map(" != tool // .all(a, .all(""", 0),
        ("arguments.path.matches(r'^/srv/(a|b)/') && now.getDayOfWeek('Europe/Berlin') in [0, 6]", 0),
        ("[1].all(user, user > 0) && timestamp('2026-01-01T00:00:00Z') < now", 1),
        ("tool.\n  startsWith('x')", 0),
        (r"arguments.to.all(x, x.matches('^[a-z0-9._%+-]+@example[.]com$'))", 2),
        (r"arguments.x.matches(r'^[\w.-]{1,20}$') && arguments.a.all(x, x == 1)", 1),
        ("arguments.a.map(x, x.arguments).all(y, y == arguments.b)", 1),
    ],
)
def test_what_is_right_passes_and_its_loops_are_counted(source: str, nesting: int) -> None:
    assert condition(source).nesting == nesting


@pytest.mark.parametrize(
    ("pattern", "counted"),
    [
        (r"\w{1,64}", 64),
        (r"\w{64}", 64),
        (r"\w{64,}?", 64),
        (r"(?:a|\w){8}{8}", 64),
        (r"(\w){64}", 64),
        (r"(?<n>(\w{2}){32})", 64),
        (r"[)\w]{64}", 64),
        (r"[(\w]{64}", 64),
        (r"[]\w]{64}", 64),
        (r"[^]\w]{64}", 64),
        (r"[\]\w]{64}", 64),
        (r"[a[\w]]{64}", 64),
        (r"\pL{64}", 64),
        (r"\P{Greek}{64}", 64),
        (r"\w" * 64, 64),
        (r"\w+", 1),
        (r"\\w{64}", 0),
        (r"[a-z0-9_]{1,64}", 0),
    ],
)
def test_a_pattern_costs_what_it_counts(pattern: str, counted: int) -> None:
    assert 350 * counted <= cost(pattern) <= 350 * counted + 3000


def test_a_pattern_that_is_written_with_spaces_cannot_be_told() -> None:
    assert cost(r"(?ix)\w {64}") == float("inf")


def test_the_variables_of_a_condition_are_those_that_it_reads() -> None:
    source = "user.role == 'admin' && arguments.a.all(x, x == 'now') && tool == 'client'"
    assert condition(source).variables == {"user", "arguments", "tool"}


def test_a_condition_has_a_longest_length() -> None:
    padding = " " * (LENGTH - len("true"))
    assert condition("true" + padding).nesting == 0
    with pytest.raises(InvalidCondition, match=str(LENGTH)):
        condition("true" + padding + " ")


@pytest.mark.parametrize(
    ("opening", "inside", "closing"),
    [
        ("[", "", "]"),
        ("(", "true", ")"),
        ("!", "true", ""),
        ("-", "1", ""),
        ("", "arguments", ".a"),
        ("", "arguments", "[0]"),
        ("1+", "1", ""),
        ('{"a":', "1", "}"),
        ("true?1:", "1", ""),
        ("size(", "1", ")"),
    ],
)
def test_the_deepest_condition_of_that_length_does_not_end_the_process(
    opening: str, inside: str, closing: str
) -> None:
    """Also not in a thread, which has less of a stack."""
    times = (LENGTH - len(inside)) // len(opening + closing)
    source = opening * times + inside + closing * times
    answers: list[object] = []

    def check() -> None:
        try:
            answers.append(condition(source).nesting)
        except InvalidCondition as error:
            answers.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert len(answers) == 1

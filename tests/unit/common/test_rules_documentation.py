"""What docs/rules.md says of conditions is so."""

import re
from pathlib import Path

import pytest

from libs.common.decision import arguments, conditions

TEXT = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
EXAMPLES = [line for block in re.findall(r"```cel\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_is_a_condition(example: str) -> None:
    conditions.condition(example)


def test_every_variable_field_and_function_is_named() -> None:
    names = {*conditions.VARIABLES, *conditions.METHODS, *conditions.FUNCTIONS, *conditions.MACROS} - {
        "existsOne"
    }
    names |= {field for fields in conditions.VARIABLES.values() for field in fields or ()}
    assert {name for name in names if f"`{name}`" not in TEXT} == set()


def test_the_limits_are_those_of_the_code() -> None:
    limits = [conditions.LENGTH, arguments.DEPTH]
    limits += [number for most in arguments.MOST for number in (most.values, most.characters)]
    assert {limit for limit in limits if f"{limit:,}" not in TEXT} == set()

"""How large a call's arguments are, and whether conditions can see them as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEPTH = 64  # lists and objects in each other: CEL converts them by recursion
INT64, UINT64 = -(2**63), 2**64  # CEL has signed and unsigned integers of 64 bits


@dataclass(frozen=True, slots=True)
class Extent:
    """`values` counts members, elements and what they hold, `characters` those of all texts and names."""

    values: int
    characters: int

    def within(self, most: "Extent") -> bool:
        return self.values <= most.values and self.characters <= most.characters


# The most that a condition sees, by how deep its loops are in each other: 10 to 100 ms at the worst.
MOST = (Extent(10_000, 1_048_576), Extent(1_000, 262_144), Extent(100, 65_536))


class Unfit(Exception):
    """Conditions cannot see these arguments as they are; the message says why."""


def measure(arguments: Mapping[str, Any]) -> Extent:
    """The extent of decoded JSON. Raises `Unfit` where CEL would see something else, or cannot see it."""
    values = characters = 0
    level: list[Any] = [arguments]
    for _ in range(DEPTH):
        below: list[Any] = []
        for value in level:
            values += 1
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, Mapping):
                characters += sum(map(len, value))
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, int) and not INT64 <= value < UINT64:
                raise Unfit("the arguments hold an integer of more than 64 bits")
        if not Extent(values + len(below), characters).within(MOST[0]):
            raise Unfit("the arguments are too large for a condition")
        if not below:
            return Extent(values, characters)
        level = below
    raise Unfit(f"the arguments hold lists and objects more than {DEPTH} deep in each other")

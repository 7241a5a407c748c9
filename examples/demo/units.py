"""Units of measure that `convert` knows, each as a factor and an offset to the base unit of its dimension."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """`value` in this unit is `value * factor + offset` in the base unit of `dimension`."""

    dimension: str
    factor: float
    offset: float = 0.0


UNITS = {
    "mm": Unit("length", 0.001),
    "cm": Unit("length", 0.01),
    "m": Unit("length", 1.0),
    "km": Unit("length", 1000.0),
    "in": Unit("length", 0.0254),
    "ft": Unit("length", 0.3048),
    "yd": Unit("length", 0.9144),
    "mi": Unit("length", 1609.344),
    "g": Unit("mass", 0.001),
    "kg": Unit("mass", 1.0),
    "oz": Unit("mass", 0.028349523125),
    "lb": Unit("mass", 0.45359237),
    "ml": Unit("volume", 0.001),
    "l": Unit("volume", 1.0),
    "gal": Unit("volume", 3.785411784),
    "c": Unit("temperature", 1.0, 273.15),
    "f": Unit("temperature", 5 / 9, 459.67 * 5 / 9),
    "k": Unit("temperature", 1.0),
}


def convert(value: float, source: str, target: str) -> float:
    """`value` of unit `source` in unit `target`. Raises `ValueError` with what is wrong and what is known."""
    first, second = _unit(source), _unit(target)
    if first.dimension != second.dimension:
        raise ValueError(f"{source} is a {first.dimension}, {target} a {second.dimension}: no way to convert")
    return (value * first.factor + first.offset - second.offset) / second.factor


def _unit(name: str) -> Unit:
    try:
        return UNITS[name.strip().lower()]
    except KeyError:
        raise ValueError(f"unknown unit {name!r}; known are {', '.join(UNITS)}") from None

"""Functions of time in a zone, as conditions call them (cel-spec, "List of Standard Definitions").

The library has those without a zone (UTC); these stand in where one is named.
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_OFFSET = re.compile(r"([+-]?)(\d\d):(\d\d)")


def zone(name: str) -> tzinfo:
    """The zone of that name in the IANA database, or that far from UTC ("+02:00"). Raises `ValueError`."""
    if offset := _OFFSET.fullmatch(name):
        distance = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(-distance if offset[1] == "-" else distance)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name[:60]!r}; one is Europe/Berlin") from None


# Months, days of the month and of the year count from 0, but for getDate; Sunday is 0.
_PARTS: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda at: at.year,
    "getMonth": lambda at: at.month - 1,
    "getDate": lambda at: at.day,
    "getDayOfMonth": lambda at: at.day - 1,
    "getDayOfWeek": lambda at: at.isoweekday() % 7,
    "getDayOfYear": lambda at: at.timetuple().tm_yday - 1,
    "getHours": lambda at: at.hour,
    "getMinutes": lambda at: at.minute,
    "getSeconds": lambda at: at.second,
    "getMilliseconds": lambda at: at.microsecond // 1000,
}


# CEL cannot take it for a value, so the condition fails. It would if we raised, too, but the library logs
# that, with what the caller sent.
_FAILED = object()


def _zoned(part: Callable[[datetime], int]) -> Callable[..., object]:
    def function(*given: object) -> object:
        match given:
            case (datetime() as at, str() as name):
                try:
                    return part(at.astimezone(zone(name)))
                except (ValueError, OverflowError):
                    return _FAILED
        return _FAILED

    return function


FUNCTIONS = {name: _zoned(part) for name, part in _PARTS.items()}

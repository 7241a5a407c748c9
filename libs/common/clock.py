"""The two clocks. Leases are measured on one that runs on while a machine is suspended."""

import time
from datetime import UTC, datetime

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds on a clock that never goes back and counts suspension too (CLOCK_BOOTTIME on Linux)."""
    return time.clock_gettime(_BOOTTIME)


def now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds, as the APIs and the records write it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

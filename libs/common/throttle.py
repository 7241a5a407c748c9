"""Bounds on what callers who have not proven who they are can bring about."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import structlog

from libs.common.clock import elapsed

log = structlog.get_logger(__name__)

KEYS = 10_000  # remembered at most; the ones whose window began first are forgotten first


def source_of(address: str) -> str:
    """What limits per address count by: an IPv4 address, or the /64 of an IPv6 one, all of which one machine
    has to itself. Text that is no address stands for itself."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return f"{IPv6Address(int(ip) >> 64 << 64)}/64"


@dataclass(slots=True)
class _Window:
    began: float
    events: int = 0


class EventBudget:
    """How many events are recorded of what anybody can cause: `limit` per key and `window` (seconds), and
    `total` per window of all keys together. Further ones are only counted.

    That there were more, and how many, is logged under `name`; without a name nothing is.
    """

    def __init__(
        self,
        limit: int,
        window: float = 60.0,
        *,
        total: int = 1000,
        name: str = "",
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._limit, self._total, self._seconds = limit, total, window
        self._name, self._clock = name, clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._all = _Window(clock())

    def spend(self, key: str) -> bool:
        """Whether this event of `key` is within the budget."""
        mine, everybody = self._window(key), self._everybody()
        mine.events += 1
        if mine.events > self._limit:
            self._say_once(mine.events - self._limit, key)
            return False
        everybody.events += 1
        if everybody.events > self._total:
            self._say_once(everybody.events - self._total, "all")
            return False
        return True

    def _window(self, key: str) -> _Window:
        """The running window of `key`; a new one when there was none or it is over."""
        window = self._windows.get(key)
        if window is None or self._over(window):
            if window:
                self._report(window, self._limit, key)
                del self._windows[key]
            window = self._windows[key] = _Window(self._clock())
            if len(self._windows) > KEYS:
                forgotten, old = self._windows.popitem(last=False)
                self._report(old, self._limit, forgotten)
        return window

    def _everybody(self) -> _Window:
        if self._over(self._all):
            self._report(self._all, self._total, "all")
            self._all = _Window(self._clock())
        return self._all

    def _over(self, window: _Window) -> bool:
        return self._clock() - window.began >= self._seconds

    def _say_once(self, beyond: int, key: str) -> None:
        if self._name and beyond == 1:
            log.warning("events_no_longer_recorded", events=self._name, source=key, seconds=self._seconds)

    def _report(self, window: _Window, limit: int, key: str) -> None:
        if self._name and window.events > limit:
            log.warning("events_not_recorded", events=self._name, source=key, count=window.events - limit)

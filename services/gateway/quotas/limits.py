"""Which limits a call is counted against (pure)."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from libs.common.control.entries import Quota
from libs.common.requests import QuotaWindow

SECONDS: dict[QuotaWindow, int] = {"minute": 60, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Use:
    """One call of a tool, as quotas see it: four ids or names, the group's empty where there is none.

    `known`: the control log names the tool. Those that it does not are counted together where each tool has
    a count for itself: callers can make up names without end, and each count is kept for a day.
    """

    user: str
    group: str
    server: str
    tool: str
    known: bool = True


@dataclass(frozen=True, slots=True)
class Limit:
    """So many calls may be made in each `window`, aligned to UTC."""

    quota: Quota
    window: QuotaWindow
    calls: int

    @property
    def key(self) -> str:
        """The quota's key in the control log."""
        return f"quota.{self.quota.id}"


class Limits:
    """The quotas of the control log, found by whose calls they count."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self._of: dict[tuple[str, str], list[Limit]] = defaultdict(list)
        for quota in quotas.values():
            self._of[quota.of, quota.subject].extend(_limits(quota))

    def on(self, use: Use) -> Iterator[tuple[Limit, str]]:
        """The limits that a call is counted against, all of which must hold, and whose calls they count."""
        whose = {
            "user": use.user,
            "group": use.group,
            "server": use.server,
            "tool": f"{use.server}/{use.tool}",
        }
        for of, who in whose.items():
            for subject in ("", who) if who else ():
                counted = f"{use.server}/" if of == "tool" and not (subject or use.known) else who
                for limit in self._of.get((of, subject), ()):
                    if not limit.quota.servers or use.server in limit.quota.servers:
                        yield limit, counted


def _limits(quota: Quota) -> Iterator[Limit]:
    if quota.per_minute is not None:
        yield Limit(quota, "minute", quota.per_minute)
    if quota.per_day is not None:
        yield Limit(quota, "day", quota.per_day)


def began(window: QuotaWindow, moment: float) -> int:
    """When the window of `moment` began; both are Unix seconds."""
    return int(moment) // SECONDS[window] * SECONDS[window]


@lru_cache(16_384)
def count_of(quota: str, of: str, who: str) -> str:
    """What a quota's count of one's calls is called, within a window. `who` may hold any characters.

    It outlives a change of the quota's limits, and ends when other calls are counted.
    """
    return f"{quota}.{hashlib.sha256(f'{of} {who}'.encode()).hexdigest()[:32]}"

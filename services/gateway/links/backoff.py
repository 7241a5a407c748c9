"""How long a program that ended by itself is left alone before it is started again."""

from math import ceil

from libs.common.clock import elapsed
from services.gateway.connection import UpstreamFailed

FIRST, LONGEST = 0.5, 60.0  # seconds
STEADY = 10.0  # a process that lived so long is started again at once


class Backoff:
    """Of one program. Each failure doubles the pause."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._until = 0.0
        self._detail = ""

    @property
    def remaining(self) -> float:
        """Seconds until it may be started."""
        return max(0.0, self._until - elapsed())

    @property
    def forgotten(self) -> bool:
        """Whether it failed so long ago that it says nothing any more."""
        return elapsed() - self._until > 2 * LONGEST

    def check(self) -> None:
        """Raises `UpstreamFailed` while it is left alone."""
        if remaining := self.remaining:
            detail = f"{self._detail}; it is tried again in {ceil(remaining)} s"
            raise UpstreamFailed("upstream_unreachable", detail)

    def failed(self, detail: str, lived: float) -> None:
        """It could not be started, or ended after `lived` seconds."""
        if lived >= STEADY:
            self._pause = 0.0
            return
        self._pause = min(self._pause * 2 or FIRST, LONGEST)
        self._until, self._detail = elapsed() + self._pause, detail

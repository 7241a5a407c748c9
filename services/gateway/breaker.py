"""A circuit breaker: after several failures in a row it is open, and asks for a trial now and then (pure).

closed → (`THRESHOLD` failures in a row, none of them `WINDOW` seconds after the one before) → open
open → a trial after 1 s, then after 2, 4, … up to `LONGEST_DELAY` → (one success) → closed
"""

from collections.abc import Callable
from datetime import datetime

from libs.common.clock import elapsed, now

THRESHOLD = 5  # failures
WINDOW = 300.0  # seconds
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0


class Breaker:
    """Counts failures of one kind. Whoever guards something with it asks `open`, and reports each outcome."""

    def __init__(self, clock: Callable[[], float] = elapsed) -> None:
        self.failures = 0  # in a row
        self.since: datetime | None = None  # when the first of them was
        self.why = ""  # what the last of them said
        self._clock = clock
        self._last = 0.0
        self._delay = FIRST_DELAY
        self._next_trial = 0.0

    @property
    def open(self) -> bool:
        return self.failures >= THRESHOLD

    def failed(self, why: str) -> bool:
        """One more failure. Whether it has opened the breaker."""
        moment = self._clock()
        if not self.open and moment - self._last > WINDOW:
            self.failures = 0
        if not self.failures:
            self.since = now()
        self.failures += 1
        self.why, self._last = why, moment
        if self.failures != THRESHOLD:
            return False
        self._delay = FIRST_DELAY
        self._next_trial = moment + FIRST_DELAY
        return True

    def succeeded(self) -> bool:
        """It works. Whether this has closed the breaker."""
        was_open = self.open
        self.failures = 0
        return was_open

    def ease(self) -> None:
        """Close, because nobody has asked for long; the next failure opens it again."""
        self.failures = min(self.failures, THRESHOLD - 1)
        self._last = self._clock()

    @property
    def trial_in(self) -> float:
        """Seconds until a trial is due."""
        return max(0.0, self._next_trial - self._clock())

    def begin_trial(self) -> None:
        """A trial is under way; the next one is due later than this one was."""
        self._delay = min(2 * self._delay, LONGEST_DELAY)
        self._next_trial = self._clock() + self._delay

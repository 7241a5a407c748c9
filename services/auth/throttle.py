"""Throttling of guesses: so many failures per key and window, each process for itself."""

from collections import OrderedDict, deque
from collections.abc import Callable

from libs.common.clock import elapsed
from services.auth.domain import TooManyAttempts

KEYS = 50_000  # remembered at most; the ones used least lately are forgotten first


class Throttle:
    """An attempt counts from its beginning, so that parallel ones cannot pass together; one that succeeds is
    forgiven."""

    def __init__(self, limit: int, window: float, clock: Callable[[], float] = elapsed) -> None:
        self._limit, self._window, self._clock = limit, window, clock
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()

    def attempt(self, key: str) -> None:
        """Raises `TooManyAttempts`."""
        now = self._clock()
        times = self._attempts.setdefault(key, deque())
        self._attempts.move_to_end(key)
        while times and times[0] <= now - self._window:
            times.popleft()
        if len(times) >= self._limit:
            raise TooManyAttempts(max(1, round(times[0] + self._window - now)))
        times.append(now)
        if len(self._attempts) > KEYS:
            self._attempts.popitem(last=False)

    def forgive(self, key: str) -> None:
        """The last attempt was a good one."""
        times = self._attempts.get(key)
        if times:
            times.pop()


class LoginThrottle:
    """Failed logins: few for one account from one address, more for an address, more still for an account
    from anywhere, so that nobody can lock somebody else out with a handful of guesses."""

    WINDOW = 15 * 60.0

    def __init__(self, clock: Callable[[], float] = elapsed) -> None:
        self._pair = Throttle(8, self.WINDOW, clock)
        self._address = Throttle(40, self.WINDOW, clock)
        self._account = Throttle(100, self.WINDOW, clock)

    def attempt(self, account: str, address: str) -> None:
        """Raises `TooManyAttempts`."""
        self._pair.attempt(f"{account} {address}")
        self._address.attempt(address)
        self._account.attempt(account)

    def forgive(self, account: str, address: str) -> None:
        self._pair.forgive(f"{account} {address}")
        self._address.forgive(address)
        self._account.forgive(account)

"""Throttling of guesses: so many failures per key and window, each process for itself."""

from collections import OrderedDict, deque
from collections.abc import Callable

from libs.common.clock import elapsed
from libs.common.throttle import source_of
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
        self.check(key)
        self.count(key)

    def check(self, key: str, limit: int | None = None) -> None:
        """Raises `TooManyAttempts` when `key` has used up its limit, or a lower one for once."""
        limit, times = limit or self._limit, self._recent(key)
        if len(times) >= limit:
            raise TooManyAttempts(max(1, round(times[-limit] + self._window - self._clock())))

    def count(self, key: str) -> None:
        """Note an attempt. Those beyond the limit push out the oldest, so that memory is bounded."""
        self._attempts.setdefault(key, deque(maxlen=self._limit)).append(self._clock())
        self._attempts.move_to_end(key)
        if len(self._attempts) > KEYS:
            self._attempts.popitem(last=False)

    def used_up(self, key: str) -> bool:
        return len(self._recent(key)) >= self._limit

    def forgive(self, key: str) -> None:
        """The last attempt was a good one, or none at all."""
        times = self._attempts.get(key)
        if times:
            times.pop()
        if not times:
            self._attempts.pop(key, None)

    def _recent(self, key: str) -> deque[float]:
        times = self._attempts.get(key, deque())
        while times and times[0] <= self._clock() - self._window:
            times.popleft()
        return times


class LoginThrottle:
    """Which guesses at passwords are looked at. All numbers are failures in a quarter of an hour.

    * 8 for one account from one address: then that account is refused there.
    * 40 from one address, whatever the accounts: then it is suspect, and each account has 3 there instead
      of 8. The address itself is never refused. Behind a proxy that is not trusted to name its clients
      (`LOCKGATE_TRUSTED_PROXIES`) it is everybody's, and one guesser would lock out the organization. So a
      right password for an account without failures of its own is never throttled at any address, and who
      tries a few passwords on very many accounts gets 3 guesses at each.
    * 100 for one account from all addresses: then it is refused everywhere.
    * 8 from a device that has signed in to the account before (`services.auth.devices`). It is counted by
      itself and none of the above concerns it: whoever guesses elsewhere, or next to it behind the same
      address, cannot lock out somebody from the browser that they always use.

    `account` is what was typed. One that does not exist is treated like any other, so that no answer tells
    which do. How much work all this can cause is bounded by `services.auth.passwords`.
    """

    WINDOW = 15 * 60.0
    OF_A_SUSPECT_ADDRESS = 3

    def __init__(self, clock: Callable[[], float] = elapsed) -> None:
        self._pair = Throttle(8, self.WINDOW, clock)
        self._address = Throttle(40, self.WINDOW, clock)
        self._account = Throttle(100, self.WINDOW, clock)
        self._device = Throttle(8, self.WINDOW, clock)

    def attempt(self, account: str, address: str, device: str = "") -> None:
        """`device` is the id of a device known for this account. Raises `TooManyAttempts`."""
        if not device:
            suspect = self._address.used_up(source_of(address))
            self._account.check(account)
            self._pair.check(_pair(account, address), self.OF_A_SUSPECT_ADDRESS if suspect else None)
        else:
            self._device.check(device)
        for throttle, key in self._keys(account, address, device):
            throttle.count(key)

    def forgive(self, account: str, address: str, device: str = "") -> None:
        """The attempt was a good one, or nobody looked at it."""
        for throttle, key in self._keys(account, address, device):
            throttle.forgive(key)

    def _keys(self, account: str, address: str, device: str) -> list[tuple[Throttle, str]]:
        """What an attempt counts for."""
        if device:
            return [(self._device, device)]
        pair = _pair(account, address)
        return [(self._pair, pair), (self._address, source_of(address)), (self._account, account)]


def _pair(account: str, address: str) -> str:
    return f"{account} {source_of(address)}"

"""When what is in use has to be held against the control log again."""

from collections.abc import Callable, Collection

EVERYTHING = ""  # in the place of a key: any of them may have changed


class Review:
    """A follower's callback: calls `act` with the key of each entry of the log that may forbid something.

    That is an entry of `kinds`; by default, of any but the heartbeats. Until all of the log is known nothing
    is forbidden, as what is still to be read may allow it; the next entry after that makes up for it, with
    `EVERYTHING`.
    """

    def __init__(
        self, complete: Callable[[], bool], act: Callable[[str], None], kinds: Collection[str] = ()
    ) -> None:
        self._complete, self._act, self._kinds = complete, act, kinds
        self._owed = False

    def __call__(self, key: str, _: bytes | None, __: int) -> None:
        if not self._complete():
            self._owed = True
        elif self._owed:
            self._owed = False
            self._act(EVERYTHING)
        elif self._concerns(key.partition(".")[0]):
            self._act(key)

    def _concerns(self, kind: str) -> bool:
        return kind in self._kinds if self._kinds else kind != "replica"

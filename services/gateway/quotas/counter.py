"""What a replica knows of one count (pure)."""

import asyncio
from dataclasses import dataclass, field

from libs.common.requests import QuotaWindow

NEVER = float("-inf")


@dataclass(slots=True, eq=False)
class Counter:
    """One count of one window: what all replicas have counted together, and what this one has not told yet.

    `ends` is Unix seconds; `asked` and `used` are by `elapsed()`.
    """

    window: QuotaWindow
    subject: str
    ends: int
    known: int = 0  # what NATS answered last
    sending: int = 0  # that part of ours whose arrival is not known
    sending_id: str = ""  # of the message that carries it: the same again until an answer comes
    unsent: int = 0  # counted since
    asked: float = NEVER  # when the question was sent that NATS answered last
    used: float = NEVER  # when a call was counted
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one exchange at a time

    @property
    def total(self) -> int:
        """All calls of the window that this replica knows of."""
        return self.known + self.sending + self.unsent

    @property
    def untold(self) -> int:
        """What was counted here and NATS is not known to have."""
        return self.sending + self.unsent

    def send(self, id: str) -> None:
        """What is not told yet is sent now, as the message `id`; or again what had no answer."""
        if not self.sending:
            self.sending, self.unsent, self.sending_id = self.unsent, 0, id

    def learn(self, value: int, asked: float) -> None:
        """NATS has answered, with what was sent in it."""
        self.known, self.sending, self.asked = value, 0, asked

"""Since when a replica's tables are proven to be fresh."""


class Proof:
    """Pure bookkeeping of one replica's heartbeats in one log. Times are seconds on the replica's clock."""

    def __init__(self) -> None:
        self.since = float("-inf")  # sending time of the newest heartbeat that came back
        self.unseen: dict[int, float] = {}  # heartbeats that have not: revision -> when it was sent

    def acknowledge(self, seq: int, sent: float, applied: int) -> None:
        """A heartbeat sent at `sent` got the revision `seq`. Alone that proves nothing."""
        self.unseen[seq] = sent
        self.apply(applied)

    def apply(self, applied: int) -> None:
        """The tables are complete up to `applied`, and so with all that was committed before a heartbeat up
        to there was sent."""
        for seq in [seq for seq in self.unseen if seq <= applied]:
            self.since = max(self.since, self.unseen.pop(seq))

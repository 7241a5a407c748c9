"""How far the log is applied, when what is delivered has holes.

The bucket keeps only the newest value of a key, so a slow reader misses values that were replaced before
they reached it; their successors come later. A sequence number therefore counts as applied only if nothing
was skipped since the last one that counted, or if nothing was pending behind the message: in both cases
every value that the log still holds up to there has been delivered, and no replaced one has its successor
still to come (DESIGN, "The lease").
"""


class Progress:
    """Pure bookkeeping of one reader. Sequence numbers begin at 1."""

    def __init__(self) -> None:
        self.applied = 0  # the tables are complete up to here
        self.delivered = 0  # the newest message that came
        self.complete = False  # the whole log has been read once
        self._unbroken = False  # nothing skipped since `applied`

    def deliver(self, seq: int, pending: int) -> None:
        """A message was taken in; `pending` more were waiting behind it when it was sent."""
        unbroken = self._unbroken and seq == self.delivered + 1
        self.delivered = seq
        if unbroken or pending == 0:
            self._count(seq)
        else:
            self._unbroken = False

    def nothing_pending(self, last_seq: int) -> None:
        """Nothing is left to deliver behind `delivered`, in a log that ends at `last_seq` or before."""
        self.delivered = max(self.delivered, last_seq)
        self._count(self.delivered)

    def _count(self, seq: int) -> None:
        self.applied, self._unbroken, self.complete = seq, True, True

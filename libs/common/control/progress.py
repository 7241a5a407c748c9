"""How far the log is applied, when what is delivered has holes.

The bucket keeps only the newest value of a key, so a slow reader misses values that were replaced before
they reached it; their successors come later. So a sequence number counts as applied if nothing was skipped
since the last one that counted. After a hole the reader asks where the log ends: whatever stood there when
the answer was made has come once the reader is there, if nothing was skipped since the question (DESIGN,
"The lease").

The count of pending messages that NATS puts on each message is no answer: it is kept beside the store, and
is zero at times although the successor of what was skipped is already stored.
"""


class Progress:
    """Pure bookkeeping of one reader. Sequence numbers begin at 1."""

    def __init__(self) -> None:
        self.applied = 0  # the tables are complete up to here
        self.delivered = 0  # the newest message that came
        self.complete = False  # the whole log has been read once
        self.unbroken = False  # nothing skipped since `applied`
        self._asked = False  # a question is under way, and nothing was skipped since
        self._end: int | None = None  # the answer to a question since which nothing was skipped

    @property
    def must_ask(self) -> bool:
        """Whether no message alone can count, whatever comes."""
        return not self.unbroken and not self._asked and self._end is None

    def deliver(self, seq: int) -> None:
        """A message was taken in."""
        skipped = seq != self.delivered + 1
        self.delivered = seq
        if skipped:
            self.unbroken, self._asked, self._end = False, False, None
        elif self.unbroken or (self._end is not None and seq >= self._end):
            self._count()

    def ask(self) -> None:
        """The question where the log ends is put now."""
        self._asked, self._end = True, None

    def answer(self, end: int) -> None:
        """The last message of the log was `end`, at some moment since `ask`; 0 for an empty log."""
        if not self._asked:
            return
        self._asked = False
        if self.delivered >= end:
            self._count()
        else:
            self._end = end

    def forget(self) -> None:
        """No answer will come to a question that is under way."""
        self._asked = False

    def _count(self) -> None:
        self.applied, self.unbroken, self.complete, self._end = self.delivered, True, True, None

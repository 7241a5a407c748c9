"""The rule by which a reader with holes knows what it has applied, against a model of the bucket."""

from hypothesis import given
from hypothesis import strategies as st

from libs.common.control.progress import Progress


class Bucket:
    """A log with a history of one: the newest value of each key, at the sequence at which it was written."""

    def __init__(self) -> None:
        self.last = 0
        self.values: dict[str, int] = {}  # key -> sequence of its newest value
        self.history: list[tuple[int, str]] = []

    def write(self, key: str) -> None:
        self.last += 1
        self.values[key] = self.last
        self.history.append((self.last, key))

    def waiting(self, after: int) -> list[tuple[int, str]]:
        """What a reader behind `after` still gets, in order."""
        return sorted((seq, key) for key, seq in self.values.items() if seq > after)

    def newest(self, key: str, until: int) -> int:
        return max((seq for seq, written in self.history if written == key and seq <= until), default=0)


# A write to one of four keys, the delivery of one message, a question where the log ends, or its answer,
# which is made some time after the question and comes some time after that.
steps = st.lists(st.sampled_from([*"abcd", "deliver", "deliver", "ask", "answer", "arrive"]), max_size=60)


@given(steps)
def test_what_counts_as_applied_is_applied(steps: list[str]) -> None:
    bucket, progress, read = Bucket(), Progress(), dict[str, int]()
    under_way, answers = False, list[int]()
    for step in steps:
        if step == "deliver":
            if waiting := bucket.waiting(progress.delivered):
                seq, key = waiting[0]
                read[key] = seq
                progress.deliver(seq)
        elif step == "ask" and not under_way and not answers:
            under_way = True
            progress.ask()
        elif step == "answer" and under_way:
            under_way = False
            answers.append(max(bucket.values.values(), default=0))
        elif step == "arrive" and answers:
            progress.answer(answers.pop())
        elif len(step) == 1:
            bucket.write(step)
        for key in bucket.values:
            assert read.get(key, 0) >= bucket.newest(key, progress.applied), (step, key)


@given(steps)
def test_a_reader_that_has_caught_up_has_applied_everything(steps: list[str]) -> None:
    bucket, progress = Bucket(), Progress()
    for key in [step for step in steps if len(step) == 1]:
        bucket.write(key)
    while waiting := bucket.waiting(progress.delivered):
        progress.deliver(waiting[0][0])
    assert progress.must_ask
    progress.ask()
    progress.answer(bucket.last)
    assert progress.applied == bucket.last
    assert progress.complete and not progress.must_ask


def test_a_message_after_a_hole_counts_only_when_it_is_known_that_nothing_is_missing() -> None:
    progress = Progress()
    progress.ask()
    progress.answer(0)
    progress.deliver(1)
    assert progress.applied == 1
    progress.deliver(3)  # 2 was replaced, and its successor is still to come
    assert progress.applied == 1
    progress.ask()
    progress.answer(4)
    assert progress.applied == 1
    progress.deliver(4)
    assert progress.applied == 4


def test_an_answer_is_worth_nothing_once_something_was_skipped_after_its_question() -> None:
    progress = Progress()
    progress.ask()
    progress.deliver(3)
    progress.answer(3)
    assert progress.applied == 0
    assert progress.must_ask

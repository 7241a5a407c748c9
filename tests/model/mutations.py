"""Wrong rules, each plausible enough for somebody to write it one day."""

from dataclasses import replace

from libs.common.control.owner import Standing
from libs.common.control.progress import Progress
from libs.common.control.proof import Proof
from tests.model.rules import Rules
from tests.model.state import LEASE


class AnythingDeliveredCounts(Progress):
    def deliver(self, seq: int) -> None:
        super().deliver(seq)
        self.ask()
        self.answer(seq)


class AnAnswerStandsThoughSomethingWasSkipped(Progress):
    def deliver(self, seq: int) -> None:
        asked, end = self._asked, self._end
        super().deliver(seq)
        if not self.unbroken:
            self._asked, self._end = asked, end
            if end is not None and seq >= end:
                self._count()


class AcknowledgementsAreProof(Proof):
    def acknowledge(self, seq: int, sent: float, applied: int) -> None:
        self.since = max(self.since, sent)


def no_margin(reported: bool, heard: int, acknowledged: int) -> Standing | None:
    return _standing(reported, heard, acknowledged, LEASE)


def nobody_silent_is_waited_for(reported: bool, heard: int, acknowledged: int) -> Standing | None:
    if not reported and heard > acknowledged:
        return None
    return _standing(reported, heard, acknowledged, LEASE + 1)


def nobody_is_waited_for(reported: bool, heard: int, acknowledged: int) -> Standing | None:
    return "applied" if reported else "lease_expired"


def _standing(reported: bool, heard: int, acknowledged: int, wait: int) -> Standing | None:
    if reported:
        return "applied"
    if heard - acknowledged > wait:
        return None
    return "lease_expired" if acknowledged >= wait else "pending"


RULES = Rules()
ALONE = "heartbeats and answers are under way for any time"
TWICE = "two changes follow each other"
OWNERS = "two processes of the owner"

# What is wrong, and in which scenario it shows.
MUTATIONS: dict[str, tuple[Rules, str]] = {
    "anything delivered counts as applied": (replace(RULES, progress=AnythingDeliveredCounts), TWICE),
    "an answer counts though something was skipped since the question": (
        replace(RULES, progress=AnAnswerStandsThoughSomethingWasSkipped),
        TWICE,
    ),
    "the server's count of pending messages is believed": (replace(RULES, believes_pending=True), TWICE),
    "what was delivered is reported": (replace(RULES, reports_what_was_only_delivered=True), OWNERS),
    "messages are not numbered": (
        replace(RULES, numbers_of_messages_are_checked=False),
        "a message to a replica is lost",
    ),
    "an acknowledgement is a proof": (replace(RULES, proof=AcknowledgementsAreProof), ALONE),
    "the lease counts from the acknowledgement": (
        replace(RULES, lease_counts_from_the_acknowledgement=True),
        ALONE,
    ),
    "the lease's clock stops in pauses": (replace(RULES, clock_stops_in_pauses=True), "a replica is paused"),
    "the receipt has no margin": (replace(RULES, standing=no_margin), ALONE),
    "the receipt waits for nobody who is silent": (
        replace(RULES, standing=nobody_silent_is_waited_for),
        "a replica is killed and starts again",
    ),
    "the receipt waits for nobody": (replace(RULES, standing=nobody_is_waited_for), ALONE),
    "the receipt does not wait for its own tables": (
        replace(RULES, owner_waits_for_its_own_tables=False),
        "the owner's own tables are late",
    ),
    "writes are not compared": (replace(RULES, compare_and_swap=False), OWNERS),
    "the database is read before the log": (replace(RULES, looks_at_the_log_first=False), OWNERS),
    "nothing is reconciled": (
        replace(RULES, reconciles=False),
        "the owner is killed between commit and log",
    ),
    "another log is not read from its start": (
        replace(RULES, another_log_is_read_from_its_start=False),
        "the log is lost and written anew",
    ),
    "nobody asks for the name of the log": (
        replace(RULES, asks_for_the_name_of_the_log=False),
        "the log is lost and written anew",
    ),
    "after another log nobody waits for the leases of the first": (
        replace(RULES, owner_waits_after_another_log=False),
        "the log is lost and written anew",
    ),
}

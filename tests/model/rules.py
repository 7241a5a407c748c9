"""The rules that the model plays by: the real code where it is pure, and switches for the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from libs.common.control.entries import Replica as Entry
from libs.common.control.owner import Standing, standing
from libs.common.control.progress import Progress
from libs.common.control.proof import Proof
from tests.model.state import LEASE

# (whether it has reported the revision, ticks since it was heard, ticks since the acknowledgement)
Standings = Callable[[bool, int, int], Standing | None]


@lru_cache(None)
def real_standing(reported: bool, heard: int, acknowledged: int) -> Standing | None:
    """`owner.standing` in ticks."""
    entry = Entry(id="r", revision=int(reported), applied_at="", lease=LEASE)
    return standing(entry, -heard, 1, -acknowledged, 0)


@dataclass(frozen=True)
class Rules:
    """As they are. A test changes one to see that the model notices."""

    progress: type[Progress] = Progress
    proof: type[Proof] = Proof
    standing: Standings = real_standing
    owner_waits_for_its_own_tables: bool = True
    owner_waits_after_another_log: bool = True
    compare_and_swap: bool = True
    looks_at_the_log_first: bool = True  # and at the database then
    reconciles: bool = True
    numbers_of_messages_are_checked: bool = True
    asks_for_the_name_of_the_log: bool = True
    another_log_is_read_from_its_start: bool = True
    reports_what_was_only_delivered: bool = False
    believes_pending: bool = False
    clock_stops_in_pauses: bool = False
    lease_counts_from_the_acknowledgement: bool = False
    # What a scenario leaves out to stay small:
    channel: int = 0  # messages that may be on the way to one replica; 0: it takes them when they are sent
    prompt: bool = False  # what is sent to the server arrives, and is answered, at once
    owner_lags: bool = False  # whether it reads late what the log says; reading at once makes early promises

"""What a state of the modelled system is made of: the log, its replicas, its owners, what may still go wrong.

Sequence numbers stand as they are made and are renumbered after each step (canonical.py). Moments are whole
ticks before or after now, so that time can go on for ever in finitely many states.
"""

from typing import Any, NamedTuple

LEASE = 2  # ticks; with MARGIN and DRIFT of the real code a receipt waits for 3
# The moment of a heartbeat that is sent now. Each replica's clock is slow: it counts a tick less in a lease.
NOW = 1


class Message(NamedTuple):
    """On the way from the server to a replica."""

    number: int  # within its consumer; the reader expects 1
    seq: int
    version: int | None  # of the switch; None: some heartbeat
    nothing_pending: bool = False  # what the server says; only where a rule looks at it


class Beat(NamedTuple):
    """A heartbeat under way. `seq` is 0 until the server has it."""

    sent: int
    report: int
    applied: int  # by its sender when it was sent
    seq: int = 0


class Replica(NamedTuple):
    """One gateway replica, its consumer on the server, and its key in the log."""

    # as progress.py has it
    applied: int = 0
    delivered: int = 0
    complete: bool = False
    unbroken: bool = False
    asked: bool = False
    end: int | None = None
    answer: int | None = None  # to its question, on the way
    version: int | None = None  # of the switch in its tables; None: it knows none and admits nothing
    epoch: int = 0  # the log that it reads
    # as proof.py has it
    since: int = -LEASE
    unseen: tuple[tuple[int, int], ...] = ()
    beat: Beat | None = None
    late: tuple[int, ...] = ()  # reports of heartbeats that it has given up, and that may still arrive
    # its consumer
    open: bool = False
    cursor: int = 0
    pushed: int = 0  # number of the newest message, counted as `Message.number`
    channel: tuple[Message, ...] = ()
    # its key in the log
    seq: int = 0
    report: int = 0
    # what each owner knows of it: the report, and how many ticks ago it came
    views: tuple[tuple[int, int] | None, ...] = ()


class Write(NamedTuple):
    """A write of the switch under way, under compare-and-swap."""

    expected: int
    version: int
    seq: int = 0  # where it stands, once the server has it
    refused: bool = False


IDLE, LOOKED, READ, WRITING, WAITING = range(5)


class Owner(NamedTuple):
    """One process of the service that owns the switch."""

    phase: int = IDLE
    target: int = 0  # the version that somebody waits for; 0: it reconciles
    held: tuple[int, int | None] = (0, None)  # the log as it looked when the present attempt began
    row: int = 0  # the version of the database that the present attempt has read
    write: Write | None = None
    late: tuple[Write, ...] = ()  # given up, and may still arrive
    revision: int = 0
    log: int = 0  # the epoch of the log that was there after the write
    acknowledged: int = 0  # ticks since
    cache: tuple[int, int | None] = (0, None)  # the switch in the log: seq and version
    seen: int = 0
    ready: bool = False
    replaced: int = 3  # ticks since it found another log
    epoch: int = 0


class Budget(NamedTuple):
    """How often each of these may still happen."""

    changes: int = 1
    losses: int = 0  # messages lost on the way to a replica
    repeats: int = 0
    swaps: int = 0
    kills: int = 0  # of replicas
    late: int = 0  # writes that arrive after their sender has given them up
    restarts: int = 0  # of NATS
    lost_logs: int = 0
    crashes: int = 0  # of owners
    pauses: int = 0  # ticks that the clock of a paused replica does not count, where a rule has such a clock


class State(NamedTuple):
    """Everything. `last` is the log's newest sequence, `seq` and `version` the switch in it."""

    last: int
    seq: int
    version: int | None
    epoch: int
    row: int  # the switch's version in the database
    completed: int  # the newest version whose receipt is complete
    replicas: tuple[Replica, ...]
    owners: tuple[Owner, ...]
    left: Budget

    def with_replica(self, index: int, **changes: Any) -> "State":
        replicas = list(self.replicas)
        replicas[index] = replicas[index]._replace(**changes)
        return self._replace(replicas=tuple(replicas))

    def with_owner(self, index: int, **changes: Any) -> "State":
        owners = list(self.owners)
        owners[index] = owners[index]._replace(**changes)
        return self._replace(owners=tuple(owners))

    def spend(self, kind: str) -> "State":
        return self._replace(left=self.left._replace(**{kind: getattr(self.left, kind) - 1}))

    @property
    def may_change_logs(self) -> bool:
        """Whether what was read may be of another log than what is there."""
        return bool(self.epoch or self.left.lost_logs)

    @property
    def end(self) -> int:
        """The sequence of the last message that the log holds."""
        return max([self.seq, *(replica.seq for replica in self.replicas)])


def beginning(replicas: int, owners: int, left: Budget) -> State:
    """All is well: the switch stands at 1, every replica has applied everything and has just proven it."""
    last = 1 + replicas
    begun = [
        Replica(
            applied=last,
            delivered=last,
            complete=True,
            unbroken=True,
            version=0,
            since=NOW,
            open=True,
            cursor=last,
            seq=2 + n,
            report=last,
            views=((last, 0),) * owners,
        )
        for n in range(replicas)
    ]
    owner = Owner(cache=(1, 0), seen=last, ready=True)
    return State(last, 1, 0, 0, 0, 0, tuple(begun), (owner,) * owners, left)

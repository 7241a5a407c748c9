"""One name for all states that behave alike, so that finitely many are left.

Sequence numbers only matter by their order and by which directly follow each other: they are renumbered.
Replicas are interchangeable: they are sorted. What is long over is over: ages stop counting.
"""

from collections.abc import Callable
from functools import lru_cache

from tests.model.state import LEASE, WAITING, Beat, Message, Owner, Replica, State

WAITED = 3  # ticks after which a receipt waits for nobody


def canonical(state: State) -> State:
    wanted = sorted(_wanted(state))
    number = _renumber(_sequences(state, wanted), _positions(state))

    def report(value: int) -> int:
        """Reports matter only by which of the awaited revisions they reach."""
        reached = 0
        for revision in wanted:
            if revision <= value:
                reached = revision
        return number[reached]

    replicas = [_replica(replica, number, report) for replica in state.replicas]
    return state._replace(
        last=number[state.last],
        seq=number[state.seq],
        replicas=tuple(sorted(replicas, key=_name)),
        owners=tuple(_owner(owner, number) for owner in state.owners),
    )


def _wanted(state: State) -> set[int]:
    """The revisions that a receipt waits for, or may come to wait for.

    All others are still to come, and above every report; unless another log begins, and with it at 1.
    """
    found = {state.seq}
    if state.may_change_logs:
        found.update(seq for r in state.replicas for seq in _reports(r))
    for owner in state.owners:
        found.add(owner.cache[0])
        found.add(owner.held[0])
        if owner.phase == WAITING:
            found.add(owner.revision)
        if owner.write:
            found.add(owner.write.seq)
    found.discard(0)
    return found


def _reports(r: Replica) -> list[int]:
    under_way = [r.beat.report] if r.beat else []
    return [r.report, *r.late, *under_way, *(view[0] for view in r.views if view)]


def _sequences(state: State, wanted: list[int]) -> set[int]:
    found = {0, state.last, state.seq, *wanted}
    for r in state.replicas:
        found |= {r.applied, r.delivered, r.cursor, r.seq, r.end or 0, r.answer or 0}
        found.update(message.seq for message in r.channel)
        found.update(seq for seq, _ in r.unseen)
        if r.beat:
            found |= {r.beat.seq, r.beat.applied if state.may_change_logs else 0}
    for owner in state.owners:
        found.add(owner.seen)
        found.update(write.expected for write in owner.late)
        if owner.write:
            found.add(owner.write.expected)
    return found


def _positions(state: State) -> set[int]:
    """Where a reader is or may come to be: what directly follows what matters only among these."""
    found = {state.last, state.seq}
    for r in state.replicas:
        found |= {r.delivered, r.cursor, r.seq}
        found.update(message.seq for message in r.channel)
    return found


def _renumber(sequences: set[int], positions: set[int]) -> dict[int, int]:
    numbers, before, new = {0: 0}, 0, 0
    for seq in sorted(sequences - {0}):
        skipped = seq > before + 1 and before in positions and seq in positions
        new += 2 if skipped else 1
        before = seq
        numbers[seq] = new
    return numbers


_name = lru_cache(None)(repr)


def _replica(r: Replica, number: dict[int, int], report: Callable[[int], int]) -> Replica:
    return r._replace(
        applied=number[r.applied],
        delivered=number[r.delivered],
        end=None if r.end is None else number[r.end],
        answer=None if r.answer is None else number[r.answer],
        cursor=number[r.cursor],
        seq=number[r.seq],
        report=report(r.report),
        channel=tuple(Message(m.number, number[m.seq], *m[2:]) for m in r.channel) if r.channel else (),
        unseen=tuple((number[seq], max(sent, -LEASE)) for seq, sent in r.unseen) if r.unseen else (),
        beat=_beat(r.beat, number, report) if r.beat else None,
        late=tuple(sorted(map(report, r.late))) if r.late else (),
        views=tuple(view and (report(view[0]), view[1]) for view in r.views),
    )


def _beat(beat: Beat, number: dict[int, int], report: Callable[[int], int]) -> Beat:
    return Beat(beat.sent, report(beat.report), number.get(beat.applied, 0), number[beat.seq])


def _owner(o: Owner, number: dict[int, int]) -> Owner:
    waiting = o.phase == WAITING
    write = o.write and o.write._replace(expected=number[o.write.expected], seq=number[o.write.seq])
    return o._replace(
        revision=number[o.revision] if waiting else 0,
        log=o.log if waiting else 0,
        acknowledged=o.acknowledged if waiting else 0,
        held=(number[o.held[0]], o.held[1]),
        cache=(number[o.cache[0]], o.cache[1]),
        seen=number[o.seen],
        write=write,
        late=tuple(w._replace(expected=number[w.expected]) for w in o.late),
    )

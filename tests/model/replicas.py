"""What may happen at a gateway replica, and between it and the log."""

from collections.abc import Iterator
from typing import Any

from libs.common.control.progress import Progress
from libs.common.control.proof import Proof
from tests.model.rules import Rules
from tests.model.state import LEASE, NOW, Beat, Message, Replica, State

Step = tuple[str, State]
UNSEEN = -1  # a heartbeat sent at this moment or before, and not seen yet, is taken for lost


def steps(state: State, rules: Rules) -> Iterator[Step]:
    for index, replica in enumerate(state.replicas):
        yield from _delivery(state, rules, index, replica)
        yield from _faults_of_delivery(state, rules, index, replica)
        yield from _questions(state, rules, index, replica)
        yield from _heartbeat(state, rules, index, replica)
        yield from _given_up(state, index, replica)
        if state.left.kills:
            yield from _killed(state, index, replica)


# -- the consumer -------------------------------------------------------------------------------------


def _delivery(state: State, rules: Rules, index: int, r: Replica) -> Iterator[Step]:
    if r.channel:
        yield "receives", _received(state, rules, index, r)
    if not r.open:
        yield "opens a consumer", _opened(state, rules, index, r)
    elif len(r.channel) < max(rules.channel, 1) and (message := _next_message(state, r)):
        for shown in _pending(state, rules, message):
            sent = r._replace(cursor=message.seq, pushed=message.number, channel=(*r.channel, shown))
            if rules.channel:
                yield "server sends", state.with_replica(index, **sent._asdict())
            else:
                yield "receives", _received(state, rules, index, sent)


def _next_message(state: State, r: Replica) -> Message | None:
    """The next message that the log still holds."""
    held = [(other.seq, None) for other in state.replicas] + [(state.seq, state.version)]
    waiting = [(seq, version) for seq, version in held if seq > r.cursor]
    if not waiting:
        return None
    seq, version = min(waiting, key=lambda message: message[0])
    return Message(r.pushed + 1, seq, version)


def _pending(state: State, rules: Rules, message: Message) -> Iterator[Message]:
    """What the server says is waiting behind it. The newest write may be stored and not counted yet."""
    if not rules.believes_pending:
        yield message
        return
    held = [other.seq for other in state.replicas] + [state.seq]
    behind = sum(seq > message.seq for seq in held)
    yield message._replace(nothing_pending=behind == 0)
    if behind == 1:
        yield message._replace(nothing_pending=True)


def _received(state: State, rules: Rules, index: int, r: Replica) -> State:
    message, rest = r.channel[0], r.channel[1:]
    if rules.numbers_of_messages_are_checked and message.number != 1:
        return state.with_replica(index, **_closed())
    progress = rules.progress()
    _load(progress, r)
    progress.deliver(message.seq)
    if message.nothing_pending:
        progress.ask()
        progress.answer(message.seq)
    rest = tuple(other._replace(number=other.number - 1) for other in rest)
    r = r._replace(channel=rest, pushed=r.pushed - 1)
    if message.version is not None:
        r = r._replace(version=message.version)
    return _progressed(state, rules, index, r, progress)


def _load(progress: Progress, r: Replica) -> None:
    for name, value in (
        ("applied", r.applied),
        ("delivered", r.delivered),
        ("complete", r.complete),
        ("unbroken", r.unbroken),
        ("_asked", r.asked),
        ("_end", r.end),
    ):
        setattr(progress, name, value)


def _progressed(state: State, rules: Rules, index: int, r: Replica, progress: Progress) -> State:
    get = progress.__dict__
    r = r._replace(
        applied=get["applied"],
        delivered=get["delivered"],
        complete=get["complete"],
        unbroken=get["unbroken"],
        asked=get["_asked"],
        end=get["_end"],
    )
    if r.unseen:
        proof = rules.proof()
        proof.since, proof.unseen = r.since, dict(r.unseen)
        proof.apply(r.applied)
        r = r._replace(since=int(proof.since), unseen=_unseen(proof))
    replicas = list(state.replicas)
    replicas[index] = r
    return state._replace(replicas=tuple(replicas))


def _closed() -> dict[str, Any]:
    return {"open": False, "channel": (), "pushed": 0, "asked": False, "answer": None}


def _opened(state: State, rules: Rules, index: int, r: Replica) -> State:
    another = state.epoch != r.epoch or state.last < r.delivered
    if not r.complete or (another and rules.another_log_is_read_from_its_start):
        late = _late(state, r) if r.beat else r.late
        r = Replica(late=late, seq=r.seq, report=r.report, views=r.views)
    r = r._replace(**_closed())
    r = r._replace(open=True, cursor=r.delivered, epoch=state.epoch)
    replicas = list(state.replicas)
    replicas[index] = r
    return state._replace(replicas=tuple(replicas))


def _late(state: State, r: Replica) -> tuple[int, ...]:
    """What is under way when its sender forgets it may still arrive, if the bounds have room for that."""
    if r.beat and not r.beat.seq and state.left.late:
        return (*r.late, r.beat.report)[:1]
    return r.late


def _faults_of_delivery(state: State, rules: Rules, index: int, r: Replica) -> Iterator[Step]:
    if r.channel and state.left.losses:
        yield "message lost", state.with_replica(index, channel=r.channel[1:]).spend("losses")
    if r.channel and state.left.repeats and len(r.channel) < rules.channel:
        repeated = (r.channel[0], *r.channel)
        yield "message repeated", state.with_replica(index, channel=repeated).spend("repeats")
    if len(r.channel) > 1 and state.left.swaps:
        swapped = (r.channel[1], r.channel[0], *r.channel[2:])
        yield "messages swapped", state.with_replica(index, channel=swapped).spend("swaps")


# -- holes --------------------------------------------------------------------------------------------


def _questions(state: State, rules: Rules, index: int, r: Replica) -> Iterator[Step]:
    if rules.believes_pending:
        if r.open and not r.channel and not r.unbroken and state.end <= r.delivered:
            yield "knows that nothing is pending", _answered(state, rules, index, r, state.end)
        return
    if r.open and r.answer is None and not r.unbroken and not r.asked and r.end is None:
        asked = state.with_replica(index, asked=True, answer=state.end)
        if rules.prompt:
            asked = _answered(asked, rules, index, asked.replicas[index], state.end)
        yield "asks where the log ends", asked
    if r.answer is not None:
        yield "hears where the log ends", _answered(state, rules, index, r, r.answer)


def _answered(state: State, rules: Rules, index: int, r: Replica, end: int) -> State:
    progress = rules.progress()
    _load(progress, r)
    if rules.believes_pending:
        progress.ask()
    progress.answer(end)
    return _progressed(state, rules, index, r._replace(answer=None), progress)


# -- heartbeats ---------------------------------------------------------------------------------------


def _heartbeat(state: State, rules: Rules, index: int, r: Replica) -> Iterator[Step]:
    if not r.beat:
        report = r.delivered if rules.reports_what_was_only_delivered else r.applied
        due = r.since < NOW or report > r.report
        if due and r.open and r.complete and not r.unseen:
            sent = state.with_replica(index, beat=Beat(NOW, report, r.applied))
            yield "sends a heartbeat", _stands(sent, rules, index) if rules.prompt else sent
            if rules.prompt and state.left.late and not r.late:
                yield (
                    "heartbeat given up, on its way",
                    state.with_replica(index, late=(report,)).spend("late"),
                )
    elif not r.beat.seq:
        yield "heartbeat stands", _stands(state, rules, index)
    else:
        yield "hears of its heartbeat", _acknowledged(state, rules, index, r, r.beat)
    if r.unseen and r.unseen[0][1] <= UNSEEN:
        yield "heartbeat unseen", state.with_replica(index, unseen=(), **_closed())


def _stands(state: State, rules: Rules, index: int) -> State:
    seq = state.last + 1
    beat = state.replicas[index].beat
    assert beat
    beat = beat._replace(seq=seq)
    stands = state._replace(last=seq).with_replica(index, beat=beat, seq=seq, report=beat.report)
    if rules.prompt:
        return _acknowledged(stands, rules, index, stands.replicas[index], beat)
    return stands


def _acknowledged(state: State, rules: Rules, index: int, r: Replica, beat: Beat) -> State:
    if beat.seq <= beat.applied or (rules.asks_for_the_name_of_the_log and state.epoch != r.epoch):
        return state.with_replica(index, beat=None, **_closed())
    sent = NOW if rules.lease_counts_from_the_acknowledgement else beat.sent
    proof = rules.proof()
    proof.since, proof.unseen = r.since, dict(r.unseen)
    proof.acknowledge(beat.seq, sent, r.applied)
    return state.with_replica(index, beat=None, since=int(proof.since), unseen=_unseen(proof))


def _unseen(proof: Proof) -> tuple[tuple[int, int], ...]:
    return tuple((seq, int(sent)) for seq, sent in proof.unseen.items())


def _given_up(state: State, index: int, r: Replica) -> Iterator[Step]:
    if r.beat and state.left.late:
        yield "heartbeat given up", state.with_replica(index, beat=None).spend("late")
        if not r.beat.seq and not r.late:
            late = state.with_replica(index, beat=None, late=(r.beat.report,))
            yield "heartbeat given up, on its way", late.spend("late")
    if r.late:
        seq = state.last + 1
        late = state._replace(last=seq).with_replica(index, seq=seq, report=r.late[0], late=r.late[1:])
        yield "late heartbeat stands", late


def _killed(state: State, index: int, r: Replica) -> Iterator[Step]:
    fresh = Replica(late=_late(state, r), seq=r.seq, report=r.report, views=r.views)
    replicas = list(state.replicas)
    replicas[index] = fresh
    yield "killed", state._replace(replicas=tuple(replicas)).spend("kills")


def valid(r: Replica) -> bool:
    """Whether it may decide now."""
    return r.complete and r.since + LEASE > 0

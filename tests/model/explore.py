"""Breadth-first over every state that can be reached, and back from where all is well."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.model import owners, replicas
from tests.model.canonical import WAITED, canonical
from tests.model.rules import Rules
from tests.model.state import IDLE, LEASE, WAITING, Beat, Owner, Replica, State

Step = tuple[str, State]


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Everything that may happen next."""
    yield from replicas.steps(state, rules)
    yield from owners.steps(state, rules)
    yield "tick", tick(state)
    if rules.clock_stops_in_pauses and state.left.pauses:
        for index in range(len(state.replicas)):
            yield "tick in a pause", tick(state, paused=index).spend("pauses")
    if state.left.restarts:
        yield "NATS restarts", nats_restarted(state).spend("restarts")
    if state.left.lost_logs:
        yield "NATS restarts without its data", log_lost(state).spend("lost_logs")


def tick(state: State, paused: int | None = None) -> State:
    waits = [min(owner.acknowledged + 1, WAITED) if owner.phase == WAITING else 0 for owner in state.owners]
    aged = tuple(
        _older(replica, waits, counts=index != paused) for index, replica in enumerate(state.replicas)
    )
    grown = tuple(
        owner._replace(
            acknowledged=min(owner.acknowledged + 1, WAITED), replaced=min(owner.replaced + 1, WAITED)
        )
        for owner in state.owners
    )
    return state._replace(replicas=aged, owners=grown)


def _older(r: Replica, waits: list[int], *, counts: bool) -> Replica:
    views = tuple(
        view and (view[0], min(view[1] + 1, WAITED + waits[index])) for index, view in enumerate(r.views)
    )
    if not counts:
        return r._replace(views=views)
    beat = r.beat and Beat(max(r.beat.sent - 1, -LEASE), *r.beat[1:])
    unseen = tuple((seq, max(sent - 1, -LEASE)) for seq, sent in r.unseen)
    return r._replace(since=max(r.since - 1, -LEASE), beat=beat, unseen=unseen, views=views)


def nats_restarted(state: State) -> State:
    """No consumer is left. What was sent to readers may still come to them."""
    return state._replace(replicas=tuple(r._replace(open=False) for r in state.replicas))


def log_lost(state: State) -> State:
    """Another log, empty, in its place. Writes of owners that were on their way are lost with it, heartbeats
    need not be."""
    stopped = tuple(
        owner._replace(**owners.STOPPED, late=()) if _on_its_way(owner) else owner._replace(late=())
        for owner in state.owners
    )
    emptied = tuple(r._replace(open=False, seq=0, report=0) for r in state.replicas)
    return state._replace(
        last=0, seq=0, version=None, epoch=state.epoch + 1, replicas=emptied, owners=stopped
    )


def _on_its_way(owner: Owner) -> bool:
    return owner.write is not None and not owner.write.seq


def broken(state: State) -> str | None:
    """What is wrong with this state."""
    for replica in state.replicas:
        if replica.version is not None and replica.version < state.completed and replicas.valid(replica):
            return f"a replica decides by {replica.version}, and {state.completed} is complete"
    return None


def well(state: State) -> bool:
    """Every commit is in the log and at every replica, and each may decide."""
    return (
        state.version == state.row
        and all(r.version == state.row and replicas.valid(r) for r in state.replicas)
        and all(owner.phase == IDLE for owner in state.owners)
    )


@dataclass
class Exploration:
    """What was found: how much was seen, and how what is wrong comes about."""

    states: int = 0
    steps: int = 0
    finished: bool = False  # everything was seen
    problem: str = ""
    path: list[str] = field(default_factory=list)
    happened: set[str] = field(default_factory=set)


def explore(first: State, rules: Rules, most: int) -> Exploration:
    """Look at up to `most` states."""
    first = canonical(first)
    found, numbers = {first: 0}, dict[str, int]()
    queue, parents, causes = [first], array("l", [-1]), array("l", [-1])
    arrows_from, arrows_to = array("l"), array("l")
    result = Exploration()

    def path(index: int) -> list[str]:
        names, steps = list(numbers), []
        while parents[index] >= 0:
            steps.append(names[causes[index]])
            index = parents[index]
        return steps[::-1]

    for here, state in enumerate(queue):  # which grows meanwhile
        if problem := broken(state):
            result.problem, result.path = problem, path(here)
            break
        if len(queue) > most:
            break
        for name, next_state in steps(state, rules):
            after = canonical(owners.settle(next_state, rules))
            cause = numbers.setdefault(name, len(numbers))
            there = found.get(after)
            if there is None:
                there = found[after] = len(queue)
                queue.append(after)
                parents.append(here)
                causes.append(cause)
            arrows_from.append(here)
            arrows_to.append(there)
    else:
        result.finished = True
    result.states, result.steps, result.happened = len(queue), len(arrows_to), set(numbers)
    if result.finished and (stuck := _stuck(queue, arrows_from, arrows_to)) is not None:
        result.problem, result.path = "from here it is never well again", path(stuck)
    return result


def _stuck(states: list[State], arrows_from: "array[int]", arrows_to: "array[int]") -> int | None:
    """The first state from which none can be reached that is well."""
    before: list[list[int]] = [[] for _ in states]
    for here, there in zip(arrows_from, arrows_to, strict=True):
        before[there].append(here)
    reached = bytearray(len(states))
    waiting = [index for index, state in enumerate(states) if well(state)]
    for index in waiting:
        reached[index] = 1
    while waiting:
        for index in before[waiting.pop()]:
            if not reached[index]:
                reached[index] = 1
                waiting.append(index)
    missing = reached.find(0)
    return None if missing < 0 else missing

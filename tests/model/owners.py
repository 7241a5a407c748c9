"""What may happen at the service that owns the switch."""

from collections.abc import Iterator
from typing import Any

from tests.model.canonical import WAITED
from tests.model.rules import Rules
from tests.model.state import IDLE, LOOKED, READ, WAITING, WRITING, Owner, State, Write

Step = tuple[str, State]
STOPPED: dict[str, Any] = {"phase": IDLE, "target": 0, "held": (0, None), "row": 0, "write": None}


def steps(state: State, rules: Rules) -> Iterator[Step]:
    for index, owner in enumerate(state.owners):
        if owner.epoch != state.epoch:
            yield "owner finds another log", _another_log(state, rules, index)
        elif (owner.seen < state.end and rules.owner_lags) or not owner.ready:
            yield "owner reads the log", _read(state, index)
        if owner.ready:
            yield from _begin(state, rules, index, owner)
        yield from _attempt(state, rules, index, owner)
        yield from _given_up(state, rules, index, owner)
        if state.left.crashes:
            yield "owner crashes", _crashed(state, index, owner).spend("crashes")


# -- its own reading ----------------------------------------------------------------------------------


def _read(state: State, index: int) -> State:
    """Take in everything. (Its holes are a matter of the same progress.py as the replicas'.)"""
    owner = state.owners[index]
    replicas = tuple(
        r._replace(views=_put(r.views, index, (r.report, 0))) if r.seq > owner.seen else r
        for r in state.replicas
    )
    cache = (state.seq, state.version) if state.seq >= owner.cache[0] else owner.cache
    return state._replace(replicas=replicas).with_owner(index, seen=state.end, ready=True, cache=cache)


def _put(
    views: tuple[tuple[int, int] | None, ...], index: int, view: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, ...]:
    return (*views[:index], view, *views[index + 1 :])


def _anew(state: State, index: int, **changes: Any) -> State:
    replicas = tuple(r._replace(views=_put(r.views, index, None)) for r in state.replicas)
    return state._replace(replicas=replicas).with_owner(
        index, cache=(0, None), seen=0, ready=False, epoch=state.epoch, **changes
    )


def _another_log(state: State, rules: Rules, index: int) -> State:
    return _anew(state, index, replaced=0 if rules.owner_waits_after_another_log else WAITED)


def _crashed(state: State, index: int, owner: Owner) -> State:
    """And started again: it has to read the log before it does anything."""
    return _anew(state, index, replaced=WAITED, late=_late(state, owner), **STOPPED)


def _late(state: State, owner: Owner) -> tuple[Write, ...]:
    if owner.write and not owner.write.seq and not owner.write.refused and state.left.late:
        return (*owner.late, owner.write)[:1]
    return owner.late


# -- one change, or one reconciliation ----------------------------------------------------------------


def _begin(state: State, rules: Rules, index: int, owner: Owner) -> Iterator[Step]:
    if owner.phase != IDLE:
        return
    if state.left.changes:
        row = state.row + 1
        begun = state._replace(row=row).with_owner(index, phase=LOOKED, target=row, held=owner.cache)
        yield "commits a change", _looked(begun, rules, index).spend("changes")
    if rules.reconciles and owner.cache[1] != state.row:
        begun = state.with_owner(index, phase=LOOKED, held=owner.cache)
        yield "reconciles", _looked(begun, rules, index)


def _looked(state: State, rules: Rules, index: int) -> State:
    if rules.looks_at_the_log_first:
        if len(state.owners) > 1:
            return state
        return state.with_owner(index, phase=READ, row=state.row)  # nobody writes in between
    return state.with_owner(index, row=state.row)  # the wrong way round: the row first


def _attempt(state: State, rules: Rules, index: int, owner: Owner) -> Iterator[Step]:
    if owner.phase == LOOKED:
        if rules.looks_at_the_log_first:
            yield "reads the database", state.with_owner(index, phase=READ, row=state.row)
        else:
            yield "looks at the log", state.with_owner(index, phase=READ, held=owner.cache)
    elif owner.phase == READ:
        if owner.held[1] == owner.row:
            yield "finds it written", _wait(state, index, owner.held)
        else:
            write = Write(owner.held[0], owner.row)
            yield "writes", state.with_owner(index, phase=WRITING, write=write)
    elif owner.phase == WRITING and owner.write:
        yield from _write(state, rules, index, owner, owner.write)


def _write(state: State, rules: Rules, index: int, owner: Owner, write: Write) -> Iterator[Step]:
    if write.seq or write.refused:
        yield "hears of its write", _answered(state, rules, index, write)
    else:
        after, stands = _stored(state, rules, write)
        answered = write._replace(seq=after.seq) if stands else write._replace(refused=True)
        after = after.with_owner(index, write=answered)
        yield "write arrives", _answered(after, rules, index, answered) if rules.prompt else after


def _answered(state: State, rules: Rules, index: int, write: Write) -> State:
    if write.refused:
        newest = state.seq, state.version
        again = state.with_owner(index, phase=LOOKED, write=None, held=newest, cache=newest)
        return _looked(again, rules, index)
    return _wait(state, index, (write.seq, write.version))


def _stored(state: State, rules: Rules, write: Write) -> tuple[State, bool]:
    if rules.compare_and_swap and write.expected != state.seq:
        return state, False
    seq = state.last + 1
    return state._replace(last=seq, seq=seq, version=write.version), True


def _wait(state: State, index: int, found: tuple[int, int | None]) -> State:
    owner = state.owners[index]
    cache = found if found[0] >= owner.cache[0] else owner.cache
    if not owner.target:
        return state.with_owner(index, **{**STOPPED, "cache": cache})
    changes = {**STOPPED, "cache": cache, "phase": WAITING, "target": owner.target}
    return state.with_owner(index, **changes, revision=found[0], log=state.epoch, acknowledged=0)


def _given_up(state: State, rules: Rules, index: int, owner: Owner) -> Iterator[Step]:
    """Whoever asked gets a 202."""
    if owner.phase == WRITING and owner.write and state.left.late:
        yield "gives up a write", state.with_owner(index, **STOPPED).spend("late")
        if (late := _late(state, owner)) != owner.late:
            yield "gives up a write on its way", state.with_owner(index, **STOPPED, late=late).spend("late")
    if owner.phase == WAITING and owner.acknowledged >= WAITED:
        yield "gives up waiting", state.with_owner(index, **STOPPED)
    if owner.late:
        after, _ = _stored(state, rules, owner.late[0])
        yield "late write arrives", after.with_owner(index, late=owner.late[1:])


# -- the receipt --------------------------------------------------------------------------------------


def settle(state: State, rules: Rules) -> State:
    """Every receipt that may be given is given at once: that is the earliest promise."""
    for index, owner in enumerate(state.owners):
        if owner.ready and owner.seen < state.end and owner.epoch == state.epoch and not rules.owner_lags:
            state = _read(state, index)
    for index, owner in enumerate(state.owners):
        if owner.phase == WAITING and _complete(state, rules, index, owner):
            completed = max(state.completed, owner.target)
            state = state._replace(completed=completed).with_owner(index, **STOPPED)
    return state


def _complete(state: State, rules: Rules, index: int, owner: Owner) -> bool:
    if owner.replaced < WAITED:
        return False
    if rules.asks_for_the_name_of_the_log and owner.epoch != owner.log:
        return False
    if rules.owner_waits_for_its_own_tables and owner.seen < owner.revision:
        return False
    views = [r.views[index] for r in state.replicas]
    return all(
        view is None or rules.standing(view[0] >= owner.revision, view[1], owner.acknowledged) != "pending"
        for view in views
    )

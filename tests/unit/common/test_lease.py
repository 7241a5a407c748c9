"""The lease and the receipt, step by step: who may believe what, and when. A clock and a bus made by hand."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from libs.common.control import lease as lease_module
from libs.common.control import owner as owner_module
from libs.common.control.entries import Replica
from libs.common.control.lease import Lease
from libs.common.control.owner import DRIFT, MARGIN, Owner
from libs.common.control.tables import Tables
from libs.common.settings import Settings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Ack:
    seq: int


@dataclass
class Bus:
    """Acknowledges each write with the next sequence; `js` is itself."""

    last: int = 10

    def on_return(self, callback: Any) -> None: ...

    @property
    def js(self) -> "Bus":
        return self

    async def publish(self, *_: Any, **__: Any) -> Ack:
        self.last += 1
        return Ack(self.last)


@dataclass
class Follower:
    tables: Tables = field(default_factory=Tables)
    heard: dict[str, float] = field(default_factory=dict)
    applied: int = 10
    restarted: int = 0
    replaced_at: float = float("-inf")
    callbacks: list[Any] = field(default_factory=list)
    born: str = "first"
    present: str = "first"
    on_applied_callbacks: list[Any] = field(default_factory=list)
    anew: list[Any] = field(default_factory=list)

    def subscribe(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def on_applied(self, callback: Any) -> None:
        self.on_applied_callbacks.append(callback)

    def on_anew(self, callback: Any) -> None:
        self.anew.append(callback)

    def restart(self) -> None:
        self.restarted += 1

    async def present_log(self) -> str:
        if self.present != self.born:
            self.restart()
        return self.present

    def deliver(self, seq: int, key: str = "replica.one", *, counts: bool = True) -> None:
        for callback in self.callbacks:
            callback(key, b"{}", seq)
        if counts:
            self.count(seq)

    def count(self, seq: int) -> None:
        self.applied = seq
        for callback in self.on_applied_callbacks:
            callback(seq)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lease_module, "elapsed", clock)
    monkeypatch.setattr(owner_module, "elapsed", clock)
    return clock


@dataclass
class Scene:
    lease: Lease
    bus: Bus
    follower: Follower
    clock: Clock


@pytest.fixture
def scene(clock: Clock) -> Scene:
    bus, follower = Bus(), Follower()
    replica = Replica(id="one", revision=0, applied_at="", lease=5)
    return Scene(Lease(bus, follower, replica), bus, follower, clock)  # type: ignore[arg-type]


async def test_an_acknowledgement_alone_proves_nothing(scene: Scene) -> None:
    await scene.lease._beat()
    assert not scene.lease.valid


async def test_the_proof_is_good_from_the_sending_not_from_the_return(scene: Scene) -> None:
    await scene.lease._beat()
    scene.clock.now += 4
    scene.follower.deliver(11)
    assert scene.lease.valid
    scene.clock.now += 1.1
    assert not scene.lease.valid


async def test_a_heartbeat_with_something_missing_before_it_proves_nothing(
    scene: Scene,
) -> None:
    await scene.lease._beat()
    scene.follower.deliver(11, counts=False)
    assert not scene.lease.valid
    scene.follower.deliver(12)
    assert scene.lease.valid


async def test_an_earlier_heartbeat_proves_only_its_own_sending(scene: Scene) -> None:
    await scene.lease._beat()
    scene.clock.now += 4
    await scene.lease._beat()
    scene.follower.deliver(11)
    scene.clock.now += 1.1
    assert not scene.lease.valid, "only the first has come back"
    scene.follower.deliver(12)
    assert scene.lease.valid


async def test_a_heartbeat_proves_its_sending_once_it_is_known_that_nothing_is_missing(scene: Scene) -> None:
    await scene.lease._beat()
    scene.follower.deliver(11, counts=False)
    scene.follower.count(11)
    assert scene.lease.valid


async def test_what_was_proven_of_a_log_proves_nothing_of_another(scene: Scene) -> None:
    await scene.lease._beat()
    scene.follower.deliver(11)
    await scene.lease._beat()
    assert scene.lease.valid
    for callback in scene.follower.anew:
        callback()
    scene.follower.deliver(12)
    assert not scene.lease.valid


async def test_a_write_that_stands_before_what_was_read_is_in_another_log(scene: Scene) -> None:
    scene.bus.last = 3
    await scene.lease._beat()
    assert not scene.lease.valid
    assert scene.follower.restarted == 1


async def test_a_write_into_a_log_of_another_name_proves_nothing(scene: Scene) -> None:
    scene.follower.present = "second"
    await scene.lease._beat()
    scene.follower.deliver(11)
    assert not scene.lease.valid
    assert scene.follower.restarted, "it is read anew"


# -- the receipt -----------------------------------------------------------------------------------


def owner_of(replica: Replica, heard: float, clock: Clock) -> Owner:
    follower = Follower(heard={replica.id: heard})
    follower.tables.replicas[replica.id] = replica

    async def desired(_: object) -> dict[str, Any]:
        return {}

    return Owner(Bus(), follower, Settings(), {"server"}, desired)  # type: ignore[arg-type]


def states(owner: Owner, acknowledged: float) -> list[str]:
    return [state.state for state in owner._states(20, acknowledged)]


LEASE = 5.0
EXPIRY = LEASE * (1 + DRIFT) + MARGIN


def replica(revision: int, **values: Any) -> Replica:
    return Replica(id="r", revision=revision, applied_at="t", lease=LEASE, **values)


# revision, on_stale, seconds since it was heard at the acknowledgement, seconds since that -> state
CASES: dict[str, tuple[int, str, float, float, list[str]]] = {
    "it has applied the change": (20, "refuse", 0, 0, ["applied"]),
    "it has not reported": (19, "refuse", 0.5, 1, ["pending"]),
    "its lease may just hold": (19, "refuse", 0.5, EXPIRY - 0.01, ["pending"]),
    "its lease has run out": (19, "refuse", 0.5, EXPIRY + 0.01, ["lease_expired"]),
    "it was gone before the change": (19, "refuse", EXPIRY + 0.01, 0, []),
    "it may have had a lease at the change": (19, "refuse", EXPIRY - 0.01, 0, ["pending"]),
    "it decides without a lease": (19, "serve", 0.5, EXPIRY + 100, ["pending"]),
    "it decides without a lease and is long unheard of": (19, "serve", 1000, 0, ["pending"]),
}


@pytest.mark.parametrize("name", CASES)
async def test_how_a_change_stands_at_a_replica(clock: Clock, name: str) -> None:
    revision, on_stale, silent, waited, expected = CASES[name]
    acknowledged = clock.now
    owner = owner_of(replica(revision, on_stale=on_stale), acknowledged - silent, clock)
    clock.now += waited
    await asyncio.sleep(0)
    assert states(owner, acknowledged) == expected

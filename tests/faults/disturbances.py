"""What goes wrong while something is switched off. Each mends what it broke."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from random import Random

from tests.faults.fleet import LEASE, Fleet, Member
from tests.faults.levels import Change
from tests.faults.relay import Way

# Does its harm, calls `go()` when the change may be asked for, and mends it.
Disturbance = Callable[[Fleet, Random, Change, Callable[[], None]], Awaitable[None]]

COMMITTED_WITHIN = 20.0  # seconds


async def nothing(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    go()


async def pause_a_replica(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    replica = chance.choice(fleet.replicas)
    replica.signal(signal.SIGSTOP)
    try:
        await _meanwhile(chance, go)
    finally:
        replica.signal(signal.SIGCONT)


async def kill_a_replica(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    replica = chance.choice(fleet.replicas)
    replica.process.kill()
    go()
    await asyncio.sleep(_length(chance))
    await replica.process.start()


async def cut_a_replica(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    relay = chance.choice(fleet.replicas).relay
    await _cut([relay.to_nats, relay.from_nats], chance, go)


async def deafen_a_replica(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    await _cut([chance.choice(fleet.replicas).relay.from_nats], chance, go)


async def mute_a_replica(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    await _cut([chance.choice(fleet.replicas).relay.to_nats], chance, go)


async def delay_the_watch(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    relay = chance.choice(fleet.replicas).relay
    relay.from_nats.delay = chance.uniform(0.1, LEASE)
    try:
        await _meanwhile(chance, go)
    finally:
        relay.mend()


async def cut_the_owner(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    relay = fleet.members[change.owner].relay
    ways = [[relay.to_nats], [relay.from_nats], [relay.to_nats, relay.from_nats]]
    await _cut(chance.choice(ways), chance, go)


async def restart_nats(fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]) -> None:
    assert fleet.nats.process
    fleet.nats.process.kill()
    fleet.nats.process.wait()
    try:
        await _meanwhile(chance, go)
    finally:
        await asyncio.to_thread(fleet.nats.start)


async def kill_the_owner_between_commit_and_log(
    fleet: Fleet, chance: Random, change: Change, go: Callable[[], None]
) -> None:
    owner = fleet.members[change.owner]
    before = owner.commits()
    owner.relay.to_nats.open.clear()  # so that it commits, and its write to the log does not get through
    try:
        go()
        await _committed(owner, before)
        owner.process.kill()
    finally:
        owner.relay.mend()
    await asyncio.sleep(_length(chance))
    await owner.process.start()


async def _committed(owner: Member, before: int) -> None:
    async with asyncio.timeout(COMMITTED_WITHIN):
        while owner.commits() == before:
            await asyncio.sleep(0.005)


async def _cut(ways: list[Way], chance: Random, go: Callable[[], None]) -> None:
    for way in ways:
        way.open.clear()
    try:
        await _meanwhile(chance, go)
    finally:
        for way in ways:
            way.open.set()


async def _meanwhile(chance: Random, go: Callable[[], None]) -> None:
    """The change is asked for at some moment after the harm, which lasts longer or shorter than a lease."""
    await asyncio.sleep(chance.choice([0.0, chance.uniform(0, LEASE)]))
    go()
    await asyncio.sleep(_length(chance))


def _length(chance: Random) -> float:
    return chance.uniform(0.05, 1.8 * LEASE)


DISTURBANCES: dict[str, Disturbance] = {
    "nothing": nothing,
    "a replica is paused": pause_a_replica,
    "a replica is killed": kill_a_replica,
    "a replica is cut off": cut_a_replica,
    "a replica hears nothing": deafen_a_replica,
    "a replica cannot speak": mute_a_replica,
    "a replica hears late": delay_the_watch,
    "the owner is cut off": cut_the_owner,
    "NATS is killed": restart_nats,
    "the owner is killed between commit and log": kill_the_owner_between_commit_and_log,
}

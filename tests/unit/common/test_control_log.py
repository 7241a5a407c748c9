"""The control log against a real NATS server: order, completeness, lease, receipt, reconciliation."""

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack

import msgspec
import pytest

from libs.common.bus import Bus
from libs.common.clock import iso, now
from libs.common.control.entries import AnyEntry, Group, Replica, Server, User, key_of
from libs.common.control.follower import SUBJECT, Follower
from libs.common.control.lease import Lease
from libs.common.control.owner import Owner
from libs.common.errors import Unavailable
from libs.common.settings import Settings
from tests.conftest import Nats, eventually


class Party:
    """Several members of one bus, stopped together at the end."""

    def __init__(self, nats: Nats, stack: AsyncExitStack) -> None:
        self.settings = Settings(nats_url=nats.url, lease=1.0)
        self._stack = stack

    async def bus(self) -> Bus:
        bus = Bus(self.settings, "test")
        await bus.start()
        self._stack.push_async_callback(bus.stop)
        return bus

    async def follower(self) -> Follower:
        follower = Follower(await self.bus(), self.settings)
        await follower.start()
        self._stack.push_async_callback(follower.stop)
        return follower

    async def replica(self, name: str) -> tuple[Follower, Lease]:
        bus = await self.bus()
        follower = Follower(bus, self.settings)
        entry = Replica(id=name, revision=0, applied_at=iso(now()), lease=self.settings.lease)
        lease = Lease(bus, follower, entry)
        await follower.start()
        await lease.start()
        self._stack.push_async_callback(follower.stop)
        self._stack.push_async_callback(lease.stop)
        return follower, lease

    async def owner(self, rows: dict[str, AnyEntry], pause: "Pause | None" = None) -> Owner:
        """An owner of servers and users whose database is `rows`, which answers late while it is paused."""

        async def desired(keys: Collection[str] | None) -> Mapping[str, AnyEntry]:
            found = {key: entry for key, entry in rows.items() if keys is None or key in keys}
            if pause:
                pause.asked.set()
                await pause.over.wait()
            return found

        bus = await self.bus()
        follower = Follower(bus, self.settings)
        owner = Owner(bus, follower, self.settings, {"server", "user"}, desired)
        await follower.start()
        await owner.start()
        self._stack.push_async_callback(follower.stop)
        self._stack.push_async_callback(owner.stop)
        return owner


class Pause:
    """A database that has read a row, and takes its time to hand it over."""

    def __init__(self) -> None:
        self.asked, self.over = asyncio.Event(), asyncio.Event()
        self.over.set()


@pytest.fixture
async def party(nats: Nats) -> AsyncIterator[Party]:
    async with AsyncExitStack() as stack:
        yield Party(nats, stack)


def server(version: int = 1, *, enabled: bool = True, slug: str = "demo") -> Server:
    return Server(version=version, slug=slug, name="Demo", url="http://127.0.0.1:1/mcp", enabled=enabled)


async def test_a_change_is_on_every_replica_when_the_receipt_comes(party: Party) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    owner = await party.owner(rows)
    replicas = [await party.replica(name) for name in ("one", "two")]
    await eventually(lambda: all(lease.valid for _, lease in replicas))

    rows["server.demo"] = server(2, enabled=False)
    receipt = await owner.publish("server.demo")

    assert receipt.complete
    assert {(r.replica, r.state) for r in receipt.replicas} == {("one", "applied"), ("two", "applied")}
    for follower, _ in replicas:
        assert follower.tables.servers["demo"].enabled is False
        assert follower.applied >= receipt.revision


async def test_a_removed_row_leaves_the_log_of_every_replica(party: Party) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    owner = await party.owner(rows)
    follower, _ = await party.replica("one")
    assert "demo" in follower.tables.servers

    del rows["server.demo"]
    receipt = await owner.publish("server.demo")

    assert receipt.complete
    assert "demo" not in follower.tables.servers
    rows["server.demo"] = server(3)
    assert (await owner.publish("server.demo")).complete
    assert follower.tables.servers["demo"].version == 3


async def test_a_replica_that_starts_later_knows_everything_before_it_has_a_lease(party: Party) -> None:
    rows: dict[str, AnyEntry] = {f"server.s{n}": server(slug=f"s{n}") for n in range(500)}
    await party.owner(rows)
    follower, lease = await party.replica("late")
    assert len(follower.tables.servers) == 500
    await eventually(lambda: lease.valid)


async def test_without_nats_the_lease_runs_out_and_comes_back(party: Party, nats: Nats) -> None:
    _, lease = await party.replica("one")
    await eventually(lambda: lease.valid)
    nats.stop()
    await eventually(lambda: not lease.valid)
    nats.start()
    await eventually(lambda: lease.valid, within=15)


async def test_a_silent_replica_delays_the_receipt_until_its_lease_has_run_out(party: Party) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    owner = await party.owner(rows)
    bus = await party.bus()
    silent = Replica(id="silent", revision=0, applied_at=iso(now()), lease=1.0)
    await bus.js.publish(SUBJECT + key_of(silent), msgspec.json.encode(silent))

    rows["server.demo"] = server(2)
    receipt = await owner.publish("server.demo")

    assert receipt.complete
    assert [(r.replica, r.state) for r in receipt.replicas] == [("silent", "lease_expired")]


async def test_a_silent_replica_that_serves_when_stale_keeps_the_receipt_open(party: Party) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    owner = await party.owner(rows)
    bus = await party.bus()
    silent = Replica(id="silent", revision=0, applied_at=iso(now()), lease=1.0, on_stale="serve")
    await bus.js.publish(SUBJECT + key_of(silent), msgspec.json.encode(silent))

    rows["server.demo"] = server(2)
    receipt = await owner.publish("server.demo")

    assert (receipt.complete, receipt.status) == (False, 202)
    assert [(r.replica, r.state) for r in receipt.replicas] == [("silent", "pending")]


async def test_a_change_without_nats_is_pending_and_completed_later(party: Party, nats: Nats) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    owner = await party.owner(rows)
    nats.stop()
    rows["server.demo"] = server(2)
    receipt = await owner.publish("server.demo")
    assert (receipt.complete, receipt.status) == (False, 202)

    nats.start()

    async def reconciled() -> bool:
        try:
            await owner.reconcile()
        except (Unavailable, OSError, TimeoutError):
            return False
        return True

    while not await reconciled():
        pass
    follower = await party.follower()
    assert follower.tables.servers["demo"].version == 2


async def test_a_change_without_nats_is_completed_soon_after_its_return(party: Party, nats: Nats) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    owner = await party.owner(rows)
    nats.stop()
    rows["server.demo"] = server(2)
    assert not (await owner.publish("server.demo")).complete

    nats.start()

    follower = await party.follower()
    await eventually(lambda: follower.tables.servers["demo"].version == 2, within=15)


async def test_what_counts_as_applied_is_applied_however_quickly_it_is_overwritten(party: Party) -> None:
    """What the server counts as pending is zero at times while what replaced a skipped value is stored."""
    follower, bus = await party.follower(), await party.bus()
    written: dict[int, str] = {}  # revision -> key, as this writer's are the only ones
    read: dict[str, int] = {}
    missing: list[int] = []

    def check(applied: int) -> None:
        missing.extend(r for r, key in written.items() if r <= applied and read.get(key, 0) < r)
        for revision in [r for r in written if r <= applied]:
            del written[revision]

    follower.subscribe(lambda key, value, revision: read.__setitem__(key, revision))
    follower.on_applied(check)
    chance, revision = random.Random(5), follower.applied
    entry = msgspec.json.encode(server())
    for _ in range(300):
        for _ in range(chance.choice([2, 3, 8, 50])):
            key, revision = f"server.s{chance.randrange(2)}", revision + 1
            written[revision] = key
            await bus.client.publish(SUBJECT + key, entry)
        await bus.client.flush()
    await eventually(lambda: follower.applied == revision)
    assert not missing


async def test_two_replicas_of_a_service_never_put_an_old_row_over_a_new_one(party: Party) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    first, second = await party.owner(rows), await party.owner(rows)
    for version in range(2, 30):
        rows["server.demo"] = server(version)
        await (first if version % 2 else second).publish("server.demo")
    follower = await party.follower()
    assert follower.tables.servers["demo"].version == 29
    assert await first.reconcile() == 0


async def test_a_slow_writer_with_an_old_row_does_not_win_over_a_newer_one(party: Party) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    pause = Pause()
    slow, quick = await party.owner(rows, pause), await party.owner(rows)
    rows["server.demo"] = server(2)
    pause.asked.clear()
    pause.over.clear()
    late = asyncio.create_task(slow.publish("server.demo"))
    await pause.asked.wait()  # it has read version 2 and not written it yet

    rows["server.demo"] = server(3)
    await quick.publish("server.demo")
    pause.over.set()

    assert (await late).complete
    follower = await party.follower()
    assert follower.tables.servers["demo"].version == 3


async def test_reconciliation_removes_what_the_database_does_not_have(party: Party) -> None:
    bus = await party.bus()
    await party.follower()  # makes the bucket
    stray = server(slug="stray")
    await bus.js.publish(SUBJECT + key_of(stray), msgspec.json.encode(stray))
    other = Group(version=1, id="g", name="not ours")
    await bus.js.publish(SUBJECT + key_of(other), msgspec.json.encode(other))

    await party.owner({"server.demo": server()})

    follower = await party.follower()
    assert set(follower.tables.servers) == {"demo"}
    assert set(follower.tables.groups) == {"g"}


async def test_what_is_overwritten_quickly_still_counts_as_applied(party: Party) -> None:
    """Values replaced before delivery leave holes; the applied revision must not get stuck on them."""
    follower, lease = await party.replica("one")
    bus = await party.bus()
    for version in range(2000):
        entry = User(version=version, id="u", email="a@b.example")
        await bus.client.publish(SUBJECT + key_of(entry), msgspec.json.encode(entry))
    await bus.client.flush()
    last = await bus.js.publish(SUBJECT + "server.demo", msgspec.json.encode(server()))
    await eventually(lambda: follower.applied >= last.seq)
    assert follower.tables.users["u"].version == 1999
    await eventually(lambda: lease.valid)


async def test_an_unreadable_entry_counts_as_the_more_restrictive(party: Party) -> None:
    follower = await party.follower()
    bus = await party.bus()
    await bus.js.publish(SUBJECT + "user.u", b'{"version":1,"id":"u","email":"a@b.example"}')
    await bus.js.publish(SUBJECT + "user.u", b"not json")
    await bus.js.publish(SUBJECT + "revoked.g", b"not json")
    last = await bus.js.publish(SUBJECT + "org", b"not json")
    await eventually(lambda: follower.applied >= last.seq)
    assert "u" not in follower.tables.users
    assert "g" in follower.tables.revoked
    assert follower.tables.org.enabled is False


async def test_a_log_that_was_lost_is_written_again(party: Party) -> None:
    rows: dict[str, AnyEntry] = {"server.demo": server()}
    owner = await party.owner(rows)
    bus = await party.bus()
    await bus.js.delete_stream("KV_CONTROL")

    async with asyncio.timeout(15):
        while not await owner.reconcile():  # it has to notice first
            await asyncio.sleep(0.1)

    follower = await party.follower()
    assert "demo" in follower.tables.servers


async def test_another_log_in_place_of_the_one_that_was_read_is_read_from_its_start(
    party: Party, nats: Nats
) -> None:
    follower, lease = await party.replica("one")
    bus = await party.bus()
    for version in range(50):
        await bus.js.publish(SUBJECT + "server.demo", msgspec.json.encode(server(version)))
    await eventually(lambda: "demo" in follower.tables.servers and lease.valid)

    await bus.js.delete_stream("KV_CONTROL")
    newcomer = await party.follower()  # makes the bucket again, empty
    await eventually(lambda: "demo" not in follower.tables.servers, within=15)
    await eventually(lambda: lease.valid, within=15)
    assert follower.applied <= newcomer.applied + 100

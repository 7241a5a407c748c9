"""The shipper against a real NATS server: in order, each line once, through restarts and outages."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from libs.common.bus import Bus
from libs.common.clock import iso, now
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import FIRST_SEQ, LAST_SEQ, STREAM, AuthEvent, subject_of
from libs.common.settings import Settings
from libs.common.shipper import Shipper
from tests.conftest import Nats, eventually


class Ship:
    def __init__(self, nats: Nats, directory: Path, stack: AsyncExitStack) -> None:
        self.settings = Settings(nats_url=nats.url)
        self.directory, self._stack = directory, stack

    async def bus(self) -> Bus:
        bus = Bus(self.settings, "test")
        await bus.start()
        self._stack.push_async_callback(bus.stop)
        return bus

    async def journal(self) -> Journal:
        journal = Journal(self.directory, segment_bytes=4000)
        await journal.start()
        return journal

    async def sail(self, journal: Journal) -> Shipper:
        shipper = Shipper(await self.bus(), journal, self.settings)
        await shipper.start()
        self._stack.push_async_callback(shipper.stop)
        return shipper

    async def shipped(self) -> list[int]:
        """The `seq` of every line in the stream, in the stream's order; headers are checked on the way."""
        bus = await self.bus()
        seqs: list[int] = []
        try:
            state = (await bus.js.stream_info(STREAM)).state
        except NotFoundError:
            return seqs
        for sequence in range(max(1, state.first_seq), state.last_seq + 1):
            try:
                message = await bus.js.get_msg(STREAM, sequence)
            except NotFoundError:  # purged
                continue
            assert message.data and message.headers
            lines = [json.loads(line)["seq"] for line in message.data.split(b"\n")]
            assert (int(message.headers[FIRST_SEQ]), int(message.headers[LAST_SEQ])) == (lines[0], lines[-1])
            seqs += lines
        return seqs

    async def arrived(self, count: int) -> list[int]:
        seqs: list[int] = []
        while len(seqs) < count:
            seqs = await self.shipped()
        return seqs


@pytest.fixture
async def ship(nats: Nats, tmp_path: Path) -> AsyncIterator[Ship]:
    async with AsyncExitStack() as stack:
        yield Ship(nats, tmp_path / "journal", stack)


def write(journal: Journal, count: int) -> None:
    for _ in range(count):
        journal.append(AuthEvent(id=new_id(), time=iso(now()), event="login", outcome="ok"))


async def test_lines_arrive_once_and_in_order_while_they_are_written(ship: Ship) -> None:
    journal = await ship.journal()
    await ship.sail(journal)
    for _ in range(20):
        write(journal, 25)
        await ship.bus()  # lets the shipper run in between
    assert await ship.arrived(500) == list(range(1, 501))
    await eventually(lambda: journal.backlog < 20_000)  # shipped segments are deleted


async def test_a_restart_goes_on_where_the_stream_ends(ship: Ship) -> None:
    journal = await ship.journal()
    shipper = await ship.sail(journal)
    write(journal, 100)
    await ship.arrived(100)
    await shipper.stop()
    write(journal, 50)
    await journal.stop()

    journal = await ship.journal()
    await ship.sail(journal)
    write(journal, 50)
    assert await ship.arrived(200) == list(range(1, 201))


async def test_while_nats_is_away_the_journal_holds_and_nothing_is_lost(ship: Ship, nats: Nats) -> None:
    journal = await ship.journal()
    await ship.sail(journal)
    write(journal, 10)
    await ship.arrived(10)
    nats.stop()
    write(journal, 300)
    nats.start()
    assert await ship.arrived(310) == list(range(1, 311))


async def test_a_publish_whose_answer_was_lost_is_not_repeated(ship: Ship) -> None:
    """Somebody published what we were about to: the stream says so, and we go on behind it."""
    journal = await ship.journal()
    shipper = await ship.sail(journal)
    write(journal, 3)
    await ship.arrived(3)
    bus = await ship.bus()
    headers = {FIRST_SEQ: "4", LAST_SEQ: "4"}
    data = b'{"seq":4}'
    await bus.js.publish(subject_of("auth_events", journal.replica), data, stream=STREAM, headers=headers)
    write(journal, 2)
    assert await ship.arrived(5) == [1, 2, 3, 4, 5]
    await shipper.stop()


async def test_a_line_too_long_for_the_server_is_cut_and_blocks_nothing(
    ship: Ship, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await ship.journal()
    long = AuthEvent(id=new_id(), time=iso(now()), event="login", outcome="ok", detail="x" * 800_000)
    journal.append(long)
    write(journal, 3)
    shipper = Shipper(await ship.bus(), journal, ship.settings)
    shipper._bus.client._max_payload = 64 * 1024
    await shipper.start()
    assert await ship.arrived(4) == [1, 2, 3, 4]
    await shipper.stop()


async def test_many_lines_are_split_by_what_a_message_may_hold(ship: Ship) -> None:
    journal = await ship.journal()
    for _ in range(20):
        journal.append(
            AuthEvent(id=new_id(), time=iso(now()), event="login", outcome="ok", detail="x" * 90_000)
        )
    await ship.sail(journal)
    assert await ship.arrived(20) == list(range(1, 21))


async def test_what_activity_purged_behind_the_last_message_is_not_shipped_again(ship: Ship) -> None:
    journal = await ship.journal()
    shipper = await ship.sail(journal)
    write(journal, 5)
    await ship.arrived(5)
    await shipper.stop()
    write(journal, 5)
    bus = await ship.bus()
    subject = subject_of("auth_events", journal.replica)
    last = await bus.js.get_last_msg(STREAM, subject)
    await bus.js.purge_stream(STREAM, subject=subject, seq=last.seq)
    await ship.sail(journal)
    while (seqs := await ship.shipped())[-1:] != [10]:
        pass
    assert seqs == sorted(set(seqs))
    await journal.stop()


async def test_it_stops_at_once_though_the_cancellation_is_lost_to_an_acknowledgement(
    ship: Ship, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.wait_for` of Python 3.11, in our NATS client, swallows one that comes with its answer."""
    bus, journal, publishing = await ship.bus(), await ship.journal(), asyncio.Event()
    publish = bus.js.publish

    async def losing(*args: Any, **options: Any) -> Any:
        publishing.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await publish(*args, **options)

    async def cancel_once(task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.wait([task])

    monkeypatch.setattr(bus.js, "publish", losing)
    monkeypatch.setattr("libs.common.shipper.cancel", cancel_once)
    shipper = Shipper(bus, journal, ship.settings)
    await shipper.start()
    write(journal, 1)
    await publishing.wait()
    stopped, _ = await asyncio.wait({asyncio.create_task(shipper.stop())}, timeout=10)
    assert stopped
    assert await ship.shipped() == [1]

"""The journal: nothing written is lost, nothing is written twice, whatever the process dies of."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from libs.common.clock import iso, now
from libs.common.ids import new_id
from libs.common.journal import Journal, JournalInUse, JournalUnavailable, Line, Position
from libs.common.records import AuthEvent, CallRecord


def call(**values: object) -> CallRecord:
    base = {
        "id": new_id(),
        "time": iso(now()),
        "status": "admitted",
        "server": "demo",
        "method": "tools/call",
    }
    base |= {"user": "u", "email": "u@x.example", "grant": "g", "client_id": "c"}
    return CallRecord(**(base | values))  # type: ignore[arg-type]


def read_all(journal: Journal) -> list[Line]:
    position, lines = journal.begin(), []
    while True:
        some, after = journal.read(position, 64 * 1024)
        lines += some
        if after == position:
            return lines
        position = after


async def reopened(journal: Journal, directory: Path) -> Journal:
    await journal.stop()
    again = Journal(directory)
    await again.start()
    return again


async def test_finished_calls_are_lines_with_a_gapless_sequence_per_table(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.start()
    for number in range(5):
        record = call(tool=f"t{number}")
        await journal.admit(record)
        record.status = "ok"
        journal.finish(record)
    journal.append(AuthEvent(id=new_id(), time=iso(now()), event="token_refused", outcome="refused"))
    await asyncio.sleep(0)

    lines = read_all(journal)
    assert [(line.table, line.seq) for line in lines] == [
        *[("tool_calls", seq) for seq in range(1, 6)],
        ("auth_events", 1),
    ]
    rows = [json.loads(line.data) for line in lines]
    assert [row["tool"] for row in rows[:5]] == ["t0", "t1", "t2", "t3", "t4"]
    assert {row["replica"] for row in rows} == {journal.replica}
    await journal.stop()


async def test_a_call_left_open_is_closed_as_unknown_by_the_next_process(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.start()
    left, done = call(tool="left"), call(tool="done")
    await journal.admit(left)
    await journal.admit(done)
    done.status = "ok"
    journal.finish(done)
    await asyncio.sleep(0)
    replica = journal.replica

    journal = await reopened(journal, tmp_path)

    rows = {row["tool"]: row for row in (json.loads(line.data) for line in read_all(journal))}
    assert (rows["left"]["status"], rows["left"]["reason"]) == ("unknown", "replica_died")
    assert rows["done"]["status"] == "ok"
    assert (rows["left"]["seq"], rows["done"]["seq"]) == (2, 1)
    assert journal.replica == replica
    journal = await reopened(journal, tmp_path)
    assert len(read_all(journal)) == 2
    await journal.stop()


async def test_a_torn_last_line_is_no_line_and_its_number_is_given_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.start()
    for _ in range(2):
        journal.append(AuthEvent(id=new_id(), time=iso(now()), event="login", outcome="ok"))
    await journal.stop()
    segment = max(tmp_path.glob("segment-*.log"))
    segment.write_bytes(segment.read_bytes()[:-10])

    journal = Journal(tmp_path)
    await journal.start()
    journal.append(AuthEvent(id=new_id(), time=iso(now()), event="logout", outcome="ok"))

    assert [(line.seq, json.loads(line.data)["event"]) for line in read_all(journal)] == [
        (1, "login"),
        (2, "logout"),
    ]
    await journal.stop()


async def test_segments_rotate_and_go_when_shipped_but_open_calls_and_numbers_stay(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=2000)
    await journal.start()
    stream = call(tool="stream")
    await journal.admit(stream)
    for _ in range(50):
        record = call()
        await journal.admit(record)
        journal.finish(record)
        await asyncio.sleep(0)
    lines = read_all(journal)
    assert [line.seq for line in lines] == list(range(1, 51))

    position = journal.begin()
    while (after := journal.read(position, 64 * 1024)[1]) != position:
        position = after
    journal.release(position)
    assert len(list(tmp_path.glob("segment-*.log"))) == 1

    journal = await reopened(journal, tmp_path)
    rows = [json.loads(line.data) for line in read_all(journal)]
    assert rows[-1]["tool"] == "stream"
    assert (rows[-1]["status"], rows[-1]["seq"]) == ("unknown", 51)
    await journal.stop()


async def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.start()
    with pytest.raises(JournalInUse):
        await Journal(tmp_path).start()
    await journal.stop()


async def test_a_journal_that_cannot_be_written_refuses_calls_and_recovers_without_loss(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    await journal.start()
    full = os.open("/dev/full", os.O_WRONLY)
    real, journal._fd = journal._fd, full
    refused = call(tool="refused")
    with pytest.raises(JournalUnavailable):
        await journal.admit(refused)
    refused.status = "denied"
    journal.finish(refused)
    assert journal.problem()
    with pytest.raises(JournalUnavailable):
        await journal.admit(call(tool="refused too"))

    journal._fd = real
    os.close(full)
    assert journal.problem() is None
    admitted = call(tool="admitted")
    await journal.admit(admitted)
    journal.finish(admitted)
    await asyncio.sleep(0)
    rows = [json.loads(line.data) for line in read_all(journal)]
    assert [(row["seq"], row["tool"]) for row in rows] == [(1, "refused"), (2, "admitted")]
    await journal.stop()


async def test_a_short_write_is_completed_later_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up in the middle of a line, while somebody reads along."""
    journal = Journal(tmp_path)
    await journal.start()
    write, room = os.write, [10]

    def limited(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        taken = write(fd, data[: room[0]])
        room[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", limited)
    with pytest.raises(JournalUnavailable):
        await journal.admit(call(tool="cut"))
    _, position = journal.read(journal.begin(), 1024)
    waiting = asyncio.create_task(journal.wait())
    await asyncio.sleep(0)  # the loop is alive
    assert not waiting.done()

    monkeypatch.setattr(os, "write", write)
    record = call(tool="whole")
    await journal.admit(record)
    journal.finish(record)
    await asyncio.wait_for(waiting, 5)
    await asyncio.sleep(0)
    lines, _ = journal.read(position, 64 * 1024)
    assert [json.loads(line.data)["tool"] for line in lines] == ["whole"]
    await journal.stop()


async def test_refusals_do_not_pile_up_while_nothing_can_be_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=1000, max_bytes=5000)
    await journal.start()
    while not journal.problem():
        journal.append(AuthEvent(id=new_id(), time=iso(now()), event="login", outcome="ok"))
    size = journal.backlog
    for _ in range(100):
        journal.finish(call(status="denied"))
    await asyncio.sleep(0)
    assert (journal.backlog, journal.dropped) == (size, 100)
    await journal.stop()


async def test_a_full_journal_refuses_calls_until_segments_are_shipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=1000, max_bytes=5000)
    await journal.start()
    with pytest.raises(JournalUnavailable, match="NATS"):
        while True:
            record = call()
            await journal.admit(record)
            journal.finish(record)
            await asyncio.sleep(0)
    position = journal.begin()
    while (after := journal.read(position, 64 * 1024)[1]) != position:
        position = after
    journal.release(position)
    await journal.admit(call())
    await journal.stop()


async def test_a_record_too_long_for_a_message_is_cut_and_says_how_long_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.start()
    record = call(input="\x01" * 400_000, input_bytes=400_000)
    await journal.admit(record)
    journal.finish(record)
    await asyncio.sleep(0)
    (line,) = read_all(journal)
    assert len(line.data) < 1024 * 1024
    assert json.loads(line.data)["input_bytes"] == 400_000
    await journal.stop()


async def test_a_reader_waits_until_there_is_something(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.start()
    _, position = journal.read(journal.begin(), 1024)
    waiting = asyncio.create_task(journal.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.to_thread(
        journal.append, AuthEvent(id=new_id(), time=iso(now()), event="login", outcome="ok")
    )
    await asyncio.wait_for(waiting, 5)
    assert position == Position(1, position.offset)
    await journal.stop()


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from libs.common.journal import Journal
    from tests.unit.common.test_journal import call

    async def main():
        journal = Journal(Path(sys.argv[1]), segment_bytes=20_000)
        await journal.start()
        while True:
            record = call()
            await journal.admit(record)
            print("admitted", record.id, flush=True)
            record.status = "ok"
            journal.finish(record)

    asyncio.run(main())
"""


async def test_kill_minus_nine_loses_and_doubles_nothing(tmp_path: Path) -> None:
    admitted: set[str] = set()
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(500)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
        admitted |= {
            line.split()[1] for line in lines if line.startswith("admitted ") and line.endswith("\n")
        }
        process.stdout.close()
        process.wait()

    journal = Journal(tmp_path)
    await journal.start()
    written = read_all(journal)
    recorded = [json.loads(line.data)["id"] for line in written]
    assert [line.seq for line in written] == list(range(1, len(written) + 1))
    assert len(admitted) > 1000
    assert len(recorded) == len(set(recorded))
    assert admitted <= set(recorded)
    await journal.stop()

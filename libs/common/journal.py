"""The journal: append-only files of one process that no record goes around.

A directory is one `replica`; a new directory is a new replica. It holds segments of lines:

    S <counters>                        first in each segment: the newest sequence number per table
    A <id> <record>                     a call was admitted, written before it is forwarded
    F <table> <seq> <id> <record>       it finished; `<record>` is the line that ClickHouse will get

What is admitted and not finished when a process dies is closed as `unknown` by the next one on the same
directory. Lines of one turn of the event loop are one write. A process that is killed loses nothing that was
written: the page cache is the kernel's. (A machine that loses power may lose the last seconds.)
"""

import asyncio
import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from libs.common.errors import LockgateError
from libs.common.ids import new_id
from libs.common.records import TABLES, AnyRecord, CallRecord, Table, table_of

log = structlog.get_logger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
JOURNAL_BYTES = 2 * 1024 * 1024 * 1024  # beyond this the journal counts as full and calls are refused
# A line has to fit into one message on the bus, whose limit is 1 MiB unless configured otherwise.
LINE_BYTES = 900_000

_encode = msgspec.json.Encoder().encode


class JournalUnavailable(LockgateError):
    """The journal cannot take a record, so the call must not be made."""

    status, type, title = 503, "journal-unavailable", "The journal cannot be written"


class JournalInUse(LockgateError):
    """Another process has this journal directory open."""


@dataclass(frozen=True, slots=True)
class Line:
    """A finished line, ready to be shipped."""

    table: Table
    seq: int
    data: bytes


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a reader stands: segment number and offset in bytes."""

    segment: int = 0
    offset: int = 0


class Journal:
    """Appends records and lets one reader (the shipper) follow. Methods are for the event loop's thread,
    but `append` may be called from any."""

    def __init__(
        self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES, max_bytes: int = JOURNAL_BYTES
    ) -> None:
        self.replica = ""
        self.dropped = 0  # refusals that were only counted, see `finish`
        self._directory = directory
        self._segment_bytes, self._max_bytes = segment_bytes, max_bytes
        self._lock = threading.Lock()
        self._guard: int | None = None  # descriptor that holds the lock on the directory
        self._fd = -1
        self._segment = 0
        self._sizes: dict[int, int] = {}  # bytes written per segment
        self._carried = 0  # of them at the start of the present one, for what is open
        self._counters: dict[Table, int] = dict.fromkeys(TABLES, 0)
        self._open: dict[str, bytes] = {}  # admitted and not finished
        self._buffer: list[bytes] = []
        self._flushed: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._written = asyncio.Event()
        self._problem: str | None = None

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the directory, close what a predecessor left open. Raises `JournalInUse`."""
        self._loop = asyncio.get_running_loop()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._guard = os.open(self._directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalInUse(f"another process is using the journal in {self._directory}") from error
        self.replica = self._identity()
        left_open = self._recover()
        self._rotate()
        for line in left_open.values():
            record = msgspec.json.decode(line, type=CallRecord)
            record.status, record.reason = "unknown", "replica_died"
            self._put_finished(record)
        self._write_buffer()
        if left_open:
            log.warning("journal_closed_left_open", calls=len(left_open))

    async def stop(self) -> None:
        with self._lock:
            self._write_buffer()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    def problem(self) -> str | None:
        """Why the journal cannot take records now; None when it can. What failed before is tried again."""
        with self._lock:
            if self._problem:
                self._write_buffer()
        if self._problem is None and self.backlog >= self._max_bytes:
            return f"the journal holds {self._max_bytes} bytes that could not be shipped: is NATS reachable?"
        return self._problem

    # -- writing ----------------------------------------------------------------------------------

    async def admit(self, record: CallRecord) -> None:
        """Write that a call is about to be forwarded. Raises `JournalUnavailable`: then it must not be."""
        if problem := self.problem():
            raise JournalUnavailable(problem)
        record.replica = self.replica
        line = _fit(record)
        with self._lock:
            self._open[record.id] = line
            self._buffer.append(_admitted(record.id, line))
        await asyncio.shield(self._end_of_turn())

    def finish(self, record: CallRecord) -> None:
        """Write the outcome of a call, admitted or refused. It is on disk at the end of this turn.

        While the journal cannot be written, or is full, refusals of calls that it never admitted are only
        counted: there is no bound to them, and nothing of them reached an upstream.
        """
        never_admitted = record.id not in self._open
        if never_admitted and self.problem():
            self.dropped += 1
            return
        with self._lock:
            self._open.pop(record.id, None)
            self._put_finished(record)
        self._end_of_turn()

    def append(self, record: AnyRecord) -> None:
        """Write a record that is complete as it is, at once. For any thread."""
        with self._lock:
            self._put_finished(record)
            self._write_buffer()
        if self._loop:
            self._loop.call_soon_threadsafe(self._written.set)

    def _put_finished(self, record: AnyRecord) -> None:
        table = table_of(record)
        seq = self._counters[table] = self._counters[table] + 1
        record.replica, record.seq = self.replica, seq
        self._buffer.append(b"F %b %d %b %b\n" % (table.encode(), seq, record.id.encode(), _fit(record)))

    def _end_of_turn(self) -> "asyncio.Future[None]":
        if self._flushed is None:
            assert self._loop is not None
            self._flushed = self._loop.create_future()
            self._loop.call_soon(self._flush)
        return self._flushed

    def _flush(self) -> None:
        flushed, self._flushed = self._flushed, None
        assert flushed is not None
        with self._lock:
            self._write_buffer()
        if self._problem:
            flushed.set_exception(JournalUnavailable(self._problem))
            flushed.exception()  # a turn that only finished calls has nobody waiting
        else:
            flushed.set_result(None)
        self._written.set()

    def _write_buffer(self) -> None:
        """Write what is buffered. What could not be written stays, in order, for the next attempt."""
        if not self._buffer:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
            self._problem = None
        except OSError as error:
            self._buffer.append(data[written:])
            self._problem = f"the journal in {self._directory} cannot be written: {error.strerror}"
            log.error("journal_write_failed", error=str(error))
        self._sizes[self._segment] += written
        if self._sizes[self._segment] - self._carried >= self._segment_bytes and not self._buffer:
            self._rotate()

    def _rotate(self) -> None:
        """Begin a new segment. It repeats what is open, so that older segments need only be shipped."""
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC
        try:
            fd = os.open(self._path(self._segment + 1), flags, 0o600)
        except OSError as error:
            if self._fd < 0:
                raise
            log.error("journal_rotate_failed", error=str(error))  # go on in the present segment
            return
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._segment += 1
        self._sizes[self._segment] = 0
        self._buffer.append(b"S %b\n" % _encode(self._counters))
        self._buffer.extend(_admitted(call, line) for call, line in self._open.items())
        self._carried = sum(map(len, self._buffer))
        self._write_buffer()

    # -- recovery ---------------------------------------------------------------------------------

    def _identity(self) -> str:
        path = self._directory / "replica"
        if not path.exists():
            partial = path.with_suffix(".new")
            partial.write_text(new_id())
            partial.rename(path)
        return path.read_text()

    def _recover(self) -> dict[str, bytes]:
        """Read the counters from the segments that are there. Returns what was left open."""
        left_open: dict[str, bytes] = {}
        for number in self._segments():
            data = self._path(number).read_bytes()
            self._segment, self._sizes[number] = number, len(data)
            for line in _whole_lines(data):
                self._recover_line(line, left_open)
        return left_open

    def _recover_line(self, line: bytes, left_open: dict[str, bytes]) -> None:
        kind, _, rest = line.partition(b" ")
        if kind == b"A":
            call, _, record = rest.partition(b" ")
            left_open[call.decode()] = record
        elif kind == b"F":
            table, seq, finished = _finished_head(rest)
            self._counters[table] = max(self._counters[table], seq)
            left_open.pop(finished, None)
        elif kind == b"S":
            for counted, newest in msgspec.json.decode(rest, type=dict[Table, int]).items():
                self._counters[counted] = max(self._counters[counted], newest)

    def _segments(self) -> list[int]:
        return sorted(int(path.stem.split("-")[1]) for path in self._directory.glob("segment-*.log"))

    def _path(self, segment: int) -> Path:
        return self._directory / f"segment-{segment:010d}.log"

    # -- reading ----------------------------------------------------------------------------------

    def begin(self) -> Position:
        """Where a reader that has read nothing starts."""
        return Position(min(self._sizes), 0)

    def read(self, position: Position, max_bytes: int) -> tuple[list[Line], Position]:
        """Finished lines from `position` on, about `max_bytes` of them, and where to go on."""
        segment, offset = position.segment, position.offset
        with self._lock:
            # Looked up before reading: a segment with a successor is complete.
            later = [number for number in self._sizes if number > segment]
        with self._path(segment).open("rb") as file:
            file.seek(offset)
            data = file.read(max_bytes)
            if len(data) == max_bytes and b"\n" not in data:
                data += file.readline()
        end = data.rfind(b"\n") + 1
        lines = [line for raw in _whole_lines(data[:end]) if (line := _finished(raw))]
        if end or not later:
            return lines, Position(segment, offset + end)
        return [], Position(min(later), 0)

    async def wait(self) -> None:
        """Wait until something is written. Call it without awaiting anything since the last `read`."""
        self._written.clear()
        await self._written.wait()

    def release(self, position: Position) -> None:
        """Everything before `position` is shipped: delete the segments that are no longer needed."""
        with self._lock:
            for number in [number for number in self._sizes if number < min(position.segment, self._segment)]:
                self._path(number).unlink(missing_ok=True)
                del self._sizes[number]

    @property
    def backlog(self) -> int:
        """Bytes on disk, shipped or not."""
        with self._lock:
            return sum(self._sizes.values())


def _admitted(call: str, line: bytes) -> bytes:
    return b"A %b %b\n" % (call.encode(), line)


def _fit(record: AnyRecord) -> bytes:
    line = _encode(record)
    return line if len(line) <= LINE_BYTES else shorten(line, LINE_BYTES)


def shorten(line: bytes, limit: int) -> bytes:
    """A record's `line` with its longest texts cut until it has at most `limit` bytes."""
    record: dict[str, object] = msgspec.json.decode(line)
    longest = limit
    while len(line) > limit and longest > 16:
        longest //= 4
        record = {key: value[:longest] if isinstance(value, str) else value for key, value in record.items()}
        line = _encode(record)
    return line


def _whole_lines(data: bytes) -> Iterator[bytes]:
    """The lines of `data` without their ends. A last line without an end was torn by a death, and is none."""
    lines = data.split(b"\n")
    yield from lines[:-1]


def _finished_head(rest: bytes) -> tuple[Table, int, str]:
    table, seq, call = rest.split(b" ", 3)[:3]
    return table.decode(), int(seq), call.decode()  # type: ignore[return-value]


def _finished(raw: bytes) -> Line | None:
    if not raw.startswith(b"F "):
        return None
    _, table, seq, _, data = raw.split(b" ", 4)
    return Line(table.decode(), int(seq), data)  # type: ignore[arg-type]

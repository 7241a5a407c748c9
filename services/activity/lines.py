"""What arrives: messages of many JSON lines, each line a row of one table. Pure functions over them.

Lines stay bytes. What has to be known of one, its month, is searched for: inside a JSON string a quote is
always escaped, so `"time":"` can only be the field.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from libs.common.errors import LockgateError
from libs.common.records import FIRST_SEQ, LAST_SEQ, TABLES, Table

CHUNK_LINES = 50_000
CHUNK_BYTES = 16 * 1024 * 1024

_MONTH = re.compile(rb'"time":"(\d{4}-\d{2})')


class NotOurs(LockgateError):
    """A message in the stream that no shipper wrote: another subject, or no sequence numbers."""


class Line(NamedTuple):
    """One row to be. Its number is the one that the message's headers give it."""

    replica: str
    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """Lines `first` to `last` (inclusive) of one table and replica, and the message's place in the stream."""

    subject: str
    table: Table
    replica: str
    first: int
    last: int
    data: bytes
    stream_seq: int

    def lines(self) -> list[Line] | None:
        """Its lines; None when their number is not what the headers say."""
        rows = self.data.split(b"\n")
        if len(rows) != self.last - self.first + 1:
            return None
        return [Line(self.replica, seq, row) for seq, row in enumerate(rows, self.first)]


@dataclass(frozen=True, slots=True)
class Gap:
    """Lines `first` to `last` (inclusive) never came."""

    table: Table
    replica: str
    first: int
    last: int


def parse(subject: str, headers: Mapping[str, str] | None, data: bytes, stream_seq: int) -> Message:
    """The message published on `activity.<table>.<replica>`. Raises `NotOurs`."""
    _, table, replica = [*subject.split("."), "", ""][:3]
    try:
        first, last = int((headers or {})[FIRST_SEQ]), int((headers or {})[LAST_SEQ])
    except (KeyError, ValueError) as error:
        raise NotOurs(f"{subject}: no sequence numbers") from error
    if table not in TABLES or not replica or not 1 <= first <= last:
        raise NotOurs(f"{subject}: lines {first} to {last}")
    return Message(subject, table, replica, first, last, data.rstrip(b"\n"), stream_seq)


def gap_before(message: Message, position: int) -> Gap | None:
    """What is missing between `position`, the last line that is in the table, and `message`."""
    if message.first <= position + 1:
        return None
    return Gap(message.table, message.replica, position + 1, message.first - 1)


def chunks(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """`lines` in order, in pieces that can each be one insert.

    A piece is of one month, because ClickHouse makes one part per partition and a crash could leave the later
    part without the earlier; and it is bounded, so that an insert is one block.
    """
    start, size, month = 0, 0, None
    for index, line in enumerate(lines):
        found = _MONTH.search(line.data)
        this = found[1] if found else None
        full = size + len(line.data) > CHUNK_BYTES or index - start >= CHUNK_LINES
        if index > start and (this != month or full):
            yield lines[start:index]
            start, size = index, 0
        size += len(line.data)
        month = this
    if start < len(lines):
        yield lines[start:]

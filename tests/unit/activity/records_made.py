"""Records as gateways write them, and a publisher that puts them into the stream as the shipper does."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from libs.common.bus import Bus
from libs.common.clock import iso
from libs.common.records import FIRST_SEQ, LAST_SEQ, STREAM, AnyRecord, CallRecord, Table, subject_of

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
REPLICA = "replica1"


def call(seq: int, replica: str = REPLICA, **fields: object) -> CallRecord:
    """The call number `seq` of `replica`: one second after the one before, unless `fields` say otherwise."""
    values: dict[str, object] = {
        "replica": replica,
        "seq": seq,
        "id": f"call-{replica}-{seq:08}",
        "time": iso(NOON + timedelta(seconds=seq)),
        "status": "ok",
        "server": "demo",
        "method": "tools/call",
        "tool": "add",
        "user": "u-ada",
        "email": "ada@example.com",
        "grant": "grant1",
        "client_id": "client1",
        "client_name": "Cursor",
        "duration_us": 1500,
        "input": f'{{"name":"add","arguments":{{"a":{seq},"b":2}}}}',
        "input_bytes": 40,
        "output": '{"content":[{"type":"text","text":"3"}]}',
        "output_bytes": 41,
    }
    return CallRecord(**{**values, **fields})  # type: ignore[arg-type]


def calls(first: int, last: int, replica: str = REPLICA) -> list[CallRecord]:
    """The calls `first` to `last` (inclusive) of `replica`."""
    return [call(seq, replica) for seq in range(first, last + 1)]


def encoded(records: Iterable[AnyRecord]) -> list[bytes]:
    return [msgspec.json.encode(record) for record in records]


class Publisher:
    """Puts lines into the stream: subject and headers as `libs.common.shipper` writes them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish(self, records: list[CallRecord], replica: str = REPLICA) -> int:
        """One message. Returns its sequence in the stream."""
        return await self.publish_lines(encoded(records), records[0].seq, replica)

    async def publish_lines(
        self,
        lines: list[bytes],
        first: int,
        replica: str = REPLICA,
        table: Table = "tool_calls",
        last: int = 0,
    ) -> int:
        headers = {FIRST_SEQ: str(first), LAST_SEQ: str(last or first + len(lines) - 1)}
        subject = subject_of(table, replica)
        ack = await self._bus.js.publish(subject, b"\n".join(lines), stream=STREAM, headers=headers)
        return ack.seq

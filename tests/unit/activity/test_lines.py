"""Messages and lines, without any server."""

import pytest

from libs.common.records import FIRST_SEQ, LAST_SEQ
from services.activity import lines as lines_module
from services.activity.lines import Gap, Line, Message, NotOurs, chunks, gap_before, parse


def message(first: int, last: int, data: bytes = b"") -> Message:
    return Message("activity.tool_calls.r", "tool_calls", "r", first, last, data, 1)


def lines_at(*times: str) -> list[Line]:
    return [Line("r", seq, b'{"id":"x","time":"%b"}' % time.encode()) for seq, time in enumerate(times, 1)]


def test_a_message_has_its_table_and_replica_from_the_subject_and_its_numbers_from_the_headers() -> None:
    parsed = parse("activity.auth_events.r1", {FIRST_SEQ: "3", LAST_SEQ: "4"}, b"{}\n{}\n", 99)
    assert (parsed.table, parsed.replica, parsed.stream_seq) == ("auth_events", "r1", 99)
    assert parsed.lines() == [Line("r1", 3, b"{}"), Line("r1", 4, b"{}")]


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        ("activity.tool_calls.r", None),
        ("activity.tool_calls.r", {FIRST_SEQ: "1"}),
        ("activity.tool_calls.r", {FIRST_SEQ: "one", LAST_SEQ: "2"}),
        ("activity.tool_calls.r", {FIRST_SEQ: "3", LAST_SEQ: "2"}),
        ("activity.tool_calls.r", {FIRST_SEQ: "0", LAST_SEQ: "2"}),
        ("activity.schema_migrations.r", {FIRST_SEQ: "1", LAST_SEQ: "1"}),
        ("activity.tool_calls", {FIRST_SEQ: "1", LAST_SEQ: "1"}),
    ],
)
def test_what_no_shipper_wrote_is_not_ours(subject: str, headers: dict[str, str] | None) -> None:
    with pytest.raises(NotOurs):
        parse(subject, headers, b"{}", 1)


def test_lines_of_another_number_than_announced_are_none() -> None:
    assert message(1, 3, b"{}\n{}").lines() is None


@pytest.mark.parametrize(
    ("position", "gap"),
    [(0, Gap("tool_calls", "r", 1, 4)), (3, Gap("tool_calls", "r", 4, 4)), (4, None), (5, None), (9, None)],
)
def test_a_gap_is_what_lies_between_position_and_message(position: int, gap: Gap | None) -> None:
    assert gap_before(message(5, 9), position) == gap


def test_a_chunk_is_of_one_month() -> None:
    october, november = "2026-10-31T23:59:59Z", "2026-11-01T00:00:00Z"
    times = lines_at(october, october, november, october, november)
    assert [[line.seq for line in chunk] for chunk in chunks(times)] == [[1, 2], [3], [4], [5]]


def test_a_time_inside_a_payload_is_not_the_records_time() -> None:
    quoted = rb'{"input":"{\"time\":\"1999-01\"}","time":"2026-11-01T00:00:00Z"}'
    plain = lines_at("2026-11-02T00:00:00Z")[0]
    assert len(list(chunks([plain, Line("r", 2, quoted)]))) == 1


def test_a_chunk_is_bounded_in_lines_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    ten = lines_at(*["2026-11-01T00:00:00Z"] * 10)
    monkeypatch.setattr(lines_module, "CHUNK_LINES", 4)
    assert [len(chunk) for chunk in chunks(ten)] == [4, 4, 2]
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", len(ten[0].data) * 3)
    assert [len(chunk) for chunk in chunks(ten)] == [3, 3, 3, 1]
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", 1)
    assert [len(chunk) for chunk in chunks(ten)] == [1] * 10


def test_no_lines_are_no_chunks() -> None:
    assert list(chunks([])) == []

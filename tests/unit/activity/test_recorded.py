"""Recorded calls over the bus, as policy asks for them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from libs.common.bus import Bus, Refused
from libs.common.clock import iso
from libs.common.records import CallRecord
from libs.common.requests import RECORDED_CALLS, AskRecordedCalls, RecordedCalls
from services.activity.clickhouse import ClickHouse
from services.activity.recorded import INPUT_BYTES, PAGE, Recorded
from services.activity.store import RecordStore
from tests.unit.activity.records_made import NOON, call, encoded

EARLIER = iso(NOON - timedelta(hours=1))


class Answering:
    """The service's answers to questions of `bus`, and the database from which it has them."""

    def __init__(self, bus: Bus, clickhouse: ClickHouse) -> None:
        self._bus, self._store = bus, RecordStore(clickhouse)

    async def record(self, *records: CallRecord) -> None:
        await self._store.insert("tool_calls", b"\n".join(encoded(records)))

    async def ask(self, **query: Any) -> RecordedCalls:
        asked = AskRecordedCalls(**{"methods": ["tools/call"], "since": EARLIER} | query)
        return await self._bus.request(RECORDED_CALLS, asked, RecordedCalls, timeout=30)

    async def all(self, **query: Any) -> list[list[str]]:
        """The ids of the calls on each page."""
        pages, after = [], ""
        while True:
            answer = await self.ask(after=after, **query)
            pages.append([call.id for call in answer.calls])
            after = answer.next
            if not after:
                return pages


@pytest.fixture
async def answering(bus: Bus, clickhouse: ClickHouse) -> AsyncIterator[Answering]:
    await Recorded(bus, clickhouse).start()
    yield Answering(bus, clickhouse)


async def test_a_call_comes_with_its_caller_its_input_and_what_was_decided(answering: Answering) -> None:
    record = call(1, status="denied", reason="rule_denied")
    await answering.record(record)
    (found,) = (await answering.ask()).calls
    assert {name: getattr(found, name) for name in ("id", "user", "email", "client_id", "client_name")} == {
        "id": record.id,
        "user": "u-ada",
        "email": "ada@example.com",
        "client_id": "client1",
        "client_name": "Cursor",
    }
    assert (found.time, found.server, found.method, found.tool) == (record.time, "demo", "tools/call", "add")
    assert (found.status, found.reason) == ("denied", "rule_denied")
    assert (found.input, found.cut) == (record.input, False)


async def test_calls_are_of_the_methods_servers_and_time_that_are_asked_for(answering: Answering) -> None:
    await answering.record(
        call(1),
        call(2, server="wiki"),
        call(3, method="tools/list"),
        call(4, time=iso(NOON - timedelta(hours=2))),
        call(5, method="prompts/get"),
    )

    async def seqs(**query: Any) -> list[int]:
        return [int(id[-8:]) for page in await answering.all(**query) for id in page]

    assert await seqs() == [2, 1]
    assert await seqs(methods=["tools/call", "prompts/get"]) == [5, 2, 1]
    assert await seqs(servers=["demo"]) == [1]
    assert await seqs(servers=["demo", "wiki"]) == [2, 1]
    assert await seqs(since=iso(NOON - timedelta(hours=3))) == [2, 1, 4]


async def test_pages_are_newest_first_and_miss_nothing_at_one_moment(answering: Answering) -> None:
    await answering.record(*(call(seq, time=iso(NOON)) for seq in range(1, 6)), call(6))
    pages = await answering.all(limit=2)
    assert [len(page) for page in pages] == [2, 2, 2]
    found = [id for page in pages for id in page]
    assert len(set(found)) == 6
    assert found[0] == call(6).id


async def test_no_page_is_longer_than_the_service_allows(answering: Answering) -> None:
    await answering.record(*(call(seq, input="{}") for seq in range(1, PAGE + 2)))
    assert len((await answering.ask(limit=10 * PAGE)).calls) == PAGE


async def test_a_page_with_long_inputs_fits_into_a_message(answering: Answering) -> None:
    """Of characters that JSON writes with two, whatever their number."""
    long = '"' * INPUT_BYTES
    await answering.record(*(call(seq, input=long) for seq in range(1, 31)))
    pages = await answering.all()
    assert len(pages) > 1
    assert sum(map(len, pages)) == 30


async def test_an_input_that_was_cut_or_is_too_long_is_not_given(answering: Answering) -> None:
    await answering.record(
        call(1, input='{"name":"ad', input_sha256="ab"), call(2, input="x" * (INPUT_BYTES + 1))
    )
    assert [(call.input, call.cut) for call in (await answering.ask()).calls] == [("", True), ("", True)]


async def test_a_question_that_cannot_be_read_is_refused(answering: Answering) -> None:
    for query in ({"since": "yesterday"}, {"after": "nowhere"}):
        with pytest.raises(Refused) as refused:
            await answering.ask(**query)
        assert refused.value.reason == "bad-request"

"""What the record keeps of long answers, and how events that are too long to be read are passed over."""

import hashlib
import json

import pytest

from services.gateway.capture import READ_LIMIT, Capture, Outcome
from services.gateway.sse import Splitter, TooLong

LIMIT = 1000  # bytes that the record keeps
FAILED = b'{"jsonrpc":"2.0","id":7,"result":{"isError":true,"text":"%b"}}'


def message(size: int) -> bytes:
    """A failed result, `size` bytes long."""
    return FAILED % (b"x" * (size - len(FAILED) + 2))


def read(stream: bytes, *, sse: bool, piece: int = 262_144) -> Outcome:
    capture = Capture(b"7", LIMIT, sse=sse)
    for start in range(0, len(stream), piece):
        capture.feed(stream[start : start + piece])
    return capture.end()


def test_an_answer_as_long_as_the_limit_is_read() -> None:
    outcome = read(message(READ_LIMIT), sse=False)
    assert (outcome.answered, outcome.failed) == (True, True)
    result = message(READ_LIMIT)[len(b'{"jsonrpc":"2.0","id":7,"result":') : -1]
    assert outcome.output.size == len(result)
    assert outcome.output.sha256 == hashlib.sha256(result).hexdigest()
    assert outcome.output.text == result[:LIMIT].decode()


def test_of_a_longer_one_the_record_has_the_beginning_the_size_and_a_hash() -> None:
    body = message(READ_LIMIT + 1)
    for piece in (1_000_003, READ_LIMIT, len(body)):
        outcome = read(body, sse=False, piece=piece)
        assert (outcome.answered, outcome.failed) == (True, False)
        assert outcome.output.size == len(body)
        assert outcome.output.sha256 == hashlib.sha256(body).hexdigest()
        assert outcome.output.text == body[:LIMIT].decode()


def test_no_more_of_a_long_answer_is_held_than_the_record_keeps() -> None:
    capture = Capture(b"7", LIMIT, sse=False)
    for _ in range(100):
        capture.feed(b"x" * 100_000)
    assert len(capture._held) == LIMIT


def test_an_event_as_long_as_the_limit_is_read_and_a_longer_one_is_measured() -> None:
    event = b"data: " + message(READ_LIMIT - 6) + b"\n\n"
    assert read(event, sse=True, piece=READ_LIMIT).failed
    assert not read(b":" + event, sse=True, piece=READ_LIMIT + 1).failed

    longer = b"id: 5\ndata: " + message(3 * READ_LIMIT) + b"\n\n"
    outcome = read(longer, sse=True)
    assert (outcome.answered, outcome.failed, outcome.output.size) == (True, False, len(longer))
    assert outcome.output.text == message(3 * READ_LIMIT)[:LIMIT].decode()
    assert "too long to be read" in outcome.detail


@pytest.mark.parametrize("piece", [1_000_003, 262_144, 4096])
def test_an_event_that_is_too_long_hides_no_answer_behind_it(piece: int) -> None:
    progress = b"data: " + b"x" * (READ_LIMIT + 1) + b"\r\n\r\n"
    answer = b"data: " + message(200) + b"\n\n"
    for stream in (progress + answer, answer + progress, b": hello\n\n" + progress + progress + answer):
        outcome = read(stream, sse=True, piece=piece)
        assert (outcome.answered, outcome.failed, outcome.detail) == (True, True, "")
        assert json.loads(outcome.output.text)["isError"] is True


def test_a_long_event_that_is_cut_off_is_no_answer() -> None:
    assert not read(b"data: " + message(2 * READ_LIMIT), sse=True).answered


def test_of_several_answers_the_first_counts() -> None:
    two = b"data: " + message(200) + b'\n\ndata: {"jsonrpc":"2.0","id":7,"result":{}}\n\n'
    assert read(two, sse=True).failed


def test_a_long_event_on_a_stream_without_a_request_is_no_answer() -> None:
    capture = Capture(b"null", LIMIT, sse=True)
    capture.feed(b"data: " + b"x" * (READ_LIMIT + 1))
    capture.feed(b"\n\n")
    assert not capture.end().answered


# -- the splitter ----------------------------------------------------------------------------------


def test_whole_events_come_before_the_complaint_about_one_that_is_too_long() -> None:
    splitter = Splitter(10)
    assert splitter.feed(b"data: 1\n\ndata: 0123456789") == [b"data: 1\n\n"]
    with pytest.raises(TooLong):
        splitter.feed(b"0")


@pytest.mark.parametrize("cut", range(1, 31))
def test_an_event_that_is_passed_over_ends_where_it_ends(cut: int) -> None:
    stream = b"0123456789abc\r\n\r\ndata: 2\n\ndata: 3\n\n"
    splitter, found = Splitter(9), []
    for piece in (b"data: 0123", stream[:cut], stream[cut:]):
        try:
            found += splitter.feed(piece)
        except TooLong:
            splitter.skip()
    assert found == [b"data: 2\n\n", b"data: 3\n\n"]
    assert splitter.skipped == len(b"data: 01230123456789abc\r\n\r\n")

"""What is parsed on the way: envelopes, headers, events, lists, answers. Pure, so fuzzed as well."""

import base64
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from libs.common.decision.subjects import Subject
from services.gateway.capture import Capture
from services.gateway.envelope import Envelope, Malformed, check_headers, decode_header, parse
from services.gateway.lists import Unfilterable, filter_lists
from services.gateway.sessions import Sessions
from services.gateway.sse import Splitter, TooLong, data_of, with_data

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
names = st.sampled_from(["echo", "forbidden", "ech\u00f6", "a b", ""])


def envelope(method: str = "tools/call", name: str = "echo", *, modern: bool = False) -> Envelope:
    return Envelope("request", b"1", method, b"{}", (Subject("tool", name),), modern, "2026-07-28")


# Pieces of JSON, put together in ways that sometimes are a message and often are not.
PIECES = (
    *(b"{", b"}", b"[", b"]", b",", b":", b"}}", b" ", b"1", b"null", b"\xff", b"\x00", b"\xef\xbb\xbf"),
    *(b'"jsonrpc"', b'"2.0"', b'"id"', b'"method"', b'"params"', b'"tools/call"', b'"result"'),
    *(b'"name"', b'"n\\u0061me"', b'"NAME"', b'"echo"', b'"forbidden"'),
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"',
)
fragments = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)


@given(fragments | st.binary(max_size=80) | values.map(lambda value: json.dumps(value).encode()))
def test_what_is_accepted_reads_the_same_to_every_parser(body: bytes) -> None:
    try:
        accepted = parse(body)
    except Malformed:
        return
    first_wins = json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    last_wins = from_json(body)  # what the official SDK reads with
    assert first_wins.get("method", "") == last_wins.get("method", "") == accepted.method
    for decoded in (first_wins, last_wins):
        if accepted.name:
            assert accepted.name in {decoded["params"].get("name"), decoded["params"].get("uri")}


@given(names, names, st.booleans(), st.none() | st.dictionaries(st.text(), values, max_size=3))
def test_the_tool_of_a_well_formed_call_is_found_and_its_parameters_kept_as_they_came(
    name: str, uri: str, ascii_only: bool, arguments: object
) -> None:
    params = {"uri": uri, "name": name, "arguments": arguments}
    text = json.dumps(params, ensure_ascii=ascii_only)
    body = f'{{"method": "tools/call", "params" : {text} ,"id":"a","jsonrpc":"2.0"}}'.encode(
        "utf-8", "surrogatepass"
    )
    try:
        accepted = parse(body)
    except Malformed as error:
        assert not name or "\\ud" in text.lower() or not _is_utf8(body), error.detail
        return
    assert (accepted.name, accepted.method, accepted.kind) == (name, "tools/call", "request")
    assert accepted.params == text.encode()


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_responses_and_notifications_are_told_from_requests() -> None:
    assert parse(b'{"jsonrpc":"2.0","method":"notifications/initialized"}').kind == "notification"
    assert parse(b'{"jsonrpc":"2.0","id":1,"result":{}}').kind == "response"
    assert parse(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}').kind == "response"
    with pytest.raises(Malformed):
        parse(b'{"jsonrpc":"2.0","id":1}')
    with pytest.raises(Malformed):
        parse(b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}')


def test_a_message_that_is_both_request_and_response_is_refused() -> None:
    with pytest.raises(Malformed):
        parse(b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}')


@given(st.text())
def test_a_header_value_means_the_same_plain_and_encoded(text: str) -> None:
    encoded = b"=?base64?" + base64.b64encode(text.encode("utf-8", "replace")) + b"?="
    assert decode_header(encoded) == text.encode("utf-8", "replace").decode()


def test_each_of_several_headers_has_to_agree() -> None:
    good, bad = (b"mcp-name", b"echo"), (b"mcp-name", b"forbidden")
    check_headers(envelope(), [good])
    for headers in ([bad], [good, bad], [bad, good], [(b"mcp-method", b"tools/list")]):
        with pytest.raises(Malformed, match=r"disagree|twice"):
            check_headers(envelope(), headers)
    with pytest.raises(Malformed, match="missing"):
        check_headers(envelope(modern=True), [(b"mcp-method", b"tools/call")])


# -- events ----------------------------------------------------------------------------------------

ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
event_lines = st.lists(
    st.sampled_from([b"data: {}", b"data:x", b": c", b"id: 1", b"event: message", b"retry: 9"]), min_size=1
)


@given(st.lists(st.tuples(event_lines, ends), min_size=1), st.lists(st.integers(1, 20)))
def test_events_are_found_however_the_stream_is_cut(
    events: list[tuple[list[bytes], bytes]], cuts: list[int]
) -> None:
    written = [end.join(lines) + end + end for lines, end in events]
    stream, splitter, found = b"".join(written), Splitter(10_000), []
    for cut in [*cuts, len(stream)]:
        found += splitter.feed(stream[:cut])
        stream = stream[cut:]
    assert b"".join(found) + splitter.rest() == b"".join(written), "nothing is lost"
    kept = [data_of(event) for event in found if data_of(event)]
    wanted = [
        b"\n".join(line[5:].removeprefix(b" ") for line in lines if line[:5] == b"data:")
        for lines, _ in events
    ]
    assert kept == [data for data in wanted if data]


def test_an_event_without_an_end_is_not_held_for_ever() -> None:
    with pytest.raises(TooLong):
        Splitter(100).feed(b"data: " + b"x" * 200)


def test_new_data_leaves_the_other_fields() -> None:
    event = b"id: 4\r\nevent: message\r\ndata: {\r\ndata: }\r\nretry: 10\r\n\r\n"
    assert data_of(event) == b"{\n}"
    assert with_data(event, b"{}") == b"id: 4\nevent: message\nretry: 10\ndata: {}\n\n"


# -- lists -----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(names, values), max_size=5), values, st.integers(-(2**80), 2**80))
def test_a_filtered_list_differs_only_by_what_was_left_out(
    tools: list[tuple[str, object]], extra: object, big: int
) -> None:
    message = {
        "jsonrpc": "2.0",
        "id": big,
        "result": {"tools": [{"name": n, "x": x} for n, x in tools], "more": extra},
    }
    shown = json.loads(filter_lists(json.dumps(message).encode(), lambda _, name: name != "forbidden"))
    message["result"]["tools"] = [{"name": n, "x": x} for n, x in tools if n != "forbidden"]  # type: ignore[index]
    assert shown == message


@pytest.mark.parametrize(
    "result",
    [
        b'{"tools":[{"title":"no name"}]}',
        b'{"tools":[{"name":5}]}',
        b'{"tools":{}}',
        b'{"tools":["forbidden"]}',
    ],
)
def test_a_list_that_cannot_be_understood_is_not_shown(result: bytes) -> None:
    with pytest.raises(Unfilterable):
        filter_lists(b'{"jsonrpc":"2.0","id":1,"result":' + result + b"}", lambda *_: True)


def test_what_is_no_list_stays_the_same_object() -> None:
    for message in (b'{"jsonrpc":"2.0","id":1,"error":{}}', b'{"result":{"content":[]}}', b'{"result":null}'):
        assert filter_lists(message, lambda *_: False) is message


# -- the outcome of an answer ----------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), max_size=10))
def test_the_outcome_is_found_however_the_answer_is_cut(cuts: list[int]) -> None:
    events = (
        b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'
        b'data: {"jsonrpc":"2.0","id":8,"result":{"isError":true}}\n\n'
        b'data: {"jsonrpc":"2.0","id":7,"result":{"isError":true,"content":[]}}\n\n'
    )
    capture = Capture(b"7", 1000, sse=True)
    for cut in [*cuts, len(events)]:
        capture.feed(events[:cut])
        events = events[cut:]
    outcome = capture.end()
    assert (outcome.answered, outcome.failed) == (True, True)
    assert outcome.output.text == '{"isError":true,"content":[]}'


def test_an_error_that_is_not_as_it_should_be_is_kept_all_the_same() -> None:
    capture = Capture(b"1", 1000, sse=False)
    capture.feed(b'{"jsonrpc":"2.0","id":1,"error":{"code":"E","message":5}}')
    outcome = capture.end()
    assert (outcome.failed, outcome.error_code) == (True, 0)
    assert outcome.output.text == '{"code":"E","message":5}'


# -- sessions --------------------------------------------------------------------------------------


@given(
    st.binary(max_size=20), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5)
)
def test_a_session_opens_for_its_user_and_server_only(
    id: bytes, server: str, user: str, other_server: str, other_user: str
) -> None:
    sessions = Sessions(b"k" * 32)
    server, user, other_server, other_user = (
        re.sub("[\ud800-\udfff]", "", x) for x in (server, user, other_server, other_user)
    )
    wrapped = sessions.wrap(id, server, user)
    assert sessions.unwrap(wrapped, server, user) == id
    opened = sessions.unwrap(wrapped, other_server, other_user)
    assert opened == (id if (server, user) == (other_server, other_user) else None)
    assert Sessions(b"x" * 32).unwrap(wrapped, server, user) is None
    assert msgspec.json.encode(wrapped.decode("latin-1"))

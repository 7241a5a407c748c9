"""Nothing is lost or rewritten on the way through the transparent lane: bytes in are bytes out."""

import json
import random

import httpx2
import pytest

from libs.common.control.entries import Server
from tests.conftest import eventually
from tests.unit.gateway.conftest import Exchange, House
from tests.unit.gateway.raw_upstream import listening, saying

BIG = b"1180591620717411303425"  # 2**70 + 1

# JSON that a parser and a serializer in between would write in another way, or not survive.
VALUES = {
    "an integer of 70 bits": BIG,
    "an integer of 4000 digits": b"-" + b"7" * 4000,
    "floats in every spelling": b"[1.0,1.00,-0,-0.0,0.1e1,1E5,1e+05,1.7976931348623157e308,0.1000000000005]",
    "a float that no double holds": b"[1e400,-1e400,1e-400]",
    "escapes that need not be": rb'"\u0041\u00e9\/\"\\\b\f\n\r\t\u007f\u2028"',
    "the same unescaped": '"A\u00e9/\u007f\u2028"'.encode(),
    "a character beyond the BMP": '["\\ud83d\\ude00","\\uD83D\\uDE00","\U0001f600"]'.encode(),
    "composed and decomposed characters": '["\u00e9","e\u0301"]'.encode(),
    "keys in no order": b'{"z":1,"a":2,"10":3,"9":4,"":5,"__proto__":{},"constructor":null}',
    "white space": b"{ \t\r\n \"a\"\t:\r\n[ 1 , 2\n] ,\"b\" : { } }",
    "depth": b"[" * 40 + b"]" * 40,
    "literals": b"[true,false,null,{},[],\"\"]",
    "what looks like the protocol": b'{"jsonrpc":"1.0","method":"x","id":null,"result":1,"error":2}',
    "what looks like an event": rb'"\n\ndata: {}\n\nevent: x"',
}  # fmt: skip


def request(value: bytes, id: bytes = b"1") -> bytes:
    """A call with `value` wherever something unknown may stand."""
    return (
        b'{"extra" : %b,"id":%b, "method":"tools/call","jsonrpc":"2.0",\r\n\t"params": {"unknown":%b,'
        b'"name":"echo","_meta":{"progressToken":%b,"vendor.example/x":%b}, "arguments":{"v":%b}}}\n'
    ) % (value, id, value, BIG, value, value)


def response(value: bytes, id: bytes = b"1") -> bytes:
    return (
        b'{"result":{"_meta":{"x":%b},"content":[{"type":"later","v":%b}],"structuredContent":{"v":%b}},\n'
        b' "id":%b,"jsonrpc":"2.0" ,"extra":%b }'
    ) % (value, value, value, id, value)


@pytest.mark.parametrize("name", VALUES)
async def test_a_call_and_its_result_arrive_byte_for_byte(house: House, name: str) -> None:
    given, wanted = request(VALUES[name]), response(VALUES[name])

    async def script(exchange: Exchange) -> None:
        await exchange.answer(wanted)

    house.upstream.script = script
    answer = await house.post(given)
    assert answer.status_code == 200, answer.text
    assert house.upstream.seen[0].body == given
    assert answer.content == wanted
    record = await house.record()
    assert record["input_bytes"] == len(given[given.index(b'{"unknown"') : given.rindex(b"}")])


IDS = {
    "large": BIG,
    "negative": b"-7",
    "escaped": b'"a\\u0041\\/"',
    "empty": b'""',
    "not ASCII": '"\u00e9"'.encode(),
}


@pytest.mark.parametrize("name", IDS)
async def test_an_id_is_kept_as_it_is_spelt(house: House, name: str) -> None:
    id = IDS[name]

    async def script(exchange: Exchange) -> None:
        await exchange.answer(response(b"1", id))

    house.upstream.script = script
    answer = await house.post(request(b"1", id))
    assert house.upstream.seen[0].body == request(b"1", id)
    assert answer.content == response(b"1", id)
    assert (await house.record())["status"] == "ok"

    refused = await house.post(request(b"1", id).replace(b'"echo"', b'"forbidden"'))
    assert b'"id":' + id in refused.content, "in our own answers too"


EVENTS = (
    b"\xef\xbb\xbf: a comment\r\n\r\n"
    b"id: 1\nretry: 10\ndata:\n\n"
    b"event: message\r\n"
    b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"n":%b,"x":1.0}}\r\n\r\n'
    b"unknown: field\ndata: {\ndata:  \"jsonrpc\" :\"2.0\",\ndata: \"method\":\"notifications/x\"}\n\n"
    b": keep-alive\n\n"
    b'id: 2\rdata: {"jsonrpc":"2.0","id":1,"result":{"n":%b,"e":1e400,"s":"\\u00e9"}}\r\r'
    b"data: cut off"
) % (BIG, BIG)  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 100, len(EVENTS)])
async def test_events_arrive_byte_for_byte_however_they_are_cut(house: House, size: int) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        for start in range(0, len(EVENTS), size):
            await exchange.event(EVENTS[start : start + size])
        await exchange.event(b"", last=True)

    house.upstream.script = script
    answer = await house.call()
    assert answer.content == EVENTS
    record = await house.record()
    assert (record["status"], record["output"]) == ("ok", f'{{"n":{BIG.decode()},"e":1e400,"s":"\\u00e9"}}')


NO_JSON = {
    "nothing": b"",
    "half an object": b"{",
    "no UTF-8": b"\xff\xfe\x00",
    "two objects": b'{"a":1}{"b":2}',
    "a page": b"<html>\r\n\r\n</html>",
    "zeros": b"\x00" * 1000,
}


@pytest.mark.parametrize("name", NO_JSON)
@pytest.mark.parametrize("status", [200, 400, 404, 500])
async def test_what_the_upstream_says_passes_even_if_it_makes_no_sense(
    house: House, name: str, status: int
) -> None:
    body = NO_JSON[name]

    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status, content_type="application/odd")

    house.upstream.script = script
    answer = await house.call()
    assert (answer.status_code, answer.content) == (status, body)
    assert answer.headers["content-type"] == "application/odd"


async def test_an_answer_without_a_body_has_none(house: House) -> None:
    """The upstream names a length all the same, which is against RFC 9110, section 8.6, and happens."""
    async with listening(saying(b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n")) as port:
        await house.put(Server(version=2, slug="demo", name="Demo", url=f"http://127.0.0.1:{port}/mcp"))
        answer = await house.post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await house.record())["status"] == "ok"


async def test_random_messages_arrive_byte_for_byte(house: House) -> None:
    chance = random.Random(20260728)
    answers: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answers[-1])

    house.upstream.script = script
    for _ in range(60):
        given = request(spelt(anything(chance), chance))
        answers.append(response(spelt(anything(chance), chance)))
        answer = await house.post(given)
        assert house.upstream.seen[-1].body == given
        assert answer.content == answers[-1]
    await eventually(lambda: len(house.records()) == 60)


def anything(chance: random.Random, depth: int = 0) -> object:
    """Any JSON value."""
    kind = chance.randrange(6 if depth < 4 else 4)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.randrange(-(2**70), 2**70)
    if kind == 2:
        return chance.uniform(-1e30, 1e30)
    if kind == 3:
        return "".join(chr(chance.choice([34, 92, 47, 10, 65, 0xE9, 0x2028, 0x1F600])) for _ in range(5))
    if kind == 4:
        return [anything(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {f"k{chance.randrange(10**6)}": anything(chance, depth + 1) for _ in range(chance.randrange(4))}


def spelt(value: object, chance: random.Random) -> bytes:
    """One of the ways to write it."""
    separators = chance.choice([(",", ":"), (" ,\t", " : "), (",\r\n", ":")])
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5, separators=separators)
    return text.encode()


# -- lists -----------------------------------------------------------------------------------------

KEPT = (
    rb'{ "description":"\u00e9\/", "name" : "first","inputSchema":{"maximum":%b,"default":1.0,"z":1,"a":2}}'
    % BIG,
    b'{"name":"se\\u0063ond","unknown":[1e400 , {"deep":{}}],"inputSchema":{"type":"object"}}',
    b'{"name":"third","_meta":{"vendor.example/x":-0.0}}',
)
DENIED = b'{"name":"forbidd\\u0065n","inputSchema":{}}'


def listed(*tools: bytes) -> bytes:
    return (
        b'{"jsonrpc":"2.0","id":"l\\u0069st","extra":%b,"result":{"unknown":{"n":1.0},"tools":[%b],'
        b'"nextCursor":"\\u00e9","_meta":{"n":%b}}}'
    ) % (BIG, b",".join(tools), BIG)


async def list_tools(house: House) -> httpx2.Response:
    return await house.post(b'{"jsonrpc":"2.0","id":"l\\u0069st","method":"tools/list"}')


@pytest.mark.parametrize("place", range(4))
async def test_a_list_differs_only_by_what_was_removed(house: House, place: int) -> None:
    tools = [*KEPT[:place], DENIED, *KEPT[place:]]

    async def script(exchange: Exchange) -> None:
        await exchange.answer(listed(*tools))

    house.upstream.script = script
    assert (await list_tools(house)).content == listed(*KEPT)


@pytest.mark.parametrize("place", range(4))
async def test_a_list_in_an_event_differs_only_by_what_was_removed(house: House, place: int) -> None:
    tools = [*KEPT[:place], DENIED, *KEPT[place:]]
    others = b': hello\n\nid: 8\ndata: {"jsonrpc":"2.0","method":"x","params":{"n":%b,"f":1.0}}\n\n' % BIG

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(others)
        await exchange.event(b"id: 9\nevent: message\ndata: %b\n\n" % listed(*tools), last=True)

    house.upstream.script = script
    wanted = others + b"id: 9\nevent: message\ndata: %b\n\n" % listed(*KEPT)
    assert (await list_tools(house)).content == wanted


async def test_a_list_from_which_nothing_is_removed_arrives_byte_for_byte(house: House) -> None:
    spaced = listed(*KEPT).replace(b'"tools":[', b'"tools" :\n[ ').replace(b"]", b" ]\r\n")

    async def script(exchange: Exchange) -> None:
        await exchange.answer(spaced)

    house.upstream.script = script
    assert (await list_tools(house)).content == spaced

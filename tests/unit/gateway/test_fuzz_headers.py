"""Headers that mirror the body, with values nearly right: what we let pass, the official SDK reads as we do.

Its modern server refuses a header that disagrees with the body; a message that passed here must never be one
on which it acts by another method, name or version than we decided on.
"""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    InboundLadderRejection,
    classify_inbound_request,
    decode_header_value,
    encode_header_value,
    find_duplicated_routing_header,
)
from mcp_types.jsonrpc import HEADER_MISMATCH

from libs.common.control.entries import Group, ServerAccess
from services.gateway.envelope import Malformed, check_headers, decode_header, parse
from tests.conftest import eventually
from tests.unit.gateway.conftest import Exchange, House, token
from tests.unit.gateway.fuzzing import EXAMPLES, META_VERSION, NAMES, URIS, fuzzed, seeds

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
VERSIONS = ["2026-07-28", "2025-11-25", "2025-03-26", ""]
METHODS = {"tools/call": ("name", NAMES), "prompts/get": ("name", NAMES), "resources/read": ("uri", URIS)}

PRINTABLE = re.compile("[\t -~]*")

Header = tuple[bytes, bytes]


class Scribe:
    """Writes a message and its headers from a seed. Most agree, some do not."""

    def __init__(self, seed: int) -> None:
        self._random = random = Random(seed)
        self.method = random.choice([*METHODS, "tools/list"])
        field, names = METHODS.get(self.method, ("name", NAMES))
        self.name = random.choice([name for name in names if 0 < len(name) < 200])
        self.modern = random.random() < 0.7
        params: dict[str, Any] = {field: self.name}
        if self.modern:
            params["_meta"] = {META_VERSION: "2026-07-28", CAPABILITIES: {}}
        message = {"jsonrpc": "2.0", "id": 1, "method": self.method, "params": params}
        self.body = json.dumps(message).encode()

    def headers(self) -> list[Header]:
        written = [
            (b"mcp-method", self._value(self.method, [*METHODS, "tools/list"])),
            (b"mcp-name", self._value(self.name, NAMES + URIS)),
            (b"mcp-protocol-version", self._value("2026-07-28", VERSIONS)),
        ]
        if self._random.random() < 0.3:
            written.append((b"mcp-param-x", self._value("a", NAMES)))
        if self._random.random() < 0.2:
            written.append((self._random.choice(written)[0], self._value(self.name, NAMES)))
        if self._random.random() < 0.2:
            written.pop(self._random.randrange(len(written)))
        self._random.shuffle(written)
        return written

    def _value(self, right: str, others: list[str]) -> bytes:
        text = right if self._random.random() < 0.9 else self._random.choice(others)
        form = self._random.random()
        if form < 0.75:
            value = encode_header_value(text).encode()
        elif form < 0.85:
            value = b"=?base64?" + base64.b64encode(text.encode()) + b"?="
        else:
            value = self._odd(text.encode())
        return value if self._random.random() < 0.9 else b" " + value + b"\t "

    def _odd(self, value: bytes) -> bytes:
        encoded = base64.b64encode(value)
        return self._random.choice(
            [
                value,
                b"=?base64?" + encoded.rstrip(b"=") + b"?=",
                b"=?base64?" + encoded[:-3] + b"*" + encoded[-2:] + b"?=",
                b"=?BASE64?" + encoded + b"?=",
                b"=?base64?" + encoded.replace(b"w==", b"x==").replace(b"A==", b"B==") + b"?=",
                b"=?base64?" + encoded,
                b"=?base64?/w==?=",
                b"=?base64?=",
                b"=?base64??=",
                b'"' + value + b'"',
                value + b", " + value,
                value.upper(),
                b"",
            ]
        )


def as_server_reads(headers: list[Header]) -> list[tuple[str, str]]:
    """As a Python server gets them: text in Latin-1, without the white space around it."""
    return [(name.decode(), value.decode("latin-1").strip(" \t")) for name, value in headers]


@fuzzed(3000)
@given(seeds)
def test_what_passes_the_official_server_does_not_find_to_disagree(seed: int) -> None:
    scribe = Scribe(seed)
    headers = scribe.headers()
    read = as_server_reads(headers)
    try:
        check_headers(parse(scribe.body), headers)
    except Malformed:
        return
    if scribe.modern and not find_duplicated_routing_header(read):
        verdict = classify_inbound_request(json.loads(scribe.body), headers=dict(read))
        assert not (isinstance(verdict, InboundLadderRejection) and verdict.code == HEADER_MISMATCH)
    for name, value in read:  # whichever of several one reads
        if name == "mcp-method":
            assert value == scribe.method
        if name == "mcp-name" and scribe.method in METHODS:
            assert decode_header_value(value) == scribe.name


@fuzzed(3000)
@given(seeds)
def test_what_the_official_server_takes_passes(seed: int) -> None:
    scribe = Scribe(seed)
    headers = scribe.headers()
    read = as_server_reads(headers)
    if not scribe.modern or any(name.startswith("mcp-param") for name, _ in read):
        return
    if find_duplicated_routing_header(read) or any(not PRINTABLE.fullmatch(value) for _, value in read):
        return  # it leaves to the HTTP server what is no printable ASCII
    verdict = classify_inbound_request(json.loads(scribe.body), headers=dict(read))
    if not isinstance(verdict, InboundLadderRejection):
        check_headers(parse(scribe.body), headers)


@fuzzed(3000)
@given(st.binary(max_size=40) | seeds.map(lambda seed: Scribe(seed).headers()[0][1]))
def test_a_value_has_one_meaning(value: bytes) -> None:
    ours = decode_header(value)
    theirs = decode_header_value(value.decode("latin-1").strip(" \t"))
    assert ours is None or ours == theirs


# -- over the wire ---------------------------------------------------------------------------------

STRANGE = [
    b"",
    b" ",
    b"\t",
    b"\x0b",
    b"\x7f",
    b"\xe9",
    b"\xc3\xa9",
    b"\x00",
    b"a\rb",
    b"a\r\n b",
    b"=?base64?",
    b",",
]
FRAMING = [
    b"Content-Length: 5",
    b"Content-Length: +5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked",
    b"Content-Length : 3",
    b"Mcp-Name : forbidden",
    b" Mcp-Name: forbidden",
    b"Mcp-Name:forbidden",
    b"MCP-NAME: echo",
    b"Mcp_Name: forbidden",
    b"Connection: mcp-name",
    b"Expect: 100-continue",
    b"Content-Type: text/plain",
    b"no colon",
]


@pytest.fixture
async def ran(house: House) -> list[str]:
    """The tools that the upstream ran, by the last of its keys."""
    ran: list[str] = []
    access = ServerAccess(tools={"forbidden": "deny"})
    await house.put(Group(version=2, id="default", name="E", servers={"demo": access}))

    async def script(exchange: Exchange) -> None:
        ran.append(exchange.message["params"]["name"])
        for name in ("mcp-name", "mcp-method"):
            assert name not in exchange.headers or decode_header_value(exchange.headers[name]) in {
                exchange.message["method"],
                exchange.message["params"]["name"],
            }
        await exchange.result({"content": []})

    house.upstream.script = script
    return ran


def requests(seed: int) -> Iterator[bytes]:
    """One or two requests in one write, nearly right."""
    random = Random(seed)
    bearer = token().encode()
    for _ in range(random.choice([1, 1, 2])):
        name = random.choice(["echo", "echo", "forbidden"])
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}
        ).encode()
        lines = [
            b"POST /mcp/demo HTTP/1.1",
            b"Host: gate.example",
            b"Authorization: Bearer " + bearer,
            b"Content-Type: application/json",
            b"Mcp-Method: tools/call",
            b"Mcp-Name: " + name.encode() + random.choice([*([b""] * 40), *STRANGE]),
            b"Content-Length: %d" % (len(body) + random.choice([*([0] * 40), -1, 1])),
        ]
        for _ in range(random.choice([0, 0, 0, 1, 2])):
            lines.insert(random.randrange(1, len(lines)), random.choice(FRAMING))
        yield b"\r\n".join([*lines, b"", b""]) + body


async def spoken(url: str, written: bytes) -> bytes:
    """What comes back on one connection that is closed for writing."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(written)
        read = b""
        async with asyncio.timeout(0.5):
            while b"HTTP/1.1" not in read and (chunk := await reader.read(65536)):
                read += chunk
        return read
    finally:
        writer.close()


async def test_whatever_the_framing_what_ran_was_decided_and_recorded(house: House, ran: list[str]) -> None:
    first = Random().randrange(2**32) if EXAMPLES else 0
    for seed in range(first, first + (EXAMPLES or 400)):
        try:
            answer = await spoken(house.url, b"".join(requests(seed)))
        except (TimeoutError, ConnectionError):
            answer = b""  # it waits for the rest of a body, or had enough
        assert b" 500 " not in answer[:20], f"seed {seed}"
        assert "forbidden" not in ran, f"seed {seed}"
    await eventually(lambda: not house.gateway.running._flights)
    assert len(admitted(house)) >= len(ran), "each that ran is recorded"
    assert {record["tool"] for record in house.records() if record["status"] != "denied"} == {"echo"}
    assert len(ran) > (EXAMPLES or 400) / 10, "enough of it gets through"


def admitted(house: House) -> list[dict[str, Any]]:
    return [record for record in house.records() if record["tool"] == "echo" and record["status"] != "denied"]

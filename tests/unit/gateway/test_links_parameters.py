"""`Mcp-Param-*` headers, compared with those that the official SDK makes and accepts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)

from services.gateway.links import parameters
from services.gateway.links.parameters import Parameters, encode_header, mirrored


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def marked(name: Any, type: Any = "string", **more: Any) -> dict[str, Any]:
    return {"type": type, "x-mcp-header": name} | more


def headers_for(input_schema: Any, arguments: Any) -> dict[str, str]:
    known = Parameters()
    known.learn(json.dumps({"tools": [{"name": "t", "inputSchema": input_schema}]}).encode())
    params = json.dumps({"name": "t", "arguments": arguments}).encode()
    return {name.decode(): value.decode() for name, value in known.headers(params)}


ARGUMENTS = [
    {},
    {"region": "eu"},
    {"region": "köln "},
    {"region": "=?base64?eA==?="},
    {"region": ""},
    {"region": None},
    {"region": ["no"]},
    {"region": True},
    {"region": 1180591620717411303424},
    {"region": -1.5},
    {"deep": {"er": "x"}, "region": "y"},
    {"deep": "flat"},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_the_official_server_accepts_what_is_made(arguments: dict[str, Any]) -> None:
    told = schema(region=marked("Region"), deep=schema(er=marked("Deep-Er")), plain={"type": "string"})
    headers = headers_for(told, arguments)
    official = mcp_param_headers(x_mcp_header_map(told), arguments)
    assert headers == {name.lower(): value for name, value in official.items()}
    assert validate_mcp_param_headers(told, arguments, headers) is None


@pytest.mark.parametrize(
    "told",
    [
        schema(a=marked("A", "number")),
        schema(a=marked("A", ["string"])),
        schema(a=marked("")),
        schema(a=marked("no spaces")),
        schema(a=marked("x\r\ny: z")),
        schema(a=marked(7)),
        schema(a=marked("Same"), b=marked("same")),
        schema(a={"type": "array", "items": marked("A")}),
        schema(a=marked("A"), b={"anyOf": [marked("B")]}),
        schema(a=marked("A")) | {"$defs": {"x": marked("B")}},
        marked("Root"),
    ],
)
def test_a_schema_with_a_wrong_mark_mirrors_nothing(told: dict[str, Any]) -> None:
    assert find_invalid_x_mcp_header(told)
    assert mirrored(json.dumps(told).encode()) == {}


def test_a_mark_in_data_is_none() -> None:
    told = schema(a=marked("A"), b={"type": "object", "default": {"x-mcp-header": "B"}})
    assert not find_invalid_x_mcp_header(told)
    assert headers_for(told, {"a": "1", "b": {}}) == {"mcp-param-a": "1"}


@given(st.text())
def test_any_text_is_encoded_as_the_official_client_does(text: str) -> None:
    assert encode_header(text).decode() == encode_header_value(text)


def test_nothing_is_made_for_tools_that_were_not_listed() -> None:
    known = Parameters()
    assert known.headers(b'{"name":"t","arguments":{"region":"eu"}}') == []
    for odd in (b"", b"[]", b"null", b'{"name":[]}', b'{"name":{}}', b"{}"):
        assert known.headers(odd) == []
        known.learn(odd)


def test_a_later_list_replaces_an_earlier_one_and_the_oldest_tools_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parameters, "TOOLS", 3)
    known = Parameters()

    def listed(*names: str, header: str = "A") -> bytes:
        tools = [{"name": name, "inputSchema": schema(a=marked(header))} for name in names]
        return json.dumps({"tools": tools}).encode()

    def header_of(name: str) -> list[tuple[bytes, bytes]]:
        return known.headers(json.dumps({"name": name, "arguments": {"a": "1"}}).encode())

    known.learn(listed("one", "two"))
    known.learn(listed("one", header="B"))
    assert header_of("one") == [(b"mcp-param-b", b"1")]
    known.learn(listed("three", "four"))
    assert header_of("two") == []
    assert header_of("one") == [(b"mcp-param-b", b"1")]

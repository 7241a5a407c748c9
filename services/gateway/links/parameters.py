"""`Mcp-Param-*` headers of a tool call, out of the tool's schema (MCP 2026-07-28, basic/transports, pure).

A schema marks a parameter with `x-mcp-header: <name>`; its value is then mirrored in `Mcp-Param-<name>`. A
client of the stdio transport, or of an older revision, sends no such headers, so they are made here.
"""

import base64
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from libs.common.decision.subjects import LONGEST
from services.gateway.connection import Header

MARK = "x-mcp-header"
TOOLS = 2048  # that are remembered of one upstream
MOST_MARKS, LONGEST_MARK = 64, 1024  # of one tool; characters of the header's name and the path

# Where in the arguments a value stands, and the header that mirrors it.
Mirrored: TypeAlias = dict[tuple[str, ...], bytes]

_SAFE = re.compile(r"[ -~]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MARKABLE = {"string", "integer", "boolean"}
# Keywords of JSON Schema 2020-12 whose values are schemas, lists of schemas, or schemas by name.
_SCHEMA = {
    "items",
    "contains",
    "unevaluatedItems",
    "additionalProperties",
    "propertyNames",
    "contentSchema",
} | {
    "unevaluatedProperties",
    "not",
    "if",
    "then",
    "else",
}
_SCHEMAS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_NAMED_SCHEMAS = {"patternProperties", "dependentSchemas", "$defs", "definitions"}


class _Tool(msgspec.Struct):
    name: str
    schema: msgspec.Raw = msgspec.field(name="inputSchema", default=msgspec.Raw(b"{}"))


class _Tools(msgspec.Struct):
    tools: list[_Tool]


_tools = msgspec.json.Decoder(_Tools).decode


class Parameters:
    """What is known of the parameters that an upstream wants mirrored: of the tools that were listed last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Mirrored] = OrderedDict()

    def learn(self, result: bytes) -> None:
        """Remember the tools of a `tools/list` result."""
        try:
            listed = _tools(result).tools
        except (ValueError, RecursionError):
            return
        for tool in listed:
            if len(tool.name) > LONGEST["tool"]:
                continue  # nobody may call it
            self._known.pop(tool.name, None)
            self._known[tool.name] = (
                mirrored(bytes(tool.schema)) if MARK.encode() in bytes(tool.schema) else {}
            )
        while len(self._known) > TOOLS:
            self._known.popitem(last=False)

    def headers(self, params: bytes) -> list[Header]:
        """The headers for the params of a `tools/call`; none for a tool that was never listed."""
        try:
            given = json.loads(params)
            found = self._known.get(given["name"])
            arguments = given.get("arguments") if found else None
        except (ValueError, RecursionError, TypeError, KeyError):
            return []
        if not found:
            return []
        values = ((name, _text(_at(arguments, path))) for path, name in found.items())
        return [(b"mcp-param-" + name, encode_header(text)) for name, text in values if text is not None]


def mirrored(schema: bytes) -> Mirrored:
    """What `schema` wants mirrored: nothing, if one of its marks is not as the specification has it."""
    try:
        marks = [found for found in _walk(json.loads(schema)) if MARK in found[1]]
    except (ValueError, RecursionError):
        return {}
    found: Mirrored = {}
    if len(marks) > MOST_MARKS:
        return {}
    for path, schema_there in marks:
        name = schema_there[MARK]
        if not path or not isinstance(name, str) or not _TOKEN.fullmatch(name):
            return {}
        if len(name) + sum(map(len, path)) > LONGEST_MARK:
            return {}
        kind = schema_there.get("type")
        if not isinstance(kind, str) or kind not in _MARKABLE or name.lower().encode() in found.values():
            return {}
        found[path] = name.lower().encode()
    return found


def encode_header(text: str) -> bytes:
    """`text` as a header value; what would not survive in one, as `=?base64?…?=`."""
    wrapped = text.startswith("=?base64?") and text.endswith("?=")
    if _SAFE.fullmatch(text) and text == text.strip() and not wrapped:
        return text.encode()
    return b"=?base64?%b?=" % base64.b64encode(text.encode("utf-8", "surrogatepass"))


def _walk(root: Any) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Each schema in `root`, with its path if it can be reached by `properties` alone."""
    stack: list[tuple[tuple[str, ...] | None, Any]] = [((), root)]
    while stack:
        path, schema = stack.pop()
        if not isinstance(schema, dict):
            continue
        yield path, schema
        for keyword, value in schema.items():
            if keyword == "properties" and isinstance(value, dict):
                stack.extend((None if path is None else (*path, name), sub) for name, sub in value.items())
            elif keyword in _SCHEMA:
                stack.append((None, value))
            elif keyword in _SCHEMAS and isinstance(value, list):
                stack.extend((None, sub) for sub in value)
            elif keyword in _NAMED_SCHEMAS and isinstance(value, dict):
                stack.extend((None, sub) for sub in value.values())


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(name)
    return arguments


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None

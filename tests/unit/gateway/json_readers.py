"""How other programs read a JSON-RPC message: parsers that resolve what the standard leaves open differently.

A reader gives the decoded message, or raises `Unreadable`, as an upstream that would refuse it.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
from pydantic_core import from_json

Reader = Callable[[bytes], Any]

_NODE = """
const lines = require('node:readline').createInterface({input: process.stdin});
lines.on('line', line => {
  let answer;
  try { answer = JSON.stringify([JSON.parse(Buffer.from(line, 'base64').toString('utf8'))]); }
  catch { answer = 'null'; }
  process.stdout.write(answer + '\\n');
});
"""


class Unreadable(Exception):
    """This reader takes it for no JSON."""


def python(body: bytes) -> Any:
    """The standard library: the last of two keys wins, NaN is a number."""
    return _read(json.loads, body)


def first_wins(body: bytes) -> Any:
    return _read(lambda text: json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs))), body)


def official_sdk(body: bytes) -> Any:
    """pydantic_core, which the official Python SDK validates with."""
    return _read(from_json, body)


def msgspec_raw(body: bytes) -> Any:
    return _read(msgspec.json.decode, body)


def go(body: bytes) -> Any:
    """encoding/json into structs: the case of a key is ignored, and the last one wins; lax about UTF-8."""

    def folded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {_NAMES.get(_go_fold(key), key): value for key, value in pairs}

    return _read(lambda raw: json.loads(raw.decode(errors="replace"), object_pairs_hook=folded), body)


def _go_fold(key: str) -> str:
    """Simple case folding, as in `strings.EqualFold`: also the long s and the sign for kelvin."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in key).replace("ſ", "s").replace("K", "k")


_NAMES = {
    name.lower(): name
    for name in (
        *("jsonrpc", "id", "method", "params", "result", "error", "name", "uri", "_meta", "ref", "type"),
        *("uriTemplate", "notifications", "resourceSubscriptions", "taskId", "arguments"),
        "io.modelcontextprotocol/protocolVersion",
    )
}


class Node:
    """`JSON.parse` in one long-lived process: large integers lose their last digits."""

    def __init__(self) -> None:
        program = shutil.which("node")
        assert program
        command = [program, "-e", _NODE]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, body: bytes) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(base64.b64encode(body) + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer is None:
            raise Unreadable
        return answer[0]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _read(parse: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return parse(body)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise Unreadable from error

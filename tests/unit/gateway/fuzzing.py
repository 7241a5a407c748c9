"""How the fuzz tests run, and what they are fed with: JSON-RPC messages that are nearly right.

By default a few thousand examples, the same ones each time. `FUZZ_EXAMPLES=1000000 pytest -k fuzz` runs as
many, new ones each time; a failure prints how to run it again.
"""

import json
import os
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))

META_VERSION = "io.modelcontextprotocol/protocolVersion"
METHODS = [
    *("tools/call", "tools/call", "tools/call", "prompts/get", "resources/read", "resources/subscribe"),
    *("completion/complete", "subscriptions/listen", "tools/list", "ping", "notifications/x", "Tools/Call"),
]
NAMES = ["echo", "forbidden", "Echo", "échö", "e\0", "", "x" * 300, "💥"]
URIS = ["file:///a", "file:///secret/a", "FILE:///%73ecret/a", "x", ""]
INTEGERS = [0, 1, -1, 7, 2**53 + 1, 2**70]
SCALARS = [None, True, False, 1.5, -0.0, "", "x", "\ud800", *NAMES, *INTEGERS]
DAMAGE = [b"", b"\0", b"\xff", b'"', b"}", b"{", b",", b"\\", b" ", b"1", b"\xef\xbb\xbf"]


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """`examples`: how many by default."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        print_blob=True,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


class Writer:
    """Writes JSON that is nearly a message. Made of a seed: hypothesis would take longer than the test."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        # Most messages have no flaw, most others one.
        self._flaws = self._random.choice([0, 0, 0.02, 0.1])
        # In every second one there is a key twice in one object.
        self._twice = self._random.choice(["", "message", "params", "ref", "notifications", "_meta", "", ""])

    def body(self) -> bytes:
        right = {
            "jsonrpc": '"2.0"',
            "id": self._id(),
            "method": self._text(METHODS),
            "params": self._params(),
        }
        if self._flawed():
            right[self._random.choice(["result", "error", "id"])] = self._anything()
        if self._flawed() or self._random.random() < 0.1:
            del right[self._random.choice(list(right))]
        body = self._object("message", right).encode("utf-8", "surrogatepass")
        return self._damaged(body) if self._random.random() < 0.1 else body

    def _flawed(self) -> bool:
        return self._random.random() < self._flaws

    def _id(self) -> str:
        return str(self._random.choice(INTEGERS)) if self._random.random() < 0.5 else '"a"'

    def _params(self) -> str:
        choose = self._random.choice
        kind = choose(["ref/prompt", "ref/resource"])
        reference = {"type": json.dumps(kind), "name": self._text(NAMES), "uri": self._text(URIS)}
        if self._flawed():
            reference["uriTemplate"] = self._text(URIS)
        uris = ",".join(self._text(URIS) for _ in range(self._random.randrange(3)))
        wanted = {"resourceSubscriptions": f"[{uris}]", "toolsListChanged": "true"}
        version = {META_VERSION: self._text(["2026-07-28", "2025-11-25"])}
        params = {
            "name": self._text(NAMES),
            "uri": self._text(URIS),
            "ref": self._object("ref", reference),
            "notifications": self._object("notifications", wanted),
            "arguments": self._object("arguments", {"text": self._text(NAMES), "other": self._anything()}),
        }
        if self._random.random() < 0.3:
            params["_meta"] = self._object("_meta", version)
        return self._object("params", params)

    def _object(self, place: str, members: dict[str, str]) -> str:
        """`members` in any order, now and then one twice, missing, spelled otherwise or exchanged."""
        written = [
            (self._key(key), self._anything() if self._flawed() else value) for key, value in members.items()
        ]
        self._random.shuffle(written)
        if place == self._twice:
            again = self._random.choice(list(members))
            key = self._random.choice([json.dumps(again), json.dumps(again.title()), self._odd_key(again)])
            written.append((key, self._text(NAMES)))
        if self._flawed() and written:
            written.pop()
        gap = self._random.choice(["", " ", "\n\t"])
        return "{" + ",".join(f"{gap}{key}{gap}:{gap}{value}" for key, value in written) + gap + "}"

    def _key(self, key: str) -> str:
        return self._odd_key(key) if self._flawed() else json.dumps(key)

    def _odd_key(self, key: str) -> str:
        look = key.replace("s", "ſ").replace("k", "K")
        forms = [key.upper(), key.title(), key.lower(), key + " ", key + "\0", look, look.upper()]
        escaped = f'"\\u{ord(key[0]):04x}{key[1:]}"'
        return self._random.choice([escaped, *(json.dumps(form, ensure_ascii=False) for form in forms)])

    def _text(self, texts: list[str]) -> str:
        """A text as JSON, with or without escapes; now and then something else."""
        if self._flawed():
            return self._anything()
        text = self._random.choice(texts)
        if text and self._random.random() < 0.1:
            return '"' + "".join(f"\\u{unit:04X}" for unit in _units(text)) + '"'
        return json.dumps(text, ensure_ascii=self._random.random() < 0.5)

    def _anything(self, depth: int = 0) -> str:
        kind = self._random.random()
        if depth < 3 and kind < 0.15:
            return "[" + ",".join(self._anything(depth + 1) for _ in range(self._random.randrange(3))) + "]"
        if depth < 3 and kind < 0.35:
            keys = self._random.sample(["name", "uri", "method", "a", "params"], self._random.randrange(3))
            return "{" + ",".join(f"{json.dumps(key)}:{self._anything(depth + 1)}" for key in keys) + "}"
        return self._random.choice([*map(json.dumps, SCALARS), "1e2", "1.0", "-0", "1e999", "NaN", '"\\/"'])

    def _damaged(self, body: bytes) -> bytes:
        for _ in range(self._random.randint(1, 3)):
            at = self._random.randrange(len(body) + 1)
            body = body[:at] + self._random.choice(DAMAGE) + body[at + self._random.randrange(3) :]
        return body


def _units(text: str) -> list[int]:
    """UTF-16 code units, as JSON escapes them."""
    raw = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[at : at + 2]) for at in range(0, len(raw), 2)]


seeds = st.integers(0, 2**64)
messages = st.one_of(seeds.map(lambda seed: Writer(seed).body()), st.binary(max_size=60))

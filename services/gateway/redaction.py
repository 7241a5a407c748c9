"""Keeps an injected credential from coming back: an upstream that repeats what it was sent reveals nothing.

Occurrences are replaced by asterisks of the same length, so that lengths on the way stay true. What is held
back between two chunks is only what may be the beginning of a secret.
"""

import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterable
from urllib.parse import quote

from services.gateway.connection import Header

SHORTEST = 6  # shorter words occur by accident


class Redactor:
    """Replaces the values of `credential` in what streams by."""

    def __init__(self, credential: Iterable[Header]) -> None:
        secrets = {form for _, value in credential for form in _forms(value) if len(form) >= SHORTEST}
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets))) if secrets else None

    def whole(self, data: bytes) -> bytes:
        """`data` without secrets, which is all that there is."""
        return self._pattern.sub(lambda found: b"*" * len(found[0]), data) if self._pattern else data

    def headers(self, headers: list[Header]) -> list[Header]:
        return [(name, self.whole(value)) for name, value in headers] if self._pattern else headers

    async def stream(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """`chunks` without secrets, also where one is spread over several."""
        if self._pattern is None:
            async for chunk in chunks:
                yield chunk
            return
        held = b""
        async for chunk in chunks:
            data = self.whole(held + chunk)
            keep = self._beginning(data)
            held = data[len(data) - keep :]
            if len(data) > keep:
                yield data[: len(data) - keep]
        if held:
            yield held

    def _beginning(self, data: bytes) -> int:
        """Length of the longest end of `data` with which a secret may begin."""
        return max(_overlap(data, secret) for secret in self._secrets)


def _overlap(data: bytes, secret: bytes) -> int:
    """Length of the longest end of `data` with which `secret` begins, and goes on."""
    start = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
    while start >= 0:
        if secret.startswith(data[start:]):
            return len(data) - start
        start = data.find(secret[:1], start + 1)
    return 0


def _forms(value: bytes) -> Iterable[bytes]:
    """The value, its last word (the key behind `Bearer`), what `Basic` holds (RFC 7617), and all of them as
    they stand in URLs, in JSON, and in JSON that is a text in JSON, as results of tools have it: a header is
    Latin-1 there, a variable UTF-8."""
    scheme, _, word = value.rpartition(b" ")
    forms = [value, word]
    if scheme.lower() == b"basic":
        with contextlib.suppress(ValueError):
            user_and_password = base64.b64decode(word)
            forms += [user_and_password, user_and_password.partition(b":")[2]]
    for form in forms:
        yield form
        yield quote(form, safe="").encode()
        for text in (form.decode("latin-1"), form.decode(errors="replace")):
            once = set(_as_json_writers_do(text))
            twice = (written for inner in once - {text} for written in _as_json_writers_do(inner))
            yield from (written.encode(errors="replace") for written in (*once, *twice))


def _as_json_writers_do(text: str) -> Iterable[str]:
    """`text` in JSON that is ASCII, as Python writes it, PHP, Go, and .NET; and in JSON that is not."""
    plain = json.dumps(text)[1:-1]
    yield plain
    yield plain.replace("/", "\\/")
    yield plain.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})
    yield plain.translate({ord(c): f"\\u{ord(c):04X}" for c in "<>&+'`"})
    yield json.dumps(text, ensure_ascii=False)[1:-1]

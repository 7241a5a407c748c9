"""Keeps an injected credential from coming back: an upstream that repeats what it was sent reveals nothing.

Occurrences are replaced by asterisks of the same length, so that lengths on the way stay true. What is held
back between two chunks is only what may be the beginning of a secret.
"""

import json
import re
from collections.abc import AsyncIterator, Iterable

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
        longest = min(len(data), len(self._secrets[0]) - 1)
        for length in range(longest, 0, -1):
            end = data[len(data) - length :]
            if any(secret.startswith(end) for secret in self._secrets):
                return length
        return 0


def _forms(value: bytes) -> Iterable[bytes]:
    """The value, its last word (the key behind `Bearer`), and both as they stand in JSON: a header is
    Latin-1 there, a variable UTF-8."""
    for form in (value, value.rpartition(b" ")[2]):
        yield form
        yield json.dumps(form.decode("latin-1"))[1:-1].encode()
        yield json.dumps(form.decode(errors="replace"))[1:-1].encode()
        yield json.dumps(form.decode(errors="replace"), ensure_ascii=False)[1:-1].encode()

"""Server-sent events (WHATWG HTML, 9.2): cut from a stream at their borders, or written."""

import re

KEEP_ALIVE = b": keep-alive\n\n"  # a comment, for who closes what is silent

_BORDER = re.compile(rb"\r\n\r\n|\n\n|\r\r|\r\n\n|\n\r\n")
_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"\r\n|\n|\r")


class TooLong(Exception):
    """An event is longer than we are willing to hold."""


class Splitter:
    """Takes chunks, gives whole events, each with the empty line that ends it."""

    def __init__(self, limit: int) -> None:
        self.skipping = False  # the event that comes in is passed over
        self.skipped = 0  # bytes that were passed over, of the last such event
        self._limit = limit
        self._held = bytearray()
        self._searched = 0  # up to here no border begins
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes. Raises `TooLong`, when it has given all that came whole before.

        After that, either `skip` the event or feed no more.
        """
        self._held += chunk
        if self.skipping and not self._find_end():
            return []
        if not self._begun and len(self._held) >= len(_BOM):
            self._begun = True
            if self._held.startswith(_BOM):  # readers skip it, so a filter must not stumble over it
                del self._held[: len(_BOM)]
        events = []
        start = 0
        for border in _BORDER.finditer(self._held, self._searched):
            events.append(bytes(self._held[start : border.end()]))
            start = border.end()
        del self._held[:start]
        self._searched = max(0, len(self._held) - 3)
        if len(self._held) > self._limit and not events:
            raise TooLong
        return events

    def skip(self) -> None:
        """Pass over the event that is too long, to its end."""
        self.skipping, self.skipped = True, 0
        self._find_end()

    def _find_end(self) -> bool:
        border = _BORDER.search(self._held, self._searched)
        passed = border.end() if border else max(0, len(self._held) - 3)  # a border may begin in what is left
        del self._held[:passed]
        self.skipped += passed
        self._searched = 0
        self.skipping = border is None
        return border is not None

    def rest(self) -> bytes:
        """What the stream ended with, without an empty line behind it: no event, by the standard."""
        return bytes(self._held)


def data_of(event: bytes) -> bytes:
    """The data of an event; empty for comments and events without any."""
    lines = [line for line in _LINE.split(event) if line.startswith(b"data:") or line == b"data"]
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def with_data(event: bytes, data: bytes) -> bytes:
    """`event` with other data, its `id`, `event` and `retry` as they were. `data` has no line breaks."""
    kept = [line for line in _LINE.split(event) if line and not line.startswith(b"data:") and line != b"data"]
    return b"\n".join([*kept, b"data: " + data, b"", b""])


def encoded(data: bytes, *, id: bytes = b"", event: bytes = b"message") -> bytes:
    """`data` as an event. Line breaks are white space in JSON."""
    lines = [b"event: " + event]
    if id:
        lines.append(b"id: " + id)
    lines += [b"data: " + line for line in _LINE.split(data)]
    return b"\n".join([*lines, b"", b""])

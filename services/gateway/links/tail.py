"""The last lines of a stream that never ends, in bounded memory."""

from collections import deque

LINES, LINE, BYTES = 200, 2048, 64 * 1024


class Tail:
    """At most `LINES` lines, each cut at `LINE` bytes, and at most `BYTES` bytes of them."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._open = b""  # a line whose end has not come

    def feed(self, chunk: bytes) -> None:
        """Take in what came of the stream."""
        *lines, last = chunk.split(b"\n")
        for line in lines:
            self.add(self._open + line)
            self._open = b""
        self._open = (self._open + last)[: LINE + 1]

    def add(self, line: bytes) -> None:
        """Take in a whole line."""
        line = line.rstrip(b"\r")
        line = line if len(line) <= LINE else line[: LINE - 3] + b"..."
        self._lines.append(line)
        self._bytes += len(line)
        while self._bytes > BYTES or len(self._lines) > LINES:
            self._bytes -= len(self._lines.popleft())

    def lines(self, most: int = BYTES) -> list[str]:
        """The newest lines, oldest first, at most `most` bytes of them."""
        found: list[str] = []
        for line in reversed([*self._lines, *filter(None, [self._open[:LINE]])]):
            most -= len(line) + 1
            if most < 0:
                break
            found.append(line.decode(errors="replace"))
        return found[::-1]

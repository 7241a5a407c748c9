"""What the record keeps of an answer, taken as it streams by: the outcome, and the payload up to a limit."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from services.gateway.sse import Splitter, TooLong, data_of

# Up to here an answer is held to be read, even if the record then keeps less of it.
READ_LIMIT = 4 * 1024 * 1024


class _Result(msgspec.Struct):
    isError: Any = False


class _Error(msgspec.Struct):
    code: Any = 0
    message: Any = ""


class _Answer(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_answer = msgspec.json.Decoder(_Answer).decode
_result = msgspec.json.Decoder(_Result).decode
_error = msgspec.json.Decoder(_Error).decode


@dataclass(slots=True)
class Payload:
    """JSON text cut at a limit, its whole length in bytes, and a hash of the whole if it was cut."""

    text: str = ""
    size: int = 0
    sha256: str = ""

    @classmethod
    def of(cls, data: bytes, limit: int) -> "Payload":
        if len(data) <= limit:
            return cls(data.decode(errors="replace"), len(data))
        # A cut inside a character loses that character, not the record.
        return cls(data[:limit].decode(errors="ignore"), len(data), hashlib.sha256(data).hexdigest())


@dataclass(slots=True)
class Outcome:
    """How a request ended, as far as the answer says."""

    answered: bool = False
    failed: bool = False  # a JSON-RPC error, or a tool's result with `isError`
    error_code: int = 0
    detail: str = ""
    output: Payload = field(default_factory=Payload)


class Capture:
    """Reads along one answer, which is one JSON message or a stream of events, and finds the response."""

    def __init__(self, id: bytes, limit: int, *, sse: bool) -> None:
        self.outcome = Outcome()
        self._id, self._limit = id, limit
        self._splitter = Splitter(READ_LIMIT) if sse else None
        self._held = bytearray()
        self._hash = hashlib.sha256()
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        if self._splitter is None:
            self._keep(chunk)
        elif not self.outcome.answered:
            self._feed_events(chunk)

    def end(self) -> Outcome:
        """The outcome, when nothing more comes."""
        if self._splitter is None and self._size:
            if self._size <= READ_LIMIT:
                self._read(bytes(self._held))
                if not self.outcome.answered:  # an error page, say
                    self.outcome.output = Payload.of(bytes(self._held), self._limit)
            else:
                self._too_long(self._size, self._hash.hexdigest(), bytes(self._held[: self._limit]))
        return self.outcome

    def _keep(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= READ_LIMIT:
            self._held += chunk
            return
        if self._held and self._size - len(chunk) <= READ_LIMIT:  # it has just become too long to read
            self._hash.update(self._held)
            del self._held[self._limit :]
        self._hash.update(chunk)

    def _feed_events(self, chunk: bytes) -> None:
        assert self._splitter is not None
        try:
            for event in self._splitter.feed(chunk):
                self._read(data_of(event))
        except TooLong:
            # Too long to be read: it passes, and the record says so. Which message it was is not known.
            held = data_of(self._splitter.rest())
            self._too_long(len(held), "", held[: self._limit])
            self.outcome.detail = "an event was too long to be read; the size is a lower bound"

    def _read(self, data: bytes) -> None:
        if not data:
            return
        try:
            answer = _answer(data)
        except msgspec.DecodeError:
            return
        outcome = self.outcome
        if self._id != b"null" and bytes(answer.id) != self._id:
            return
        if error := bytes(answer.error):
            outcome.answered = outcome.failed = True
            outcome.error_code, outcome.detail = _describe(error)
            outcome.output = Payload.of(error, self._limit)
        elif result := bytes(answer.result):
            outcome.answered = True
            outcome.failed = _is_error(result)
            outcome.output = Payload.of(result, self._limit)

    def _too_long(self, size: int, sha256: str, kept: bytes) -> None:
        self.outcome.answered = True
        self.outcome.output = Payload(kept.decode(errors="ignore"), size, sha256)


def _is_error(result: bytes) -> bool:
    try:
        return _result(result).isError is True
    except msgspec.DecodeError:
        return False


def _describe(error: bytes) -> tuple[int, str]:
    try:
        decoded = _error(error)
    except msgspec.DecodeError:
        return 0, ""
    code = decoded.code if isinstance(decoded.code, int) and abs(decoded.code) < 2**31 else 0
    return code, str(decoded.message)[:500]

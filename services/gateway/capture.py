"""What the record keeps of an answer, taken as it streams by: the outcome, and the payload up to a limit."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from services.gateway.messages import UNREADABLE
from services.gateway.protocol import TOOLS_CHANGED
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
    tools_changed: bool = False  # before it the server said that its list of tools has changed


class Capture:
    """Reads along one answer, which is one JSON message or a stream of events, and finds the response."""

    def __init__(self, id: bytes, limit: int, *, sse: bool) -> None:
        self.outcome = Outcome()
        self._id, self._limit = id, limit
        self._splitter = Splitter(READ_LIMIT) if sse else None
        self._beginning = b""  # of an event that was too long to be read
        self._found = False  # the response, for sure
        self._tools_changed = False
        self._held = bytearray()
        self._hash: hashlib._Hash | None = None  # of what is too long to be read
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        if self._splitter is None:
            self._keep(chunk)
        elif not self._found:
            self._feed_events(chunk)

    def end(self) -> Outcome:
        """The outcome, when nothing more comes."""
        self.outcome.tools_changed = self._tools_changed
        if self._splitter is None and self._size:
            if self._hash:
                self._too_long(self._size, self._hash.hexdigest(), bytes(self._held))
                return self.outcome
            self._read(bytes(self._held))
            if not self.outcome.answered:  # an error page, say
                self.outcome.output = Payload.of(bytes(self._held), self._limit)
        return self.outcome

    def _keep(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._hash:
            self._hash.update(chunk)
            return
        self._held += chunk
        if self._size > READ_LIMIT:  # it has just become too long to be read
            self._hash = hashlib.sha256(self._held)
            del self._held[self._limit :]

    def _feed_events(self, chunk: bytes) -> None:
        assert self._splitter is not None
        try:
            for event in self._splitter.feed(chunk):
                self._read(data_of(event))
        except TooLong:
            self._beginning = data_of(self._splitter.rest())[: self._limit]
            self._splitter.skip()
        if self._beginning and not self._splitter.skipping and self._id != b"null" and not self._found:
            # It will have been the response, unless that is still to come.
            self._too_long(self._splitter.skipped, "", self._beginning)
            self.outcome.detail = "the answer was too long to be read; its size is that of its event"
            self._beginning = b""

    def _read(self, data: bytes) -> None:
        if not data or self._found:
            return
        try:
            answer = _answer(data)
        except UNREADABLE:
            return
        if self._id != b"null" and bytes(answer.id) != self._id:
            self._tools_changed = self._tools_changed or TOOLS_CHANGED in data
            return
        if answer.error or answer.result:
            self._found, self.outcome = True, _outcome(answer, self._limit)

    def _too_long(self, size: int, sha256: str, kept: bytes) -> None:
        self.outcome.answered = True
        self.outcome.output = Payload(kept.decode(errors="ignore"), size, sha256)


def _outcome(answer: _Answer, limit: int) -> Outcome:
    if error := bytes(answer.error):
        code, detail = _describe(error)
        return Outcome(True, True, code, detail, Payload.of(error, limit))
    result = bytes(answer.result)
    return Outcome(True, _is_error(result), output=Payload.of(result, limit))


def _is_error(result: bytes) -> bool:
    try:
        return _result(result).isError is True
    except UNREADABLE:
        return False


def _describe(error: bytes) -> tuple[int, str]:
    try:
        decoded = _error(error)
    except UNREADABLE:
        return 0, ""
    code = decoded.code if isinstance(decoded.code, int) and abs(decoded.code) < 2**31 else 0
    return code, str(decoded.message)[:500]

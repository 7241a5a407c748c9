"""Messages over the standard streams of a process: one a line (MCP, basic/transports/stdio)."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from services.gateway import messages
from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import Check, Emit, OnClosed
from services.gateway.links.process import Process, Program
from services.gateway.messages import Message, NotAMessage

# (the message as it came, and its parts)
OnMessage: TypeAlias = Callable[[bytes, Message], None]

_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode


def line_of(message: bytes) -> bytes:
    """`message` on one line. Line breaks stand between its tokens only, where JSON lets any white space
    stand (RFC 8259, section 2); within strings they are escaped (section 7)."""
    if b"\n" in message or b"\r" in message:
        return message.replace(b"\n", b" ").replace(b"\r", b" ")
    return message


def messages_of(line: bytes) -> list[bytes]:
    """The messages on a line: one, none if it is empty, or a batch (MCP 2025-03-26). Raises `NotAMessage`."""
    line = line.strip(b" \t\r")
    if not line.startswith(b"["):
        return [line] if line else []
    try:
        return [bytes(raw) for raw in _batch(line)]
    except messages.UNREADABLE as error:
        raise NotAMessage(str(error)) from error


class Pipe:
    """A process that speaks in messages. What it writes that is none is kept beside its standard error.

    `on_message` and `on_closed` may be replaced by whoever takes it over; neither may block or raise.
    """

    def __init__(self, program: Program, write_within: float, on_ended: OnClosed) -> None:
        """`on_ended` is called before `on_closed`, and only if the process ends by itself."""
        self.on_message: OnMessage = lambda _raw, _message: None
        self.on_closed: OnClosed = lambda _: None
        self.process = Process(program, self._take, self._end)
        self._on_ended = on_ended
        self._write_within = write_within  # seconds

    @property
    def failure(self) -> UpstreamFailed | None:
        """Why nothing can be sent any more, to be raised."""
        return self.process.failure

    async def send(self, message: bytes, check: Check) -> None:
        """Send a message. Raises `UpstreamFailed`, and then it has not left."""
        await self.process.write(line_of(message), check, self._write_within)

    def offer(self, message: bytes) -> None:
        """Send a message of our own, unless the process reads nothing."""
        self.process.offer(message)

    def kill(self, failure: UpstreamFailed) -> None:
        """End the process at once."""
        self.process.kill(failure)
        self.on_closed(failure)

    async def stop(self, failure: UpstreamFailed) -> None:
        """End the process politely."""
        self.on_closed(failure)
        await self.process.stop(failure)

    def note(self, what: str, raw: bytes) -> None:
        """Keep for administrators what nobody else can be given."""
        self.process.errors.add(f"[{what}] ".encode() + raw)

    def _end(self, failure: UpstreamFailed) -> None:
        self._on_ended(failure)
        self.on_closed(failure)

    def _take(self, line: bytes) -> None:
        try:
            for raw in messages_of(line):
                self.on_message(raw, messages.read(raw))
        except NotAMessage:
            self.note("no message", line)


class PipeSession:
    """A `Session` (port.py) that has a process to itself. Every message passes as it is."""

    def __init__(
        self,
        run: Callable[[], Awaitable[Pipe]],
        release: Callable[[], Awaitable[None]],
        on_message: Emit,
        on_closed: OnClosed,
    ) -> None:
        """`run` starts the process, or raises `UpstreamFailed`; `release` ends it."""
        self._run, self._release = run, release
        self._on_message, self._on_closed = on_message, on_closed
        self._pipe: Pipe | None = None
        self._open = True

    async def start(self) -> None:
        pipe = await self._run()
        pipe.on_message = lambda raw, _: self._take(raw)
        pipe.on_closed = self._end
        self._pipe = pipe

    async def send(self, message: bytes, check: Check) -> None:
        if self._pipe is None or not self._open:
            raise UpstreamFailed("upstream_broke_off", "the session has ended")
        await self._pipe.send(message, check)

    async def close(self) -> None:
        self._open = False
        await self._release()

    def _take(self, raw: bytes) -> None:
        if self._open:
            self._on_message(raw)

    def _end(self, failure: UpstreamFailed) -> None:
        if self._open:
            self._open = False
            self._on_closed(failure)

"""One child process that speaks in lines: started, supervised, bounded in all that it may use of us, ended.

The program runs under supervisor.py, which ends it with all its descendants when this gateway stops it or
dies, be it by `kill -9`. It gets a working directory of its own, three pipes and no other descriptor, and of
our environment only what `INHERITED` names.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

import structlog

from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import Check, OnClosed
from services.gateway.links.tail import Tail
from services.gateway.redaction import Redactor

log = structlog.get_logger(__name__)

SUPERVISOR = Path(__file__).with_name("supervisor.py")
# Where to find programs, where they keep their caches, and how they write; nothing that may be secret.
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ")

CHUNK = 64 * 1024  # bytes read at once
TURN = 256  # lines taken before everybody else has a turn
ERRORS_RATE = 1024 * 1024  # bytes a second that are read of standard error; who writes more has to wait
wait = asyncio.sleep  # for it
UNREAD = 1024 * 1024  # bytes that a process may leave unread before messages of our own are dropped
# Seconds from each step of stopping to the next: input closed, SIGTERM, SIGKILL, given up.
STEPS = (2.0, 2.0, 2.0)
LAST_OUTPUT = 1.0  # seconds for what an ended process left in its pipes

OnLine: TypeAlias = Callable[[bytes], None]


class Limits(NamedTuple):
    """`line` is in bytes, the longest that a process may write. The others are setrlimit(2)'s, 0 for none:
    open files, bytes of address space, and processes and threads of the operating system's user."""

    line: int
    open_files: int = 0
    address_space: int = 0
    tasks: int = 0


@dataclass(frozen=True)
class Program:
    """What to run. `environment` comes on top of what is inherited; `redactor` knows what in it is secret."""

    command: Sequence[str]
    directory: Path
    limits: Limits
    environment: Mapping[str, str] = field(default_factory=dict)
    redactor: Redactor | None = None

    def whole_environment(self) -> dict[str, str]:
        """All that the process finds in its environment."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {"HOME": str(self.directory)} | inherited | dict(self.environment)


class Process:
    """One run of `program`, from `start` to its end.

    `on_line` is called for each line that it writes, without its end and without secrets; `on_ended` once,
    if it ends other than by `stop` or `kill`. Neither may block or raise.
    """

    def __init__(self, program: Program, on_line: OnLine, on_ended: OnClosed) -> None:
        self.errors = Tail()
        self.ending = ""  # how it ended, for administrators
        self._program, self._on_line, self._on_ended = program, on_line, on_ended
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline: socket.socket | None = None
        self._failure: UpstreamFailed | None = None
        self._wanted = True
        self._ended = asyncio.Event()
        self._turn = asyncio.Lock()
        self._waiting = 0  # bytes of lines that wait for their turn
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of its supervisor, which leads the session of everything it started."""
        return self._process.pid if self._process and not self._ended.is_set() else None

    @property
    def failure(self) -> UpstreamFailed | None:
        """Why nothing can be sent any more, to be raised."""
        return again(self._failure) if self._failure else None

    @property
    def ended_by_itself(self) -> bool:
        return self._wanted and self._ended.is_set()

    async def start(self) -> None:
        """Run it. Raises `UpstreamFailed` where that is impossible, or it was ended meanwhile."""
        environment = self._program.whole_environment()
        if not _exists(self._program.command[0], environment):
            raise UpstreamFailed("upstream_unreachable", "its command is not found on this gateway's PATH")
        ours, theirs = socket.socketpair()
        try:
            self._process = await self._spawn(theirs, environment)
        except (OSError, ValueError) as error:
            log.warning("process_not_started", command=self._program.command[0], error=repr(error))
            raise UpstreamFailed("upstream_unreachable", "its command cannot be started") from error
        finally:
            theirs.close()
            if self._process is None:
                ours.close()
        self._lifeline = ours
        if not self._wanted:  # it was ended while it started
            self._cut()
        self._watcher = asyncio.create_task(self._watch(self._process), name="stdio-process")
        if self._failure:
            await self.gone()
            raise again(self._failure)

    async def write(self, line: bytes, check: Check, within: float) -> None:
        """Send a line once the process has read most of what was sent before. Raises `UpstreamFailed`.

        Waits `within` seconds at the most; what may wait is limited too. `check` comes right before.
        """
        if self._waiting and self._waiting + len(line) > self._program.limits.line:
            raise UpstreamFailed("upstream_busy", "its process does not read what it is sent")
        self._waiting += len(line)
        try:
            async with asyncio.timeout(within), self._turn:
                await self._room()
                check()
                self._input.write(line + b"\n")
        except TimeoutError as error:
            detail = f"its process did not read what it was sent within {within:g} s"
            raise UpstreamFailed("upstream_timeout", detail) from error
        finally:
            self._waiting -= len(line)

    def offer(self, line: bytes) -> bool:
        """Send a line of our own, if the process reads at all. Returns whether it was sent."""
        if self._failure or self._input.transport.get_write_buffer_size() > UNREAD:
            return False
        self._input.write(line + b"\n")
        return True

    async def stop(self, failure: UpstreamFailed) -> None:
        """End it politely (MCP 2026-07-28, basic/transports/stdio, Shutdown). Returns when it has ended.

        Who still writes gets `failure`.
        """
        self._dismiss(failure)
        if self._process is None:
            return
        self._input.close()
        for step, wait in zip((None, self._terminate, self._cut), STEPS, strict=True):
            if step:
                step()
            if await self.gone(wait):
                return
        log.error("process_does_not_end", pid=self._process.pid)

    async def gone(self, within: float = STEPS[-1]) -> bool:
        """Wait until it has ended. Returns whether it has."""
        if self._process:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._ended.wait()
        return self._process is None or self._ended.is_set()

    def kill(self, failure: UpstreamFailed) -> None:
        """End it at once, with all that it started, without waiting. Who still writes gets `failure`."""
        self._dismiss(failure)
        self._cut()

    def _dismiss(self, failure: UpstreamFailed) -> None:
        self._wanted = False
        self._fail(failure)

    def _terminate(self) -> None:
        if self._lifeline:
            with contextlib.suppress(OSError):
                self._lifeline.send(b"T")

    # -- its life -----------------------------------------------------------------------------------

    async def _spawn(
        self, lifeline: socket.socket, environment: dict[str, str]
    ) -> asyncio.subprocess.Process:
        limits = (str(limit) for limit in self._program.limits[1:])
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(SUPERVISOR), str(lifeline.fileno()), *limits),
            *self._program.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(lifeline.fileno(),),
            cwd=self._program.directory,
            env=environment,
            start_new_session=True,
            limit=CHUNK,
        )

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """From its start to its end, which is when output and process have ended."""
        output = asyncio.create_task(self._read_output())
        errors = asyncio.create_task(self._read_errors())
        exit = asyncio.create_task(process.wait())
        await asyncio.wait([output, exit], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([exit], timeout=LAST_OUTPUT)
        if not exit.done():  # its output has ended, or must not go on
            self._fail(UpstreamFailed("upstream_broke_off", "its process closed its output"))
            self._cut()
        self.ending = _in_words(await exit)
        await asyncio.wait([output, errors], timeout=LAST_OUTPUT)
        for task in (output, errors):
            task.cancel()
        self._fail(UpstreamFailed("upstream_broke_off", f"its process {self.ending}"))
        self._cut()
        self._input.close()
        self._ended.set()
        if self._wanted and self._failure:
            self._on_ended(self._failure)

    def _fail(self, failure: UpstreamFailed) -> None:
        self._failure = self._failure or failure

    def _cut(self) -> None:
        if self._lifeline:
            self._lifeline.close()
            self._lifeline = None

    async def _read_output(self) -> None:
        line = bytearray()
        async for chunk in _chunks(self._streams.stdout):
            *ends, rest = chunk.split(b"\n")
            for number, end in enumerate(ends, 1):
                line += end
                if not self._take(line):
                    return
                line.clear()
                if number % TURN == 0:
                    await asyncio.sleep(0)
            line += rest
            if len(line) > self._program.limits.line and not self._take(line):
                return
        if line:
            self._take(line)

    def _take(self, line: bytearray) -> bool:
        """Pass on a line; False when it is too long, and nothing may follow it."""
        limit = self._program.limits.line
        if len(line) > limit:
            detail = f"its process wrote a message of more than {limit} bytes"
            self._fail(UpstreamFailed("upstream_bad_answer", detail))
            self._cut()
            return False
        if self._wanted and not self._failure:
            redactor = self._program.redactor
            self._on_line(redactor.whole(bytes(line)) if redactor else bytes(line))
        return True

    async def _read_errors(self) -> None:
        chunks = _chunks(self._streams.stderr)
        redactor = self._program.redactor
        async for chunk in redactor.stream(chunks) if redactor else chunks:
            self.errors.feed(chunk)
            await wait(len(chunk) / ERRORS_RATE)

    # -- its input ----------------------------------------------------------------------------------

    @property
    def _streams(self) -> asyncio.subprocess.Process:
        assert self._process
        return self._process

    @property
    def _input(self) -> asyncio.StreamWriter:
        assert self._streams.stdin
        return self._streams.stdin

    async def _room(self) -> None:
        """Wait until what was sent before is read but for a little. Raises `UpstreamFailed`."""
        if not self._failure:
            with contextlib.suppress(ConnectionError):
                await self._input.drain()
                if not self._input.is_closing():
                    return
            await self.gone(LAST_OUTPUT)  # why it reads no more is known then
        raise again(self._failure or UpstreamFailed("upstream_broke_off", "its process closed its input"))


async def _chunks(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    assert stream
    while chunk := await stream.read(CHUNK):
        yield chunk


def again(failure: UpstreamFailed) -> UpstreamFailed:
    """The same failure for one more to raise: an exception collects the traceback of everybody who does."""
    return UpstreamFailed(failure.reason, failure.detail)


def _exists(program: str, environment: Mapping[str, str]) -> bool:
    if "/" in program:
        return True  # relative to its own directory; the supervisor will see
    return shutil.which(program, path=environment.get("PATH")) is not None


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"

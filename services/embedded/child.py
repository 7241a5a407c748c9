"""A supervised child process: started again when it dies, gone when we are gone.

Two things keep a child from outliving us. On Linux the kernel ends it when our process dies (tether.py).
Where that is not so, or not yet, the child still holds the lock on its lock file, and the next start ends
the process whose id stands there before it starts its own. The lock proves that the id is still the child's.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from libs.common.lifecycle import cancel
from services.embedded.datadir import holder, lock_file

log = structlog.get_logger(__name__)

TETHER = Path(__file__).with_name("tether.py")
READY_WITHIN = 20.0  # seconds from start to ready
STOP_WITHIN = 5.0  # seconds from SIGTERM to SIGKILL
GRACE = 0.5  # seconds for a child of an earlier run that is ending already
POLL = 0.02
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two attempts to start
STEADY = 10.0  # a child that lived so long starts over with the first pause


class ChildFailed(Exception):
    """A child did not become ready; the message says what it last wrote."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `ready` tells whether it can be used; output goes to `<directory>/<name>.log`, or where
    ours goes. `environment` is added to ours; `descriptors` are those of ours that it shares."""

    name: str
    command: Sequence[str]
    directory: Path
    ready: Callable[[], Awaitable[bool]]
    logged: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()

    @property
    def log(self) -> Path | None:
        return self.directory / f"{self.name}.log" if self.logged else None

    @property
    def lock(self) -> Path:
        return lock_path(self.directory, self.name)


class Child:
    """One running `program`, kept running from `start` to `stop`."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running child; None while there is none."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    async def start(self) -> None:
        """Return when it is ready. Raises `ChildFailed` if it is not in time or ends before."""
        try:
            await self._spawn()
            await self._until_ready()
        except BaseException:
            await self._end()
            raise
        self._watch = asyncio.create_task(self._keep_running(), name=f"child-{self._program.name}")

    async def stop(self) -> None:
        """End it, politely first."""
        try:
            await cancel(self._watch)
            self._report_failed_watch()
        finally:
            await self._end()

    def kill(self) -> None:
        """End it at once, without waiting."""
        if pid := self.pid:
            os.kill(pid, signal.SIGKILL)

    async def _spawn(self) -> None:
        program = self._program
        lock = await take_over(program.lock)
        output = _output(program)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), str(lock), *program.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | program.environment,
                pass_fds=(lock, *program.descriptors),
                start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the child when it is due
            )
        finally:
            if output is not None:
                os.close(output)
            os.close(lock)  # the child has it now

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while self.pid and not await self._program.ready():
            if time.monotonic() > deadline:
                raise ChildFailed(
                    f"{self._program.name} is not ready after {READY_WITHIN:g} s. {self._last_words()}"
                )
            await asyncio.sleep(POLL)
        if not self.pid:
            raise ChildFailed(f"{self._program.name} ended at once. {self._last_words()}")

    def _last_words(self) -> str:
        log = self._program.log
        lines = log.read_text(errors="replace").splitlines()[-3:] if log else []
        return "\n  ".join([f"The end of {log}:", *lines]) if lines else ""

    async def _keep_running(self) -> None:
        pause = FIRST_PAUSE
        while True:
            assert self._process
            began = time.monotonic()
            code = await self._process.wait()
            log.error("child_ended", child=self._program.name, code=code)
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                await self._spawn()
                await self._until_ready()
                log.warning("child_restarted", child=self._program.name, pid=self.pid)
            except (ChildFailed, OSError) as error:
                log.error("child_not_restarted", child=self._program.name, error=str(error))
                await self._end()

    def _report_failed_watch(self) -> None:
        watch = self._watch
        if watch and not watch.cancelled() and (error := watch.exception()):
            log.error("child_watch_failed", child=self._program.name, exc_info=error)

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN):
                    await process.wait()
                return


def _output(program: Program) -> int | None:
    """Where the child's output goes; None for where ours goes."""
    return os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if program.log else None


async def end_orphan(directory: Path, name: str) -> None:
    """End the child `name` of an earlier run, if it still runs. Raises `ChildFailed` when it does not end."""
    os.close(await take_over(lock_path(directory, name)))


def lock_path(directory: Path, name: str) -> Path:
    """The file on which the running child `name` holds a lock, with its process id in it."""
    return directory / f"{name}.lock"


async def take_over(path: Path) -> int:
    """The lock on `path` (a descriptor), after ending the process of an earlier run that still holds it.

    Raises `ChildFailed` when that process does not end.
    """
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number:
            _signal_orphan(path, number)
        deadline = time.monotonic() + (STOP_WITHIN if number else GRACE)
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                lock = lock_file(path)
                os.ftruncate(lock, 0)  # whoever finds it taken must not read the id of an earlier child
                return lock
            await asyncio.sleep(POLL)
    raise ChildFailed(f"process {holder(path)} of an earlier run does not end; end it by hand")


def _signal_orphan(path: Path, number: signal.Signals) -> None:
    if pid := holder(path):
        log.warning("orphan_ended", lock=path.name, pid=int(pid), signal=number.name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), number)

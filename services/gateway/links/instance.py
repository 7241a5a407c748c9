"""A process of a server, from the first demand through every restart."""

import asyncio
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import structlog

from libs.common.clock import elapsed, iso, now
from libs.common.requests import ProcessReport, ProcessState
from services.gateway.connection import UpstreamFailed
from services.gateway.links.backoff import Backoff
from services.gateway.links.handshake import Handshake
from services.gateway.links.port import Era
from services.gateway.links.process import Program, again
from services.gateway.links.shared_endpoint import Serving
from services.gateway.links.sharing import Sharing
from services.gateway.links.stdio import Pipe

log = structlog.get_logger(__name__)


class Key(NamedTuple):
    """What a process is of. `owner` is the user whose it is, empty for everybody's; `configuration` a digest
    of what the administrator set; `version` that of the credential; `session` numbers those of one session.
    `client` is the era that it was asked for first. `question` numbers those that run while their server is
    off, because an administrator asks what it offers.
    """

    slug: str
    owner: str
    configuration: str
    credential: str = ""
    version: int = 0
    client: Era = "modern"
    session: int = 0
    question: int = 0


@dataclass(frozen=True)
class Timeouts:
    """Seconds: from the start of a process to its first answer, and for it to read what it is sent."""

    start: float
    write: float


class Instance:
    """One process at a time, for one session alone if `alone`. `backoff` may be that of others as well."""

    def __init__(self, key: Key, program: Program, timeouts: Timeouts, backoff: Backoff, alone: bool) -> None:
        self.key = key
        self._program, self._timeouts, self._backoff, self._alone = program, timeouts, backoff, alone
        self._pipe: Pipe | None = None
        self._last: Pipe | None = None  # the newest, running or not
        self._speaker: Sharing | Serving | None = None
        self._starting: asyncio.Task[Sharing | Serving] | None = None
        self._revoked: UpstreamFailed | None = None  # why a start that is under way is in vain
        self._began, self._started = 0.0, ""
        self._used = elapsed()

    # -- for those who use it ---------------------------------------------------------------------

    async def shared(self, order: tuple[Era, ...]) -> Sharing | Serving:
        """The process, for many to use; who asks first starts it. Raises `UpstreamFailed`.

        `order` is that of the eras to ask for. A start goes on when nobody waits for it any more.
        """
        self._used = elapsed()
        if self._speaker:
            return self._speaker
        if self._starting is None:
            self._backoff.check()
            self._revoked = None
            self._starting = asyncio.create_task(self._bring_up(order), name="stdio-start")
            self._starting.add_done_callback(self._brought_up)
        return await asyncio.shield(self._starting)

    async def run(self) -> Pipe:
        """The process, for a session that has it to itself. Raises `UpstreamFailed`."""
        self._backoff.check()
        return await self._run()

    @property
    def live(self) -> bool:
        """Whether there is a process."""
        return self._pipe is not None or self._starting is not None

    @property
    def idle(self) -> float:
        """Seconds since somebody used it; none while it starts. To be asked often."""
        if (self._alone and self._pipe) or self._starting or (self._speaker and self._speaker.in_use):
            self._used = elapsed()
        return elapsed() - self._used

    # -- its end ----------------------------------------------------------------------------------

    async def stop(self, failure: UpstreamFailed) -> None:
        """End its process politely; whoever uses it gets `failure` first. The next demand starts another."""
        starting = self._starting
        if pipe := self._let_go(failure):
            await pipe.stop(failure)
        if starting:
            await asyncio.wait([starting])

    def kill(self, failure: UpstreamFailed) -> None:
        """End its process at once, without waiting. Whoever uses it gets `failure`."""
        if pipe := self._let_go(failure):
            pipe.kill(failure)

    async def gone(self) -> None:
        """Wait until the process that was killed has ended."""
        if self._starting:
            await asyncio.wait([self._starting])
        if self._last:
            await self._last.process.gone()

    def report(self, most: int) -> ProcessReport:
        """For administrators, with at most `most` bytes of what it wrote on standard error."""
        process = self._last.process if self._last else None
        return ProcessReport(
            server=self.key.slug,
            user=self.key.owner,
            state=self._state(),
            pid=process.pid if process else None,
            started=self._started,
            ending=process.ending if process else "",
            retry_in=ceil(10 * self._backoff.remaining) / 10,
            errors=process.errors.lines(most) if process else [],
        )

    def _state(self) -> ProcessState:
        if self._starting:
            return "starting"
        if self._pipe:
            return "running"
        return "backing_off" if self._backoff.remaining else "stopped"

    # -- its processes ----------------------------------------------------------------------------

    async def _bring_up(self, order: tuple[Era, ...]) -> Sharing | Serving:
        """Start a process, and learn what it speaks. Raises `UpstreamFailed`."""
        try:
            return await self._greet(order)
        except UpstreamFailed as failure:
            if order[0] == "legacy" or not (self._last and self._last.process.ended_by_itself):
                raise
            # Some legacy servers end when the first message is no `initialize`.
            log.info("process_ended_when_asked", server=self.key.slug, failure=failure.detail)
            if self._revoked:
                raise again(self._revoked) from None
            return await self._greet(("legacy",))

    def _brought_up(self, task: "asyncio.Task[Sharing | Serving]") -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # those who waited have it; perhaps nobody does any more

    async def _greet(self, order: tuple[Era, ...]) -> Sharing | Serving:
        pipe = await self._run()
        try:
            greeted = await Handshake(pipe, order).run(self._timeouts.start)
        except UpstreamFailed as failure:
            if self._pipe is pipe:  # it neither ended by itself nor was ended
                self._ended(pipe, failure)
                pipe.kill(failure)
                await pipe.process.gone()
            raise
        if pipe.failure:
            raise pipe.failure
        self._speaker = Serving(pipe) if greeted.era == "modern" else Sharing(pipe, greeted.result)
        return self._speaker

    async def _run(self) -> Pipe:
        pipe = Pipe(self._program, self._timeouts.write, lambda failure: self._ended(pipe, failure))
        self._pipe = self._last = pipe
        self._began, self._started = elapsed(), iso(now())
        try:
            await pipe.process.start()
        except UpstreamFailed as failure:
            self._ended(pipe, failure)
            raise
        return pipe

    def _ended(self, pipe: Pipe, failure: UpstreamFailed) -> None:
        """It failed, by itself; what we ended is not ours any more."""
        if self._pipe is pipe:
            self._pipe = self._speaker = None
            lived = elapsed() - self._began
            self._backoff.failed(failure.detail, lived)
            log.warning("process_ended", server=self.key.slug, failure=failure.detail, lived=round(lived, 1))

    def _let_go(self, failure: UpstreamFailed) -> Pipe | None:
        self._revoked = failure
        pipe, self._pipe, self._speaker = self._pipe, None, None
        return pipe

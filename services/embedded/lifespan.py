"""Starts and stops one ASGI app by the lifespan protocol (ASGI specification, "Lifespan Protocol" 2.0).

HTTP servers enter the lifespan of one app, and frameworks do not enter those of mounted apps at all. Here
each app is entered by name, so that they start in a given order and a failure says whose it is.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog
from starlette.types import ASGIApp, Message, Scope

from libs.common.errors import LockgateError
from libs.common.settings import BadSettings

log = structlog.get_logger(__name__)

STOP_WITHIN = 8.0  # seconds for an app to end what it is doing


class StartupFailed(Exception):
    """A service could not start; the message says which one and why."""

    def __init__(self, name: str, reason: BaseException | str) -> None:
        if isinstance(reason, BaseException) and not isinstance(reason, LockgateError):
            reason = f"{type(reason).__name__}: {reason}"
        super().__init__(f"{name} could not start: {reason}")


class Lifespan:
    """The life of the app that `create` makes, in a task of its own, as the protocol expects it.

    Raises `StartupFailed` when there is no app to be had, or `BadSettings` as it is.
    """

    def __init__(self, name: str, create: Callable[[], ASGIApp]) -> None:
        self.name = name
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        try:
            self.app = create()
        except BadSettings:  # says itself which variable is wrong
            raise
        except Exception as error:
            raise self._failed(error) from error

    async def start(self) -> None:
        """Return once the app says that it has started. Raises `StartupFailed`, or `BadSettings` as it is."""
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        self._task = asyncio.create_task(self._live(scope), name=f"lifespan-{self.name}")
        try:
            answer = await self._exchange("lifespan.startup")
        except asyncio.CancelledError:
            await self._abandon()
            raise
        if answer["type"] != "lifespan.startup.complete":
            cause = await self._cause()
            if isinstance(cause, BadSettings):
                raise cause
            raise self._failed(cause or str(answer["message"])) from cause

    async def stop(self) -> None:
        """Let the app end; after `STOP_WITHIN` seconds it is cancelled. A failure in it is logged."""
        if self._task is None or self._task.done():
            return
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await self._exchange("lifespan.shutdown")
                await asyncio.wait({self._task})
        except TimeoutError:
            log.error("shutdown_timed_out", service=self.name, seconds=STOP_WITHIN)
            await self._abandon()
        if error := self._exception():
            log.error("shutdown_failed", service=self.name, exc_info=error)

    async def _live(self, scope: Scope) -> None:
        await self.app(scope, self._inbox.get, self._outbox.put)

    async def _exchange(self, kind: str) -> Message:
        """Send `kind` and wait for the answer, or for the end of the app."""
        assert self._task
        await self._inbox.put({"type": kind})
        answer = asyncio.create_task(self._outbox.get())
        try:
            await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else {"type": "", "message": "it ended without a word"}
        finally:
            answer.cancel()

    async def _cause(self) -> BaseException | None:
        """What a failed app raised: frameworks send their traceback as text first, and then raise."""
        assert self._task
        await asyncio.wait({self._task}, timeout=1)
        return self._exception()

    def _exception(self) -> BaseException | None:
        task = self._task
        return task.exception() if task and task.done() and not task.cancelled() else None

    def _failed(self, reason: BaseException | str) -> StartupFailed:
        if isinstance(reason, BaseException) and not isinstance(reason, LockgateError):
            log.error("startup_failed", service=self.name, exc_info=reason)
        return StartupFailed(self.name, reason)

    async def _abandon(self) -> None:
        assert self._task
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({self._task}, timeout=1)

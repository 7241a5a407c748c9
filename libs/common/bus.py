"""The connection to NATS: reconnects for ever, and speaks typed requests and replies.

Subjects of requests are `<service>.<verb>`, encoded as JSON by msgspec. A handler that raises a
`LockgateError` answers with it; anything else answers as an internal error and is logged here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from libs.common.errors import LockgateError, Unavailable
from libs.common.lifecycle import Tasks
from libs.common.settings import Settings

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds for the first connection

Q = TypeVar("Q")
R = TypeVar("R")


class Failure(msgspec.Struct, frozen=True):
    """How an error travels over the bus: the `type` of the error family and a sentence for people."""

    error: str
    detail: str


class Refused(LockgateError):
    """The service that was asked answered with an error of type `reason`."""

    status, type, title = 502, "refused", "Another service refused this request"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Bus:
    """One process's connection to NATS, as `name`."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._on_return: list[Callable[[], None]] = []
        self._answering = Tasks()
        self.client = Client()
        self.js: JetStreamContext = self.client.jetstream(timeout=5)

    async def start(self) -> None:
        """Connect. Raises `Unavailable` when no server answers within a few seconds."""
        settings = self._settings
        password = settings.nats_password
        try:
            # nats-py tries for ever when it may reconnect for ever; the first connection has to fail fast.
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self.client.connect(
                    settings.nats_url.split(","),
                    name=self._name,
                    user=settings.nats_user,
                    password=password.get_secret_value() if password else None,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                )
        except (OSError, nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"NATS at {settings.nats_url} does not answer: {error!r}") from error

    async def stop(self) -> None:
        """Send what is pending, then disconnect."""
        await self._answering.cancel()
        if not self.connected:
            await self.client.close()
            return
        try:
            await self.client.drain()
        except (nats.errors.Error, TimeoutError):
            await self.client.close()

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    async def _on_error(self, error: Exception) -> None:
        log.warning("bus_error", error=repr(error))

    async def _on_disconnect(self) -> None:
        if not (self.client.is_draining or self.client.is_closed):  # otherwise we wanted it
            log.warning("bus_disconnected")

    async def _on_reconnect(self) -> None:
        log.info("bus_reconnected")
        for callback in self._on_return:
            callback()

    def on_return(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever a connection that was lost is back. It must not raise or block."""
        self._on_return.append(callback)

    async def request(self, subject: str, query: msgspec.Struct, reply: type[R], timeout: float = 5.0) -> R:
        """Ask a service. Raises `Refused` with its error, `Unavailable` when nobody answers in time."""
        try:
            answer = await self.client.request(subject, msgspec.json.encode(query), timeout=timeout)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"no answer to {subject}: {type(error).__name__}") from error
        if answer.headers and answer.headers.get("Lockgate-Error"):
            failure = msgspec.json.decode(answer.data, type=Failure)
            raise Refused(failure.error, failure.detail)
        return msgspec.json.decode(answer.data, type=reply)

    async def gather(
        self, subject: str, query: msgspec.Struct, reply: type[R], within: float = 1.0, most: int = 0
    ) -> list[R]:
        """Ask everybody who serves `subject`. Returns what arrived `within` seconds, or the first `most`.

        Errors are left out. Raises `Unavailable` when the question cannot be sent.
        """
        answers: list[R] = []
        try:
            inbox = self.client.new_inbox()
            subscription = await self.client.subscribe(inbox)
            try:
                await self.client.publish(subject, msgspec.json.encode(query), reply=inbox)
                async with asyncio.timeout(within):
                    while not most or len(answers) < most:
                        answer = await subscription.next_msg(timeout=None)
                        if answer.headers and "Status" in answer.headers:
                            break  # nobody serves it (503)
                        if not (answer.headers and "Lockgate-Error" in answer.headers):
                            answers.append(msgspec.json.decode(answer.data, type=reply))
            finally:
                await subscription.unsubscribe()
        except TimeoutError:
            pass  # of our own: whoever has not answered is left out
        except nats.errors.Error as error:
            raise Unavailable(f"nobody can be asked for {subject}: {type(error).__name__}") from error
        return answers

    async def serve(
        self,
        subject: str,
        query: type[Q],
        handle: Callable[[Q], Awaitable[msgspec.Struct]],
        *,
        everyone: bool = False,
        at_once: int = 1,
    ) -> None:
        """Answer requests on `subject`; the replicas of one service share the work.

        With `everyone` each answers every request, which whoever asks has to `gather`. Up to `at_once` are
        answered at the same time, the rest in order.
        """
        places = asyncio.Semaphore(at_once)

        async def on_message(message: Msg) -> None:
            headers: dict[str, str] | None = None
            try:
                answer: msgspec.Struct = await handle(msgspec.json.decode(message.data, type=query))
            except (LockgateError, msgspec.DecodeError) as error:
                kind = error.type if isinstance(error, LockgateError) else "bad-request"
                answer, headers = Failure(kind, str(error)), {"Lockgate-Error": kind}
            except Exception:
                log.exception("bus_handler_failed", subject=subject)
                answer, headers = (
                    Failure("internal", "the service failed; see its log"),
                    {"Lockgate-Error": "internal"},
                )
            await self.client.publish(message.reply, msgspec.json.encode(answer), headers=headers)

        async def answer_at_its_place(message: Msg) -> None:
            try:
                await on_message(message)
            except nats.errors.Error as error:  # whoever asked asks again
                await self._on_error(error)
            finally:
                places.release()

        async def on_message_soon(message: Msg) -> None:
            await places.acquire()
            self._answering.spawn(answer_at_its_place(message))

        handler = on_message if at_once == 1 else on_message_soon
        await self.client.subscribe(subject, queue="" if everyone else subject, cb=handler)

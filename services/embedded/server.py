"""The listening socket and the HTTP server, the same for all services together and for one alone."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import uvicorn
from starlette.types import ASGIApp

from libs.common.settings import Settings
from services.embedded.console import Console
from services.embedded.heads import BoundedHeads
from services.embedded.lifespan import Lifespan

BACKLOG = 2048
DRAIN = 3  # seconds for running requests when the server stops


class CannotListen(Exception):
    """The address cannot be listened on; the message says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket, so that a port taken by another program is known before anything starts.

    Port 0 lets the system choose. Raises `CannotListen`.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}: {error.strerror or error}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(f"port {port} on {host} is taken. Choose another with --port.") from error
        raise CannotListen(f"cannot listen on {host} port {port}: {error.strerror}.") from error
    return listener


class Server(uvicorn.Server):
    """uvicorn without its own handling of lifespans and signals: both are ours, in a wider order."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        proxies = _proxies(settings)
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=BoundedHeads,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(proxies),
                forwarded_allow_ips=proxies,
                timeout_graceful_shutdown=DRAIN,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `Interrupts`."""
        yield


class Interrupts:
    """SIGINT and SIGTERM: the first stops cleanly, wherever we are; a SIGINT after it ends the process."""

    def __init__(self, force: Callable[[], None] = lambda: None) -> None:
        self.received = False
        self._force = force
        self._server: Server | None = None
        self._task: asyncio.Task[object] | None = None
        self._waiting: asyncio.Future[None] | None = None

    def install(self) -> None:
        """Handle the signals of this process from now on; the current task is what they cancel."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)

    async def serve(self, server: Server, listener: socket.socket) -> None:
        """Serve until the first signal, and then until running requests have ended or `DRAIN` is over."""
        self._server = server
        await server.serve([listener])
        self._server = None

    async def received_one(self) -> None:
        """Wait for the first signal."""
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting
        self._waiting = None

    def _on_signal(self, number: signal.Signals) -> None:
        if not self.received:
            self.received = True
            self._stop()
        elif number == signal.SIGINT:
            self._force()
            os._exit(128 + number)

    def _stop(self) -> None:
        if self._server:
            self._server.should_exit = True
        elif self._waiting and not self._waiting.done():
            self._waiting.set_result(None)
        elif self._task:
            self._task.cancel()


def _proxies(settings: Settings) -> list[str]:
    """Whose X-Forwarded-For uvicorn has to believe. A socket on `::` sees IPv4 addresses as mapped ones."""
    networks = [ip_network(name) for name in settings.trusted_proxies.split(",") if name]
    mapped = [f"::ffff:{n.network_address}/{96 + n.prefixlen}" for n in networks if n.version == 4]
    return [*map(str, networks), *mapped]


async def serve_alone(
    name: str,
    create: Callable[[], ASGIApp],
    settings: Settings,
    open_listener: Callable[[], socket.socket],
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Run one service until a signal; `ready` is called when it serves. Raises `CannotListen` or
    `StartupFailed`."""
    interrupts = Interrupts()
    interrupts.install()
    with contextlib.closing(open_listener()) as listener:
        lifespan = Lifespan(name, create)
        await lifespan.start()
        Console().administrator(lifespan.app)
        ready()
        try:
            await interrupts.serve(Server(lifespan.app, settings), listener)
        finally:
            await lifespan.stop()

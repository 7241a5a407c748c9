"""`lockgate up`: everything in order, and back again in the reverse order when it ends."""

import contextlib
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp

from libs.common import logs
from libs.common.settings import Settings
from services.embedded import demo, nats
from services.embedded.catalog import NAMES, Name, create_app
from services.embedded.child import Child
from services.embedded.console import Console
from services.embedded.datadir import DataDirectory
from services.embedded.dispatcher import Dispatcher
from services.embedded.lifespan import Lifespan
from services.embedded.server import Interrupts, Server, listen
from services.embedded.settings import Place, derive, describe_gateway


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given. Without `public_url` it is the address that is listened on."""

    data: Path
    host: str
    port: int
    public_url: str | None
    demo: bool


class Embedded:
    """One instance from start to stop."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options, self._console = options, console
        self._children: dict[str, Child] = {}  # in the order in which they start
        self._apps: dict[Name, ASGIApp] = {}

    async def run(self) -> None:
        """Start, serve until a signal, stop. Raises what kept it from starting."""
        interrupts = Interrupts(self._kill_children)
        interrupts.install()
        options = self._options
        with (
            contextlib.closing(listen(options.host, options.port)) as listener,  # first: it leaves no traces
            DataDirectory(options.data) as directory,
        ):
            async with AsyncExitStack() as stack:
                place = await self._place(directory, listener)
                settings = derive(place)
                describe_gateway(place, settings["gateway"])
                logs.configure(settings["gateway"])
                await self._start_children(stack)
                await self._start_services(stack, settings)
                self._console.addresses(settings["gateway"].public_url, demo=options.demo)
                await interrupts.serve(Server(Dispatcher(self._apps), settings["gateway"]), listener)
                self._console.say("Stopping.")

    async def _place(self, directory: DataDirectory, listener: socket.socket) -> Place:
        """Where everything is, and the children that belong there, not yet started."""
        known = await nats.connection(directory)
        self._children["message bus"] = nats.server(directory, known)
        demo_url = None
        if self._options.demo:
            server = await demo.server(directory)
            self._children["demo server"], demo_url = server.child, server.url
        public_url = self._options.public_url or f"http://127.0.0.1:{listener.getsockname()[1]}"
        return Place(directory, public_url, known, demo_url)

    async def _start_children(self, stack: AsyncExitStack) -> None:
        for label, child in self._children.items():
            with self._console.step(label):
                await child.start()
            stack.push_async_callback(child.stop)

    async def _start_services(self, stack: AsyncExitStack, settings: dict[Name, Settings]) -> None:
        try:
            for name in NAMES:
                with self._console.step(name):
                    lifespan = Lifespan(name, partial(create_app, name, settings[name]))
                    await lifespan.start()
                stack.push_async_callback(lifespan.stop)
                self._apps[name] = lifespan.app
        finally:  # the password is stored nowhere in clear, so it is shown even if the rest did not start
            self._console.administrator(self._apps.get("auth"))

    def _kill_children(self) -> None:
        for child in self._children.values():
            child.kill()

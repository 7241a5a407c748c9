"""Several gateway processes on one port: each is a replica of its own, with a journal of its own.

They share one listening socket, so the kernel hands each connection to one that is free, and none is lost
when a worker dies. Worker N keeps its things in `<data_dir>/gateway-workers/worker-N`. If there are fewer
workers than last time, the journals of the missing ones are shipped from here: no record waits for a worker
that never comes back.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from libs.common.bus import Bus
from libs.common.errors import LockgateError
from libs.common.journal import Journal
from libs.common.lifecycle import Part, running
from libs.common.settings import PREFIX, Settings
from libs.common.shipper import Shipper
from services.embedded.child import Child, Program
from services.embedded.datadir import DataDirectory, write_private
from services.embedded.lifespan import StartupFailed
from services.embedded.server import Interrupts
from services.gateway.app import journal_directory

WORKERS = "gateway-workers"
READY = "ready"  # the file in which a worker that serves writes its process id


async def serve_workers(settings: Settings, open_listener: Callable[[], socket.socket], count: int) -> None:
    """Run `count` workers until a signal. Raises `CannotListen`, `ChildFailed` or `StartupFailed`."""
    children: list[Child] = []

    def kill() -> None:
        for child in children:
            child.kill()

    interrupts = Interrupts(kill)
    interrupts.install()
    with open_listener() as listener, DataDirectory(settings.data_dir / WORKERS) as directory:
        children += [_child(directory.path, number, listener) for number in range(count)]
        async with AsyncExitStack() as stack:
            await _ship(stack, settings, _left_over(settings, directory.path, count))
            for child in children:
                stack.push_async_callback(child.stop)
            await asyncio.gather(*(child.start() for child in children))
            await interrupts.received_one()


def _child(directory: Path, number: int, listener: socket.socket) -> Child:
    place = _place(directory, number)
    place.mkdir(mode=0o700, exist_ok=True)

    async def ready() -> bool:
        path = place / READY
        return path.exists() and path.read_text() == str(child.pid)

    program = Program(
        f"worker-{number}",
        [sys.executable, "-m", "services.cli", "worker", str(listener.fileno())],
        directory,
        ready,
        logged=False,
        environment={f"{PREFIX}DATA_DIR": str(place)},
        descriptors=(listener.fileno(),),
    )
    child = Child(program)  # `ready` is asked when it has a process id
    return child


def _place(directory: Path, number: int) -> Path:
    return directory / f"worker-{number}"


def _left_over(settings: Settings, directory: Path, count: int) -> list[Path]:
    """The journals that no worker will open: of workers beyond `count`, and of a gateway without workers."""
    numbers = [path.name.removeprefix("worker-") for path in directory.glob("worker-*")]
    places = [
        _place(directory, int(number)) for number in numbers if number.isdigit() and int(number) >= count
    ]
    return [path for path in map(journal_directory, [settings.data_dir, *places]) if path.exists()]


async def _ship(stack: AsyncExitStack, settings: Settings, journals: list[Path]) -> None:
    """Ship these journals for as long as we run."""
    bus = Bus(settings, "gateway")
    parts: list[Part] = []
    for path in journals:
        journal = Journal(path)
        parts += [journal, Shipper(bus, journal, settings)]
    if parts:
        try:
            await stack.enter_async_context(running(bus, *parts))
        except LockgateError as error:
            raise StartupFailed("gateway", error) from error


def shared_listener(descriptor: int) -> socket.socket:
    """The socket that `serve_workers` listens on, in a worker."""
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    return listener


def say_ready(settings: Settings) -> None:
    """Tell `serve_workers` that this worker serves."""
    write_private(settings.data_dir / READY, str(os.getpid()))
